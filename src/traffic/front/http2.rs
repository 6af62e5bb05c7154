//! Connections of HTTP/2: every request of theirs is Pingora's.
//!
//! What a client may do is bounded: by h2, where it is the protocol's own (below, and in `options`), and here, where it
//! is not. h2 refuses more streams than were agreed on, header lists that are too long, endless CONTINUATION, small
//! DATA frames without end, streams that are reset before they were looked at, and faults that make the edge reset
//! streams; and it reads no further while an answer to PING or SETTINGS waits to be written. How many of those it reads
//! is [`super::flood`]'s. It does not know how long a request goes on after its stream was reset. So here a connection
//! has no more requests under way than it may have streams, reset or not: those of whoever resets them quickly
//! (CVE-2023-44487) wait in h2, which ends the connection at the 21st.

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

/// Requests under way on a connection: Nginx's `http2_max_concurrent_streams`.
const STREAMS_MAX: u32 = 128;

/// What waits in the edge to be sent on a stream.
const SEND_BUFFER: usize = 64 * 1024;

/// Requests that no request may be (two lengths, no host), after which a connection is closed: Pingora's own number.
const MALFORMED_MAX: usize = 32;

fn options() -> H2Options {
    let mut options = server::default_h2_options();
    options.max_concurrent_streams(STREAMS_MAX);
    options.max_header_list_size(HEAD_MAX as u32);
    options.max_send_buffer_size(SEND_BUFFER);
    options
}

/// Serves a connection until it ends: when the client is done with it, when it idles for too long, or when the edge
/// stops and all that is under way is answered. `_admitted` counts it.
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
            // Reads and writes for the streams that there are.
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
                // GOAWAY, which leaves streams alone; whatever is on its way is still taken.
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
