//! Settings: a YAML file becomes one checked, frozen [`Config`], or a list of everything that is wrong with it.
//!
//! Nothing behind this module sees YAML, defaults or relative times; it gets the types below.
//! The file's shape is read by `config::read`, what the values must satisfy together by `config::check`.

mod answers;
mod buyer;
mod check;
mod delivery;
mod errors;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod listen;
mod logs;
mod node;
mod read;
mod redis;
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

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

pub use errors::{Error, Errors};
pub use logs::{AccessLog, ErrorLog, LogFormat, LogPlace, RequestIdHeader};

use crate::client::{Access, AddressHeader, Networks};
use crate::{admission, jwt};

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

/// What is traced, and who is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The URL of a collector that takes OTLP over HTTP.
    pub endpoint: String,
    /// The share of traces that begin here, 0 to 1.
    pub sample: f64,
    /// What the collector knows the edge by: `service.name`.
    pub service: String,
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

/// One public address, and what is spoken there.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where clients come in.
    pub address: SocketAddr,
    /// How connections are encrypted; none: they are not.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is spoken besides HTTP/1: with TLS by agreement (`http2`, by default), without it to clients that know
    /// beforehand (`h2c`, not by default).
    pub http2: bool,
    /// Every request is led to HTTPS; only without TLS.
    pub redirect_https: Option<Redirect>,
    /// Connections begin with the PROXY protocol's header.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A listener for plain HTTP/1.
impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None, http2: false, redirect_https: None, proxy_protocol: None }
    }
}

/// TLS on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first is for clients that ask for a name that none has.
    pub certificates: Vec<CertificateFiles>,
    /// Default 1.2.
    pub min_version: TlsVersion,
}

/// Where a certificate and its key are, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that vouch for it.
    pub certificate: PathBuf,
    /// The private key, without a passphrase.
    pub key: PathBuf,
}

/// The versions of TLS that are not broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// How clients are led to HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// 301 or 308, the default. Methods other than GET and HEAD are always led by 308, after which clients keep them.
    pub code: u16,
    /// The port of HTTPS as clients see it; default 443, which is not named.
    pub port: u16,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { code: 308, port: 443 }
    }
}

/// Whose PROXY header is believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyProtocol {
    /// Only connections from these networks have a header; all others begin with what the client says. Empty: all have one.
    pub from: Vec<IpNet>,
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

/// A Redis: where it is, and what it has to be.
#[derive(Clone, PartialEq)]
pub struct Redis {
    /// Where it is.
    pub place: RedisPlace,
    /// How long a connection may take to be made, 10 ms to 60 s; default 2 s.
    pub connect_timeout: Duration,
    /// How long one answer may take before its outcome counts as unknown, 10 ms to 60 s and less than any sale's
    /// deadline; default 1 s.
    pub response_timeout: Duration,
    /// What Redis has to be set to; one that is weaker is not sold from. None: whatever it is.
    pub durability: Option<Durability>,
    /// How many replicas have to have a step before it is answered. None: none.
    pub replicas: Option<Replicas>,
}

/// Where a Redis is.
#[derive(Clone, PartialEq)]
pub enum RedisPlace {
    /// `redis://[user:password@]host[:port][/db]` or `redis+unix:///path`.
    Url(String),
    /// Wherever Sentinels say that the primary is.
    Sentinels {
        /// `host:port` each; at least one.
        addresses: Vec<String>,
        /// What they call the primary.
        master: String,
        /// Redis's user, if it has one.
        user: Option<String>,
        /// Redis's password, if it has one.
        password: Option<String>,
        /// Default 0.
        db: u16,
        /// The Sentinels' own user, if they have one.
        sentinel_user: Option<String>,
        /// The Sentinels' own password, if they have one.
        sentinel_password: Option<String>,
    },
}

/// What a Redis has on disk when it answers, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing that can be relied on.
    None,
    /// `appendfsync everysec`: all but the last second or two.
    Everysec,
    /// `appendfsync always`: everything.
    Always,
}

/// Replicas that have to have a step before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// How many, 1 to 10.
    pub acknowledge: u32,
    /// How long they may take before the outcome counts as unknown, 1 ms to 10 s and less than the time for an answer;
    /// default 100 ms.
    pub timeout: Duration,
}

/// Leaves the address out, which may hold a password, so that settings may be logged.
impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place: _, connect_timeout, response_timeout, durability, replicas } = self;
        f.debug_struct("Redis")
            .field("place", &"...")
            .field("connect_timeout", connect_timeout)
            .field("response_timeout", response_timeout)
            .field("durability", durability)
            .field("replicas", replicas)
            .finish()
    }
}

impl Store {
    /// A Redis with the default waits: 2 s for a connection, 1 s for an answer.
    #[must_use]
    pub fn redis(url: String) -> Self {
        Self::Redis(Redis::at(url, Duration::from_secs(2), Duration::from_secs(1)))
    }
}

