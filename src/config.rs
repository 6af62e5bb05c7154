//! Settings: a YAML file becomes one checked, frozen [`Config`], or a list of everything that is wrong with it.
//!
//! Nothing behind this module sees YAML, defaults, host names or relative times; it gets the types below.
//! The file's shape is read by `config::read`, what the values must satisfy together by `config::check`.

mod check;
mod delivery;
mod errors;
mod node;
mod read;
mod sale;
#[cfg(test)]
mod tests;
mod upstream;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use errors::{Error, Errors};

/// Everything that one edge was told, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Public addresses; at least one, all different.
    pub listen: Vec<SocketAddr>,
    /// Worker threads of the public listeners, 1 to 1024; `auto` in the file is one per core.
    pub threads: usize,
    /// How long SIGTERM waits for requests under way, 0 to 60 s; default 3 s.
    pub shutdown_grace: Duration,
    /// Waits on the client's side of a connection.
    pub client: ClientTimeouts,
    /// The control listener.
    pub control: Control,
    /// Where sales are kept.
    pub ledger: Ledger,
    /// Groups of backends; routes refer to them by index.
    pub upstreams: Vec<Upstream>,
    /// In the order of the file; the first that matches is taken.
    pub routes: Vec<Route>,
    /// What is sold, in the order of the file.
    pub sales: Vec<Sale>,
    /// Who is told of what happens to the sales; none if nobody is.
    pub delivery: Option<Delivery>,
}

impl Config {
    /// Reads the file at `path`; see [`Config::from_yaml`].
    pub fn load(path: &Path) -> Result<Config, Errors> {
        let yaml = std::fs::read_to_string(path)
            .map_err(|error| Errors::one("", format!("{} cannot be read: {error}", path.display())))?;
        Config::from_yaml(&yaml)
    }

    /// Reads the text of a configuration file, resolves the names of backends and reads the control token's file.
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
    Redis {
        /// `redis://[user:password@]host[:port][/db]` or `redis+unix:///path`.
        url: String,
        /// How long a connection may take to be made, 10 ms to 60 s; default 2 s.
        connect_timeout: Duration,
        /// How long one answer may take before its outcome counts as unknown, 10 ms to 60 s and less than any sale's
        /// deadline; default 1 s.
        response_timeout: Duration,
    },
}

/// Leaves the Redis address out, which may hold a password, so that settings may be logged.
impl Store {
    /// A Redis with the default waits: 2 s for a connection, 1 s for an answer.
    #[must_use]
    pub fn redis(url: String) -> Self {
        Self::Redis { url, connect_timeout: Duration::from_secs(2), response_timeout: Duration::from_secs(1) }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Store::Embedded { path } => f.debug_struct("Embedded").field("path", path).finish(),
            Store::Redis { url: _, connect_timeout, response_timeout } => f
                .debug_struct("Redis")
                .field("url", &"...")
                .field("connect_timeout", connect_timeout)
                .field("response_timeout", response_timeout)
                .finish(),
        }
    }
}

/// A named group of backends.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// The group's name, and with [`HostHeader::Upstream`] the `Host` that backends see.
    pub name: String,
    /// How a backend is chosen.
    pub balance: Balance,
    /// At least one; in the order of the file, names resolved (a name with several addresses is several servers).
    pub servers: Vec<Server>,
    /// What backends see as `Host`.
    pub host_header: HostHeader,
    /// Waits on the backend's side.
    pub timeouts: UpstreamTimeouts,
    /// How many different backends one request may be tried at, 1 to 16; default: all of them, at most 16.
    pub tries: usize,
    /// Probes that find out before a client does; none by default.
    pub health_check: Option<HealthCheck>,
}

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, as in Nginx.
    Weighted,
    /// In turn, weights ignored.
    RoundRobin,
    /// By the client's address; only the clients of a backend that left are moved.
    IpHash,
}

/// One backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Resolved when the file was loaded.
    pub address: SocketAddr,
    /// 1 to 65535; default 1.
    pub weight: u32,
    /// Failures within `fail_timeout` after which it is left alone, 0 to 1000; 0 never; default 1, as in Nginx.
    pub max_fails: u32,
    /// Both the window of `max_fails` and the time for which it is left alone, 10 ms to 1 h; default 10 s, as in
    /// Nginx.
    pub fail_timeout: Duration,
}

