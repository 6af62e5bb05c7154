//! What a listener asks of a connection before its first request, as the settings say.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{self, ProxyProtocol, Redirect};
use crate::traffic::tls::{self, Terminator};

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
}
