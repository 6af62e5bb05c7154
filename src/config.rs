//! Settings: a YAML file becomes one checked, frozen [`Config`], or a list of everything that is wrong with it.
//!
//! Nothing behind this module sees YAML, defaults or relative times; it gets the types below.
//! The file's shape is read by `config::read`, what the values must satisfy together by `config::check`.

mod answers;
mod buyer;
mod check;
mod delivery;
mod errors;
mod field;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod listen;
mod logs;
mod node;
mod read;
mod redis;
pub mod reload;
mod resolve;
mod sale;
#[cfg(test)]
mod tests;
mod tracing;
mod upstream;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use answers::{Coding, Compression, ErrorPage, Fallback, Files, HeaderRules};
pub use buyer::{BuyerSource, TokenLocation};
pub use delivery::Delivery;
pub use errors::Errors;
pub use field::Field;
pub use listen::{Listener, ProxyProtocol, Redirect, Tls, TlsVersion};
pub use logs::{AccessLog, ErrorLog, LogDestination, LogFormat};
pub use redis::{Durability, Redis, RedisTopology, Replicas};
pub use sale::Sale;
pub use tracing::Tracing;
pub use upstream::{Balance, HashKey, HostHeader, Probe, Server, Upstream};
// What only tests make by hand.
#[cfg(test)]
pub use upstream::{HealthCheck, Resolve, Unresolved, UpstreamTimeouts};

use crate::http::client::{Access, AddressHeader, Networks};
use crate::http::request_id::RequestIdHeader;

/// Everything that one edge was told, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Public listeners; at least one, their addresses all different.
    pub listen: Vec<Listener>,
    /// Worker threads of the public listeners, 1 to 1024; `auto` in the file is one per core.
    pub threads: usize,
    /// How long SIGTERM waits for requests under way, 0 to 60 s; default 3 s.
    pub shutdown_grace: Duration,
    /// How long the edge goes on as usual after SIGTERM, while it says that it is not ready, 0 to 60 s; default 0.
    pub shutdown_delay: Duration,
    /// Waits on the client's side of a connection.
    pub client: ClientTimeouts,
    /// Whose word counts for a client's address; nobody's by default.
    pub trusted_proxies: Networks,
    /// Where they say it.
    pub client_address: AddressHeader,
    /// Which clients are served at all; by default everybody.
    pub access: Access,
    /// What clients may take.
    pub limits: Limits,
    /// The control listener.
    pub control: Control,
    /// Where sales are kept.
    pub ledger: Ledger,
    /// Groups of backends; routes refer to them by index.
    pub upstreams: Vec<Upstream>,
    /// In the order of the file; the first that matches is taken.
    pub routes: Vec<Route>,
    /// How answers of backends and files are compressed; not at all by default.
    pub compression: Option<Compression>,
    /// What clients get with an error's status in the place of its name, in the order of the file; the first is taken.
    pub error_pages: Vec<ErrorPage>,
    /// What is sold, in the order of the file.
    pub sales: Vec<Sale>,
    /// Who is told of what happens to the sales; none if nobody is.
    pub delivery: Option<Delivery>,
    /// Where traces go; none are made by default.
    pub tracing: Option<Tracing>,
    /// What is written down of requests; nothing by default.
    pub access_log: Option<AccessLog>,
    /// What the edge says of itself.
    pub error_log: ErrorLog,
    /// The header that carries the ids of requests; by default they have none.
    pub request_id: Option<RequestIdHeader>,
}

impl Config {
    /// Reads the file at `path`; see [`Config::from_yaml`].
    pub fn load(path: &Path) -> Result<Config, Errors> {
        let yaml = std::fs::read_to_string(path)
            .map_err(|error| Errors::one("", format!("{} cannot be read: {error}", path.display())))?;
        Config::from_yaml(&yaml)
    }

    /// Reads the text of a configuration file, reads the files that it names. It needs no network: names are looked up
    /// by [`Config::resolve`].
    ///
    /// Either everything is right, or every fault is told at once. No message repeats a token or a Redis address.
    pub fn from_yaml(text: &str) -> Result<Config, Errors> {
        read::config(text)
    }