impl Redis {
    /// One that promises nothing.
    #[must_use]
    pub fn at(url: String, connect_timeout: Duration, response_timeout: Duration) -> Self {
        Self { place: RedisPlace::Url(url), connect_timeout, response_timeout, durability: None, replicas: None }
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

/// A named group of backends.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// The group's name, and with [`HostHeader::Upstream`] the `Host` that backends see.
    pub name: String,
    /// How a backend is chosen.
    pub balance: Balance,
    /// At least one; in the order of the file.
    pub servers: Vec<Server>,
    /// What backends see as `Host`.
    pub host_header: HostHeader,
    /// Waits on the backend's side.
    pub timeouts: UpstreamTimeouts,
    /// How many different backends one request may be tried at, 1 to 16; default: all of them, at most 16.
    pub tries: usize,
    /// Probes that find out before a client does; none by default.
    pub health_check: Option<HealthCheck>,
    /// How names among the servers are looked up.
    pub resolve: Resolve,
}

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// How often, 100 ms to 1 day; default 30 s.
    pub every: Duration,
    /// The DNS servers that are asked; none, the default, is the system's own way.
    pub servers: Vec<SocketAddr>,
}

impl Default for Resolve {
    fn default() -> Self {
        Self { every: Duration::from_secs(30), servers: Vec::new() }
    }
}

/// How a backend is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, as in Nginx.
    Weighted,
    /// In turn, weights ignored.
    RoundRobin,
    /// The one with the fewest requests under way for its weight; among equals, by weight in turn.
    LeastConn,
    /// Of two that are drawn by weight, the one with fewer requests under way for its weight.
    RandomTwo,
    /// By the client's network; only the clients of a backend that left are moved.
    IpHash,
    /// By a key of the request; only the keys of a backend that left are moved. A request without the key goes in turn.
    Hash(HashKey),
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's whole address.
    ClientAddress,
    /// Path and query, as sent.
    Uri,
    /// The path, as sent.
    Path,
    /// A parameter of the query, as sent.
    Query(String),
    /// A header.
    Header(String),
    /// A cookie.
    Cookie(String),
}

/// One entry of `servers`: a backend, or as many as its name has addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// The address, or those that the name had when the file was read; then there may be none.
    pub addresses: Vec<SocketAddr>,
    /// Host and port, if the host is a name.
    pub name: Option<String>,
    /// 1 to 65535; default 1.
    pub weight: u32,
    /// Failures within `fail_timeout` after which it is left alone, 0 to 1000; 0 never; default 1, as in Nginx.
    pub max_fails: u32,
    /// Both the window of `max_fails` and the time for which it is left alone, 10 ms to 1 h; default 10 s, as in
    /// Nginx.
    pub fail_timeout: Duration,
    /// Requests that an address may have under way, 0 to 1000000; 0, the default, is no limit.
    pub max_conns: u32,
    /// Over which its weight grows after it came back, 0 to 1 h; 0, the default, is at once.
    pub slow_start: Duration,
    /// Gets requests only while all others cannot; default no.
    pub backup: bool,
    /// Gets none; default no.
    pub down: bool,
}

impl Server {
    /// A server with one address and all defaults.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self {
            addresses: vec![address],
            name: None,
            weight: 1,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            max_conns: 0,
            slow_start: Duration::ZERO,
            backup: false,
            down: false,
        }
    }
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

/// A folder whose files are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// There when the configuration was read.
    pub root: PathBuf,
    /// What is served for a path that ends with `/`; default `index.html`.
    pub index: String,
    /// What is served if there is no such file; by default 404.
    pub fallback: Option<Fallback>,
}

/// A file in the place of files that are not there: the page of a maintenance, or of an application in the browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Below the root.
    pub file: String,
    /// 200 to 599; default 200.
    pub status: u16,
    /// When the client may come again, 1 s to 7 days.
    pub retry_after: Option<Duration>,
}

/// What becomes of a header: first some fields are removed, then others are set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRules {
    /// Each in the place of whatever had its name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// All fields of these names.
    pub remove: Vec<HeaderName>,
}

/// How answers are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// In the order of preference, each with its level.
    pub codings: Vec<(Coding, u32)>,
    /// Shorter answers are left as they are, in bytes; default 1 KiB, at most 1 MiB.
    pub min_length: u64,
    /// Media types in lower case; `text/*` is all of a kind.
    pub types: Vec<String>,
}

/// A content coding (RFC 9110, 8.4.1). As a number, the place of its level in the file's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878; levels 1 to 19, default 3.
    Zstd,
    /// RFC 7932; levels 1 to 11, default 4.
    Brotli,
    /// RFC 1952; levels 1 to 9, default 5.
    Gzip,
}

/// What clients get with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// 400 to 599; at least one.
    pub statuses: Vec<u16>,
    /// By the file's ending.
    pub content_type: &'static str,
    /// The file as it was when the configuration was read, at most 1 MiB.
    pub body: Bytes,
    /// Whether it also takes the place of what backends answer with such a status; default false.
    pub intercept: bool,
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
    /// What each buyer may take: purchases that the edge does not refuse from memory.
    pub buyer_limits: Quota,
    /// What admission tokens are made with; without it none is needed.
    pub admission: Option<admission::Keys>,
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
    /// A request header, lower case, of one of our own proxies. Without it nothing is sold.
    ProxyHeader(String),
    /// A token that proves it. Without it nothing is sold.
    Token(Token),
}

/// A token that proves who buys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Where it stands.
    pub place: TokenPlace,
    /// What it has to be.
    pub rules: jwt::Rules,
}

/// Where a token stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// A request header, lower case; `authorization` has it behind `Bearer`.
    Header(String),
    /// A cookie.
    Cookie(String),
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
