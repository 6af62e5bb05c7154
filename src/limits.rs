//! Limits for one client address and for all clients together: concurrent connections and requests per second.
//!
//! Checked at the front door for every connection, and for every request wherever it is answered. What is not limited
//! costs nothing. Request limits share no lock ([`mod@rate`]); connection limits use one of a few locks
//! ([`connections`]).
//!
//! Requests are counted by the client address that [`crate::http::client`] finds; connections by their peer, or by the
//! address in a trusted PROXY header. IPv6 clients have a whole network to choose from, so a /64 counts as one address.

mod at_once;
mod connections;
mod open_files;
mod quota;
mod rate;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

pub use connections::ConnectionGuard;
use connections::Connections;
pub use open_files::most_connections;
pub use quota::{Quota, QuotaGuard};
use rate::Rate;

use crate::config;
use crate::observe::telemetry::Counter;

/// The limits of an edge and the counters of what they refused.
#[derive(Debug)]
pub struct Limits {
    connections: Arc<Connections>,
    rate: ArcSwapOption<Rate>,
    refused_in_all: Counter,
    refused_of_address: Counter,
    requests_refused: Counter,
    headers_refused: Counter,
    handshakes_failed: Counter,
    requests_denied: Counter,
    refused_of_routes: Counter,
}

/// Counters of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitCounters {
    /// Open connections.
    pub open: u64,
    /// Connections refused by the total limit.
    pub refused_in_all: u64,
    /// Connections refused by the limit per address.
    pub refused_of_address: u64,
    /// Requests answered with 429.
    pub requests_refused: u64,
    /// Connections without the required PROXY header.
    pub headers_refused: u64,
    /// Connections whose TLS handshake failed.
    pub handshakes_failed: u64,
    /// Requests answered with 429 by the limit of a route.
    pub refused_of_routes: u64,
    /// Requests of addresses that are denied.
    pub requests_denied: u64,
}

impl Limits {
    /// Limits as in the settings.
    #[must_use]
    pub fn new(settings: &config::Limits) -> Self {
        Self {
            connections: Arc::new(Connections::new(settings.connections, settings.connections_per_address)),
            rate: rate(settings).into(),
            refused_in_all: Counter::default(),
            refused_of_address: Counter::default(),
            requests_refused: Counter::default(),
            headers_refused: Counter::default(),
            handshakes_failed: Counter::default(),
            requests_denied: Counter::default(),
            refused_of_routes: Counter::default(),
        }
    }

    /// Replaces the limits. Unchanged limits keep their counts. Changed ones start from zero, and connections that are
    /// open then count in total but for no address.
    pub fn replace(&self, before: &config::Limits, settings: &config::Limits) {
        let each = |limits: &config::Limits| (limits.requests_per_second, limits.burst);
        if each(before) != each(settings) {
            self.rate.store(rate(settings));
        }
        if before.connections_per_address != settings.connections_per_address {
            self.connections.count_addresses(settings.connections_per_address);
        }
        self.connections.set_most(settings.connections);
    }

    /// Whether one more connection may be served, of this address if it is known. The connection counts until the
    /// returned guard is dropped.
    #[must_use]
    pub fn admit(&self, address: Option<IpAddr>) -> Option<ConnectionGuard> {
        self.counted(self.connections.admit(address))
    }

    /// Whether a connection may still be served now that its client's address is known. From then on it counts for the
    /// address.
    #[must_use]
    pub fn admit_as(&self, admitted: &mut ConnectionGuard, address: IpAddr) -> bool {
        self.counted(admitted.count_for(address)).is_some()
    }

    /// Counts a connection without the required PROXY header.
    pub fn header_refused(&self) {
        self.headers_refused.add(1);
    }

