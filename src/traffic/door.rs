//! How a listener treats a connection before its first request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{self, ProxyProtocol, Redirect};
use crate::traffic::tls::{self, Terminator};

/// The connection settings of one listener.
pub struct Door {
    /// The listening address.
    pub address: SocketAddr,
    /// The TLS server of this listener, if it uses TLS.
    pub tls: Option<Arc<Terminator>>,
    /// Without TLS: accepts HTTP/2 from clients that open with its preface.
    pub h2c: bool,
    /// Redirects all requests there.
    pub redirect: Option<Redirect>,
    /// Networks whose connections must begin with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Door {
    /// Creates the door from its listener's settings. TLS sessions that clients started with `before` can be resumed.
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

    /// Whether a connection from `peer` begins directly with an HTTP/1 request: no TLS, no PROXY header, no HTTP/2
    /// preface.
    pub fn is_open(&self, peer: IpAddr) -> bool {
        self.tls.is_none() && !self.h2c && !self.asks_for_header(peer)
    }

    /// Whether connections from `peer` begin with a PROXY header.
    pub fn asks_for_header(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let believes = |from: &ProxyProtocol| from.from.is_empty() || from.from.iter().any(|net| net.contains(&peer));
        self.proxy_protocol.as_ref().is_some_and(believes)
    }
}
