//! The client of a request: its address, from a source that clients cannot forge, and whether the address is allowed.
//!
//! The peer of the connection is the client, unless the peer is in `trusted_proxies`. Then the forwarding header
//! ([`forwarded`]) is read from its newest entry backwards while the entries are trusted proxies too; everything before
//! the first other entry may be forged. The header of any other peer is ignored.

pub(crate) mod forwarded;
mod network;

use std::net::{IpAddr, Ipv4Addr};

pub use forwarded::AddressHeader;
pub use network::{Network, NetworkError, Networks};

use crate::http::head::Head;

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client's address; never an IPv4 address in IPv6 form.
    pub address: IpAddr,
    /// Whether a trusted proxy sent the request, so that its headers can be believed.
    pub by_proxy: bool,
}

impl Client {
    /// An unknown client.
    pub const UNKNOWN: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), by_proxy: false };
}

/// Finds the client of a request.
#[derive(Debug)]
pub struct Clients {
    proxies: Networks,
    header: AddressHeader,
}

impl Clients {
    /// Trusts what `proxies` say in `header`.
    #[must_use]
    pub fn new(proxies: Networks, header: AddressHeader) -> Self {
        Self { proxies, header }
    }

    /// Whether the peer of a connection is a trusted proxy.
    #[must_use]
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.contain(peer)
    }

    /// The client of a request with this head, over a connection from `peer`.
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

/// Which addresses are allowed. The narrowest network that contains an address decides; without one, the address is
/// allowed unless there is an allow list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Allowed networks.
    pub allow: Networks,
    /// Denied networks.
    pub deny: Networks,
}

impl Access {
    /// Whether this address is allowed.
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
