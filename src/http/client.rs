//! Who asks: a client's address, taken from where no client can forge it, and whether that address may ask at all.
//!
//! The other end of a connection is the client, unless it is one of our own proxies (`trusted_proxies`). Then the
//! header in which proxies say for whom they ask ([`forwarded`]) is read from its newest entry backwards, for as long
//! as the entries are proxies of ours too; what stands behind the first that is not was written by whoever liked to. Of
//! anybody else that header means nothing.

pub(crate) mod forwarded;
mod network;

use std::net::{IpAddr, Ipv4Addr};

pub use forwarded::AddressHeader;
pub use network::{Network, NetworkError, Networks};

use crate::http::head::Head;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client's address; never an IPv4 address in IPv6 form.
    pub address: IpAddr,
    /// Whether the request came from one of our own proxies, so that what they say in headers is theirs.
    pub by_proxy: bool,
}

impl Client {
    /// Nobody in particular.
    pub const UNKNOWN: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), by_proxy: false };
}

/// Finds out who asks.
#[derive(Debug)]
pub struct Clients {
    proxies: Networks,
    header: AddressHeader,
}

impl Clients {
    /// Believes what `proxies` say in `header`.
    #[must_use]
    pub fn new(proxies: Networks, header: AddressHeader) -> Self {
        Self { proxies, header }
    }

    /// Whether a connection's other end is one of our proxies.
    #[must_use]
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.contain(peer)
    }

    /// Who asks with this head, over a connection from `peer`.
    #[must_use]
    pub fn of(&self, peer: IpAddr, head: &dyn Head) -> Client {
        let peer = peer.to_canonical();
        if !self.is_proxy(peer) {
            return Client { address: peer, by_proxy: false };
        }
        let address = forwarded::client(self.header, peer, head, |address| self.is_proxy(address));
        Client { address, by_proxy: true }
    }
}

/// Which addresses may ask. The narrowest network that has an address decides; where none has it, it may ask unless
/// there is a list of those that may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Those that may.
    pub allow: Networks,
    /// Those that may not.
    pub deny: Networks,
}

impl Access {
    /// Whether this address may ask.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        match (self.allow.narrowest(address), self.deny.narrowest(address)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.allow.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests;
