//! HTTP/2 connections: Pingora handles all of their requests.
//!
//! h2 enforces the limits of the protocol (below, and in `options`): the number of streams, the size of header lists,
//! endless CONTINUATION, endless small DATA frames, streams reset before they were accepted, and errors that make the
//! edge reset streams. It stops reading while an answer to PING or SETTINGS waits to be written; [`super::flood`]
//! limits how many of those frames it reads. h2 does not track how long a request runs after its stream was reset. The
//! edge therefore limits the requests under way on a connection to the number of streams, including reset ones. Further
//! streams that a client resets quickly (CVE-2023-44487) wait in h2, which closes the connection at the 21st.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, H2Options, HttpSession};
use pingora::protocols::{Digest, GetSocketDigest, Ssl};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Front;
use super::head::HEAD_MAX;
use super::loaned_stream::LoanedStream;
use super::wire::Wire;
use crate::limits::ConnectionGuard;

/// Maximum number of requests under way on a connection (nginx: `http2_max_concurrent_streams`).
const STREAMS_MAX: u32 = 128;

/// Maximum number of bytes buffered for sending on a stream.
const SEND_BUFFER: usize = 64 * 1024;

/// Number of invalid requests (two lengths, no host) after which a connection is closed; the same as Pingora's.
const MALFORMED_MAX: usize = 32;

fn options() -> H2Options {
    let mut options = server::default_h2_options();
    options.max_concurrent_streams(STREAMS_MAX);
    options.max_header_list_size(HEAD_MAX as u32);
    options.max_send_buffer_size(SEND_BUFFER);
    options
}

/// Serves a connection until the client closes it, it has been idle for too long, or the edge stops and all requests
/// under way are answered. `_admitted` counts it.
pub async fn serve(front: Arc<Front>, wire: Wire, client: SocketAddr, _admitted: ConnectionGuard) {
    let lent = LoanedStream::for_http2(wire, client);
    let digest = Arc::new(Digest {
        ssl_digest: lent.get_ssl_digest(),
        socket_digest: lent.get_socket_digest(),
        ..Digest::default()
    });
    let handshake = timeout(front.rules.load().client.read, server::handshake(Box::new(lent), Some(options())));
    let Ok(Ok(mut connection)) = Box::pin(handshake).await else { return };

    let room = Arc::new(Semaphore::new(STREAMS_MAX as usize));
    let mut malformed = 0;
    let mut stopped = pin!(front.stopped());
    let mut is_stopping = false;
    loop {
        let place = tokio::select! {
            biased;
            place = Arc::clone(&room).acquire_owned() => place,
            // Drives reads and writes of the open streams.
            _ = poll_fn(|cx| connection.poll_closed(cx)) => return,
        };
        let Ok(place) = place else { return };
        let is_idle = async {
            let _all_others = room.acquire_many(STREAMS_MAX - 1).await;
            sleep(front.rules.load().client.keepalive).await;
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stopped, if !is_stopping => {
                // GOAWAY does not affect open streams; requests already on their way are still accepted.
                connection.graceful_shutdown();
                is_stopping = true;
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
            () = is_idle => return,
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                let front = Arc::clone(&front);
                tokio::spawn(async move {
                    let session = ServerSession::new_http2(session);
                    front.proxy.process_new_http(session, &front.shutdown).await;
                    drop(place);
                });
            }
            Ok(Some(H2Accept::Rejected)) => {
                malformed += 1;
                if malformed == MALFORMED_MAX {
                    return;
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}
