//! A request that was answered, as far as it can be written down.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::http::head::Head;
use crate::http::request_id::RequestId;
use crate::ledger::OrderId;

/// The status of a request whose client left before it was answered, as Nginx writes it down.
pub const CLIENT_LEFT: u16 = 499;

/// A request and its answer.
pub struct Record<'a> {
    /// Who asked.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// What was asked for.
    pub target: Target<'a>,
    /// Its headers.
    pub head: &'a dyn Head,
    /// The version of TLS, if there was any.
    pub tls: Option<&'a str>,
    /// None if the client left before there was one.
    pub status: Option<u16>,
    /// Of the answer's body.
    pub bytes: u64,
    /// None if it was not taken.
    pub duration: Option<Duration>,
    /// Its id.
    pub id: Option<&'a RequestId>,
    /// The path prefix of its route.
    pub route: Option<&'a str>,
    /// The group of backends.
    pub upstream: Option<&'a str>,
    /// The last backend that it was tried at.
    pub backend: Option<SocketAddr>,
    /// How long that one took.
    pub backend_duration: Option<Duration>,
    /// How many backends it was tried at.
    pub tries: u32,
    /// The sale's id.
    pub sale: Option<&'a str>,
    /// How a purchase ended.
    pub outcome: Option<&'static str>,
    /// The order that there is, or may be.
    pub order: Option<OrderId>,
}

/// The first line of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target<'a> {
    /// Empty if the line is no request's.
    pub method: &'a [u8],
    /// Path and query, as sent; of a line that is no request's, all of it.
    pub target: &'a [u8],
    /// `HTTP/1.1` and the like.
    pub protocol: &'static str,
}

impl<'a> Target<'a> {
    /// A line that nobody could make a request of.
    #[must_use]
    pub fn raw(line: &'a [u8]) -> Self {
        Self { target: line, ..Self::default() }
    }

    /// The target up to its query, and the query.
    #[must_use]
    pub fn parts(&self) -> (&'a [u8], Option<&'a [u8]>) {
        match memchr::memchr(b'?', self.target) {
            Some(at) => (&self.target[..at], Some(&self.target[at + 1..])),
            None => (self.target, None),
        }
    }
}

/// The first value of a header.
pub(super) fn header<'a>(head: &'a dyn Head, name: &str) -> Option<&'a [u8]> {
    let mut first = None;
    head.headers(name, &mut |value| {
        first.get_or_insert(value);
    });
    first
}