    /// Counts a failed TLS handshake.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.add(1);
    }

    fn counted<T>(&self, admitted: Result<T, connections::LimitReached>) -> Option<T> {
        match admitted {
            Ok(admitted) => return Some(admitted),
            Err(connections::LimitReached::InAll) => self.refused_in_all.add(1),
            Err(connections::LimitReached::OfAddress) => self.refused_of_address.add(1),
        }
        None
    }

    /// Whether one more request may be served; counts it if so.
    #[must_use]
    pub fn take(&self, address: IpAddr) -> bool {
        self.decide(address, Rate::take)
    }

    /// Whether one more request could be served, without counting it, for a request that is passed on to where
    /// [`Limits::take`] decides.
    #[must_use]
    pub fn could_take(&self, address: IpAddr) -> bool {
        self.decide(address, Rate::has_some)
    }

    fn decide(&self, address: IpAddr, ask: impl Fn(&Rate, u64) -> bool) -> bool {
        let rate = self.rate.load();
        let Some(rate) = rate.as_ref() else { return true };
        let may = ask(rate, key(address));
        if !may {
            self.requests_refused.add(1);
        }
        may
    }

    /// Counts a request of an address that is denied.
    pub fn denied(&self) {
        self.requests_denied.add(1);
    }

    /// Counts a request that a route's limit refused.
    pub fn refused_of_route(&self) {
        self.refused_of_routes.add(1);
    }

    /// The counters so far.
    #[must_use]
    pub fn counts(&self) -> LimitCounters {
        LimitCounters {
            open: self.connections.open() as u64,
            refused_in_all: self.refused_in_all.get(),
            refused_of_address: self.refused_of_address.get(),
            requests_refused: self.requests_refused.get(),
            headers_refused: self.headers_refused.get(),
            handshakes_failed: self.handshakes_failed.get(),
            requests_denied: self.requests_denied.get(),
            refused_of_routes: self.refused_of_routes.get(),
        }
    }
}

fn rate(settings: &config::Limits) -> Option<Arc<Rate>> {
    let is_limited = settings.requests_per_second > 0;
    is_limited.then(|| Arc::new(Rate::new(settings.requests_per_second, settings.burst)))
}

/// The key of an address: the whole IPv4 address, or the /64 network of an IPv6 address.
pub fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // No IPv6 network begins with 32 zero bits, except those that map IPv4 and are handled above.
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client_and_every_ipv4_address_another() {
        let key = |address: &str| key(address.parse().expect("an address"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn without_limits_everything_is_taken() {
        let limits = Limits::new(&config::Limits::default());
        let address = IpAddr::from([192, 0, 2, 1]);
        assert!((0..100_000).all(|_| limits.could_take(address) && limits.take(address)));
        assert_eq!(limits.counts(), LimitCounters::default());
    }

    #[test]
    fn limits_that_are_replaced_hold_at_once_and_the_others_go_on() {
        let before = config::Limits { connections: 2, connections_per_address: 1, requests_per_second: 1, burst: 2 };
        let limits = Limits::new(&before);
        let one = IpAddr::from([192, 0, 2, 1]);
        let _open = limits.admit(Some(one)).expect("the first");
        assert!(limits.take(one) && limits.take(one) && !limits.take(one));

        let more = config::Limits { connections: 3, connections_per_address: 0, ..before.clone() };
        limits.replace(&before, &more);
        assert!(!limits.take(one), "its rate is what it was, and used up");
        let _more = [limits.admit(Some(one)), limits.admit(Some(one))].map(|admitted| admitted.expect("room"));
        assert!(limits.admit(Some(one)).is_none(), "three in all");

        limits.replace(&more, &config::Limits { requests_per_second: 0, ..more.clone() });
        assert!((0..100).all(|_| limits.take(one)));
    }

    #[test]
    fn what_is_refused_is_counted() {
        let limits = Limits::new(&config::Limits {
            connections: 2,
            connections_per_address: 1,
            requests_per_second: 1,
            burst: 3,
        });
        let [one, two, three] = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
        let _one = limits.admit(Some(one)).expect("the first");
        assert!(limits.admit(Some(one)).is_none());
        let _two = limits.admit(Some(two)).expect("another address");
        assert!(limits.admit(Some(three)).is_none());
        assert_eq!((0..5).filter(|_| limits.take(one)).count(), 3);
        assert!(!limits.could_take(one) && limits.could_take(two));
        let expected = LimitCounters {
            open: 2,
            refused_in_all: 1,
            refused_of_address: 1,
            requests_refused: 3,
            ..LimitCounters::default()
        };
        assert_eq!(limits.counts(), expected);
    }
}