/// What backends see as `Host`; the client's own is always in `X-Forwarded-Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// The group's name: Nginx's default, `$proxy_host`. In the file: `upstream`.
    Upstream,
    /// What the client sent, or the group's name if it sent none. In the file: `client`.
    Client,
    /// This text.
    Literal(String),
}

/// Waits on the backend's side; defaults are Nginx's 60 s, and `idle` is `keepalive_timeout` of its upstream module.
/// Each is 1 ms to 7 days.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTimeouts {
    /// For a connection to be made; default 60 s.
    pub connect: Duration,
    /// The longest pause between two reads; default 60 s.
    pub read: Duration,
    /// The longest pause between two writes; default 60 s.
    pub send: Duration,
    /// How long an unused connection is kept; default 60 s.
    pub idle: Duration,
}

/// Active health checks of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Pause between two rounds, 100 ms to 1 h; default 5 s.
    pub interval: Duration,
    /// How long one probe may take, 1 ms to 60 s; default 1 s.
    pub timeout: Duration,
    /// Successes in a row that bring a backend back, 1 to 100; default 2.
    pub rise: usize,
    /// Failures in a row that take a backend out, 1 to 100; default 3.
    pub fall: usize,
}

/// What an active health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A connection can be made.
    Tcp,
    /// `GET` of this path is answered with 200 to 399.
    Http {
        /// Starts with `/`; may have a query.
        path: String,
    },
}

/// Which requests go where.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Lower case, without port; empty means any host.
    pub hosts: Vec<String>,
    /// A prefix that ends at a segment's end: `/a` takes `/a` and `/a/b`, not `/ab`; `/` takes all.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
}

/// One thing on sale.
#[derive(Debug, Clone, PartialEq)]
pub struct Sale {
    /// `[a-z0-9_-]`, 1 to 64 characters.
    pub id: String,
    /// The exact path of a purchase, not below `/sales/`; no two sales share one; default `/buy/{id}`.
    pub path: String,
    /// The Redis hash, 1 to 200 visible ASCII characters without braces; no two sales share one; default is the id.
    pub key: String,
    /// Opens the sale with so many tickets, 1 to 1000000000, if the ledger does not have it; never changes one that it
    /// has.
    pub total: Option<u64>,
    /// Tickets that this edge may have under way at the ledger at a time, 1 to 100000; default 150.
    pub local_stock: u32,
    /// Purchases that may wait in this edge for their batch, 1 to 1000000; default 10000.
    pub queue: usize,
    /// The longest that a purchase waits for its outcome before it is told that it is unknown, 10 ms to 60 s; default
    /// 3 s.
    pub deadline: Duration,
    /// How long an unpaid order keeps its tickets, 1 s to 7 days and longer than the deadline; default 5 min.
    pub hold: Duration,
    /// Tickets that one buyer may hold or have paid, 0 to 1000000; 0 is no limit. Above it buyers can be told
    /// apart.
    pub per_buyer: u32,
    /// Unpaid orders that one buyer may have at a time, 0 to 1000000; 0 is no limit. Above it buyers can be told apart.
    pub unpaid_per_buyer: u32,
    /// Where the buyer's id comes from.
    pub buyer: BuyerSource,
    /// Milliseconds since 1970; before it nothing is sold.
    pub opens_at_ms: Option<u64>,
    /// Milliseconds since 1970, after `opens_at_ms`; from it on nothing is sold.
    pub closes_at_ms: Option<u64>,
    /// Whether `GET` buys, answered in the article's dialect.
    pub seed_dialect: bool,
    /// Where to write the article's log line per purchase; no two sales share one.
    pub stat_log: Option<PathBuf>,
}

/// Where the buyer's id comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuyerSource {
    /// Nobody is told apart.
    Anonymous,
    /// A request header, lower case.
    Header(String),
    /// A query parameter.
    Query(String),
    /// A member of the JSON body.
    Body(String),
}

/// Who is told of every change of the sales.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Where its backends take deliveries; default `/hooks/spikegate`.
    pub path: String,
    /// The file with the secret that signs them, made if it is missing; default `data/delivery.secret`.
    pub secret_file: PathBuf,
    /// How long one POST may take until its answer, 100 ms to 60 s; default 5 s.
    pub timeout: Duration,
}
