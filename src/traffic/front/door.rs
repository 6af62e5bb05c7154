//! What stands before the first request of a connection, as its listener asks for it: who the client is (PROXY protocol),
//! how it is hidden (TLS), and which HTTP it speaks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::proxy_protocol::{self, HeaderError};
use super::stream::Stream;
use super::wire::Wire;
use super::{Front, http2};
use crate::config::{self, ProxyProtocol, Redirect};
use crate::limits::Admitted;
use crate::traffic::tls::{self, Terminator};

/// What begins a connection of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long those who are at the door when the edge stops may take to come in: a few round trips.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How a listener takes connections in.
pub struct Door {
    /// Where clients come in.
    pub address: SocketAddr,
    /// Encrypts.
    pub tls: Option<Arc<Terminator>>,
    /// Without TLS: HTTP/2 is spoken to clients that begin with it.
    pub h2c: bool,
    /// Where all requests are led.
    pub redirect: Option<Redirect>,
    /// Who says for whom they connect.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A client that is in.
struct Entered {
    wire: Wire,
    client: SocketAddr,
    speaks_http2: bool,
}

/// Why a client is not let in.
enum Refused {
    Header(HeaderError),
    Handshake(io::Error),
    /// Its limits do not allow it.
    Full,
    /// It left, or said nothing of use.
    Gone,
}

impl Door {
    /// A door as the settings of its listener say. It takes sessions of TLS up again that clients began `before`.
    ///
    /// # Errors
    /// If TLS cannot be offered.
    pub fn new(listener: &config::Listener, before: Option<&Self>) -> Result<Self, tls::Error> {
        let before = before.and_then(|before| before.tls.as_deref());
        let tls = listener.tls.as_ref().map(|tls| Terminator::new(tls, listener.http2, before)).transpose()?;
        Ok(Self {
            address: listener.address,
            h2c: listener.http2 && tls.is_none(),
            tls: tls.map(Arc::new),
            redirect: listener.redirect_https,
            proxy_protocol: listener.proxy_protocol.clone(),
        })
    }

    /// Whether the first thing said on a connection from `peer` is a request.
    pub fn is_open(&self, peer: IpAddr) -> bool {
        self.tls.is_none() && !self.h2c && !self.asks_for_header(peer)
    }

    /// Whether connections from `peer` are for others, whom they name.
    pub fn asks_for_header(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let believes = |from: &ProxyProtocol| from.from.is_empty() || from.from.iter().any(|net| net.contains(&peer));
        self.proxy_protocol.as_ref().is_some_and(believes)
    }

    /// Lets a client in and serves it, until its connection ends. Whoever does not come in within the time for a read is
    /// left outside.
    pub async fn receive(self: Arc<Self>, front: Arc<Front>, stream: Stream, peer: SocketAddr, mut admitted: Admitted) {
        // Boxed, so that what it takes to come in is not a part of every connection.
        let entering =
            Box::pin(timeout(front.rules.load().client.read, self.enter(&front, stream, peer, &mut admitted)));
        let last_call = async {
            front.stopped().await;
            sleep(LAST_CALL).await;
        };
        let entered = tokio::select! {
            biased;
            entered = entering => entered.unwrap_or(Err(Refused::Gone)),
            () = last_call => return,
        };
        match entered {
            Ok(Entered { wire, client, speaks_http2: true }) => {
                Box::pin(http2::serve(front, wire, client, admitted)).await;
            }
            Ok(Entered { wire, client, speaks_http2: false }) => {
                Connection::new(front, self, wire, client, admitted).run().await;
            }
            Err(refused) => front.refused(peer, refused),
        }
    }

    async fn enter(
        &self,
        front: &Front,
        mut stream: Stream,
        peer: SocketAddr,
        admitted: &mut Admitted,
    ) -> Result<Entered, Refused> {
        let mut client = peer;
        if self.asks_for_header(peer.ip()) {
            client = proxy_protocol::receive(&mut stream).await.map_err(Refused::Header)?.unwrap_or(peer);
            if !front.entrance.admit_as(&front.rules.load(), admitted, client.ip()) {
                stream.reset();
                return Err(Refused::Full);
            }
        }
        if let Some(tls) = &self.tls {
            let wire = Wire::secure(tls.accept(stream).await.map_err(Refused::Handshake)?);
            return Ok(Entered { speaks_http2: wire.is_http2(), wire, client });
        }
        let speaks_http2 = self.h2c && begins_with_preface(&mut stream).await.map_err(|_| Refused::Gone)?;
        Ok(Entered { wire: Wire::Plain(stream), client, speaks_http2 })
    }
}

/// Whether the client begins with HTTP/2. What it said is put back.
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
    fn refused(&self, peer: SocketAddr, refused: Refused) {
        match refused {
            Refused::Header(error) => {
                self.entrance.limits().header_refused();
                let enabled = log::log_enabled!(log::Level::Warn);
                if let Some(others) = self.header_log.count(enabled) {
                    log::warn!("{peer}: no PROXY header: {error} ({} more since the last line)", others - 1);
                }
            }
            Refused::Handshake(error) => {
                self.entrance.limits().handshake_failed();
                log::debug!("{peer}: no TLS: {error}");
            }
            Refused::Full | Refused::Gone => {}
        }
    }
}
