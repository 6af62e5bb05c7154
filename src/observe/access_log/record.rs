//! An answered request as the log sees it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::http::head::Head;
use crate::http::request_id::RequestId;
use crate::ledger::OrderId;

/// The status of a request whose client closed the connection before the answer, as in nginx.
pub const CLIENT_LEFT: u16 = 499;

/// A request and its answer.
pub struct Record<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The peer of the connection.
    pub peer: SocketAddr,
    /// The request line.
    pub target: Target<'a>,
    /// Its headers.
    pub head: &'a dyn Head,
    /// The version of TLS, if there was any.
    pub tls: Option<&'a str>,
    /// None if the client closed the connection before the answer.
    pub status: Option<u16>,
    /// Length of the answer's body.
    pub bytes: u64,
    /// None if no time was taken.
    pub duration: Option<Duration>,
    /// Its id.
    pub id: Option<&'a RequestId>,
    /// The path prefix of its route.
    pub route: Option<&'a str>,
    /// The group of backends.
    pub upstream: Option<&'a str>,
    /// The last backend that was tried.
    pub backend: Option<SocketAddr>,
    /// Time at that backend.
    pub backend_duration: Option<Duration>,
    /// Number of backends that were tried.
    pub tries: u32,
    /// The sale's id.
    pub sale: Option<&'a str>,
    /// How a purchase ended.
    pub outcome: Option<&'static str>,
    /// The order that exists or may exist.
    pub order: Option<OrderId>,
}

/// The first line of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target<'a> {
    /// Empty for a line that is not a request.
    pub method: &'a [u8],
    /// Path and query as sent; for a line that is not a request, all of it.
    pub target: &'a [u8],
    /// `HTTP/1.1` or similar.
    pub protocol: &'static str,
}

impl<'a> Target<'a> {
    /// A line that is not a request.
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