    /// Checks again what settings must satisfy together, after some of them were replaced.
    pub fn check(&self) -> Result<(), Errors> {
        let mut errors = Errors::default();
        check::relations(self, &mut errors);
        if errors.0.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Waits on the client's side; defaults are Nginx's (`keepalive_timeout`, `client_header_timeout`, `send_timeout`).
/// Each is 1 ms to 7 days.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTimeouts {
    /// How long a connection may idle between requests; default 75 s.
    pub keepalive: Duration,
    /// The longest pause between two reads of a request; default 60 s.
    pub read: Duration,
    /// The longest pause between two writes of an answer; default 60 s.
    pub send: Duration,
}

/// What clients may take. An address is an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, 1 to 1000000; default 50000.
    pub connections: usize,
    /// Connections of one address at a time, 0 to 1000000; 0, the default, is no limit.
    pub connections_per_address: u32,
    /// Requests a second of one address, 0 to 100000; 0, the default, is no limit.
    pub requests_per_second: u32,
    /// How many requests of one address may come at once after a pause, 1 to 1000000; default as many as in a second.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 50_000, connections_per_address: 0, requests_per_second: 0, burst: 1 }
    }
}

/// What each client address may take of a route, or each buyer of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests a second, 0 to 100000; 0, the default, is no limit.
    pub requests_per_second: u32,
    /// How many of them may come at once after a pause, 1 to 1000000; default as many as in a second.
    pub burst: u32,
    /// Requests at a time, 0 to 1000000; 0, the default, is no limit.
    pub concurrent: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { requests_per_second: 0, burst: 1, concurrent: 0 }
    }
}

/// The control listener: operations that no buyer may reach.
#[derive(Clone, PartialEq)]
pub struct Control {
    /// Default 127.0.0.1:9180.
    pub listen: SocketAddr,
    /// Asked for as `Authorization: Bearer ...`, 16 to 256 visible ASCII characters; never absent off loopback.
    pub token: Option<String>,
}

/// Leaves the token out, so that settings may be logged.
impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "...");
        f.debug_struct("Control").field("listen", &self.listen).field("token", &token).finish()
    }
}

/// The ledger and how it is kept up with.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    /// Which store.
    pub store: Store,
    /// How often the gates read the ledger's counters and log; default 100 ms, 10 ms to 10 s.
    pub sync: Duration,
}

/// The store behind the ledger.
#[derive(Clone, PartialEq)]
pub enum Store {
    /// A folder on local disk, for a single edge.
    Embedded {
        /// Created if missing.
        path: PathBuf,
    },
    /// A Redis, shared by any number of edges.
    Redis(Redis),
}

impl Store {
    /// A Redis with the default waits: 2 s for a connection, 1 s for an answer.
    #[must_use]
    pub fn redis(url: String) -> Self {
        Self::Redis(Redis::at(url, Duration::from_secs(2), Duration::from_secs(1)))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Store::Embedded { path } => f.debug_struct("Embedded").field("path", path).finish(),
            Store::Redis(redis) => redis.fmt(f),
        }
    }
}

/// Which requests go where.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Lower case, without port; empty means any host.
    pub hosts: Vec<String>,
    /// A prefix that ends at a segment's end: `/a` takes `/a` and `/a/b`, not `/ab`; `/` takes all.
    pub path: String,
    /// Who answers.
    pub target: Target,
    /// What stands in the place of `path` when the request goes on; as it is by default.
    pub rewrite: Option<String>,
    /// What becomes of the request's header.
    pub request_headers: HeaderRules,
    /// What becomes of the header of every answer.
    pub response_headers: HeaderRules,
    /// Whether answers are compressed if the edge does that at all; default true.
    pub compress: bool,
    /// Which clients are let through, of those that are served at all; by default everybody.
    pub access: Access,
    /// What each client address may take of it.
    pub limits: Quota,
    /// The longest body of a request, in bytes; default 1 MiB, as in Nginx. None: any length.
    pub max_body: Option<u64>,
}

/// What a body may have unless a route says otherwise: Nginx's `client_max_body_size`.
const MAX_BODY: u64 = 1024 * 1024;

/// Everything of every host, to the first group.
impl Default for Route {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            path: "/".to_owned(),
            target: Target::Upstream(0),
            rewrite: None,
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            compress: true,
            access: Access::default(),
            limits: Quota::default(),
            max_body: Some(MAX_BODY),
        }
    }
}

/// Who answers the requests of a route.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A group of backends: index into [`Config::upstreams`].
    Upstream(usize),
    /// The edge, from a folder.
    Files(Files),
}
