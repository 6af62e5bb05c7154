//! Before the first request of a connection: reads the PROXY header, completes the TLS handshake and finds out which
//! version of HTTP the client uses, as its listener's [`Door`] asks for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::proxy_protocol::{self, HeaderError};
use super::stream::Stream;
use super::wire::Wire;
use super::{Front, http2};
use crate::limits::ConnectionGuard;
use crate::traffic::door::Door;

/// The client connection preface of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Time left for a handshake when the edge stops: a few round trips.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// A connection that is ready for its first request.
struct Negotiated {
    wire: Wire,
    client: SocketAddr,
    is_http2: bool,
}

/// Why a connection ends before its first request.
enum Aborted {
    Header(HeaderError),
    Handshake(io::Error),
    /// The limits allow no further connection of this client.
    Full,
    /// The client closed the connection or did not finish in time.
    Gone,
}

/// Completes the handshake and serves the connection until it ends. A client that does not complete the handshake
/// within `client.read` is disconnected.
pub async fn run(door: Arc<Door>, front: Arc<Front>, stream: Stream, peer: SocketAddr, mut admitted: ConnectionGuard) {
    // Boxed, because the state of the handshake would enlarge every connection.
    let negotiating =
        Box::pin(timeout(front.rules.load().client.read, negotiate(&door, &front, stream, peer, &mut admitted)));
    let deadline = async {
        front.stopped().await;
        sleep(FINISH_WITHIN).await;
    };
    let negotiated = tokio::select! {
        biased;
        negotiated = negotiating => negotiated.unwrap_or(Err(Aborted::Gone)),
        () = deadline => return,
    };
    match negotiated {
        Ok(Negotiated { wire, client, is_http2: true }) => {
            Box::pin(http2::serve(front, wire, client, admitted)).await;
        }
        Ok(Negotiated { wire, client, is_http2: false }) => {
            Connection::new(front, door, wire, client, admitted).run().await;
        }
        Err(aborted) => front.aborted(peer, aborted),
    }
}

async fn negotiate(
    door: &Door,
    front: &Front,
    mut stream: Stream,
    peer: SocketAddr,
    admitted: &mut ConnectionGuard,
) -> Result<Negotiated, Aborted> {
    let mut client = peer;
    if door.asks_for_header(peer.ip()) {
        client = proxy_protocol::receive(&mut stream).await.map_err(Aborted::Header)?.unwrap_or(peer);
        if !front.entrance.admit_as(&front.rules.load(), admitted, client.ip()) {
            stream.reset();
            return Err(Aborted::Full);
        }
    }
    if let Some(tls) = &door.tls {
        let wire = Wire::secure(tls.accept(stream).await.map_err(Aborted::Handshake)?);
        return Ok(Negotiated { is_http2: wire.is_http2(), wire, client });
    }
    let is_http2 = door.h2c && begins_with_preface(&mut stream).await.map_err(|_| Aborted::Gone)?;
    Ok(Negotiated { wire: Wire::Plain(stream), client, is_http2 })
}

/// Whether the client opens with HTTP/2. The bytes read are put back.
async fn begins_with_preface(stream: &mut Stream) -> io::Result<bool> {
    let mut said = [0; PREFACE.len()];
    let mut len = 0;
    while len < said.len() && PREFACE.starts_with(&said[..len]) {
        match stream.read(&mut said[len..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => len += read,
        }
    }
    stream.put_back(said[..len].to_vec());
    Ok(said[..len] == *PREFACE)
}

impl Front {
    fn aborted(&self, peer: SocketAddr, aborted: Aborted) {
        match aborted {
            Aborted::Header(error) => {
                self.entrance.limits().header_refused();
                let enabled = log::log_enabled!(log::Level::Warn);
                if let Some(others) = self.header_log.count(enabled) {
                    log::warn!("{peer}: invalid PROXY header: {error} ({} more since the last line)", others - 1);
                }
            }
            Aborted::Handshake(error) => {
                self.entrance.limits().handshake_failed();
                log::debug!("{peer}: TLS handshake failed: {error}");
            }
            Aborted::Full | Aborted::Gone => {}
        }
    }
}
