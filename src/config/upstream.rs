//! `upstreams`: groups of backends, how one is chosen, and how long it may take.

use std::net::SocketAddr;
use std::time::Duration;

use super::node::{Fields, Node};
use super::value::{
    DAY, HOUR, MILLISECOND, MINUTE, SECOND, duration, flag, host_and_port, is_host, is_url_path, number, text, word,
};

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

impl Upstream {
    /// The `Host` that this group's backends see, unless it is the client's own.
    #[must_use]
    pub fn default_host(&self) -> &str {
        match &self.host_header {
            HostHeader::Upstream | HostHeader::Client => &self.name,
            HostHeader::Literal(host) => host,
        }
    }
}

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// How often, 100 ms to 1 day; default 30 s.
    pub every: Duration,
    /// The DNS servers that are asked; none, the default, is the system's own way.
    pub servers: Vec<SocketAddr>,
    /// What happens at a start or reload if a name has no address; default error.
    pub unresolved: Unresolved,
}

/// What happens at a start or reload if a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// The configuration is refused.
    Error,
    /// The server has no address until the name has one.
    Wait,
}

impl Default for Resolve {
    fn default() -> Self {
        Self { every: Duration::from_secs(30), servers: Vec::new(), unresolved: Unresolved::Error }
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
    /// The address, or those of the name since [`Config::resolve`](super::Config::resolve); a name may have none.
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

/// More tries than this would let one request keep a whole group busy.
const TRIES_MAX: usize = 16;

pub(super) fn upstream(name: &str, node: &Node<'_>) -> Upstream {
    if !is_host(name) {
        node.error("a name must be letters, digits, - and _, with . between them, because backends receive it as Host");
    }
    node.mapping(|upstream| {
        let balance = balance(upstream);
        let resolve = Resolve {
            every: upstream.read("resolve", duration(100 * MILLISECOND..=DAY)).unwrap_or(Resolve::default().every),
            servers: upstream.read("resolver", |node| Some(node.filled_list(dns_server))).unwrap_or_default(),
            unresolved: upstream
                .read("unresolved", word(&[("error", Unresolved::Error), ("wait", Unresolved::Wait)]))
                .unwrap_or(Unresolved::Error),
        };
        let servers = upstream.group("servers", |node| node.filled_list(server));
        Upstream {
            name: name.to_owned(),
            balance,
            host_header: upstream.read("host_header", host_header).unwrap_or(HostHeader::Upstream),
            timeouts: upstream.group("timeouts", timeouts),
            tries: upstream.read("tries", number(1..=TRIES_MAX)).unwrap_or_else(|| all_of(&servers)),
            health_check: upstream.read("health_check", |node| Some(health_check(node))),
            servers,
            resolve,
        }
    })
}

/// A DNS server; its port is 53 if it is left out. One that cannot be read stands at a made-up value.
fn dns_server(node: &Node<'_>) -> SocketAddr {
    let parse = |text: &str| {
        let with_port = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
        with_port.or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)))
    };
    let must = "must be an IP address, with or without a port, such as 10.0.0.2 or 127.0.0.1:5353";
    text(must, parse)(node).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 53)))
}

/// As many tries as there are addresses; a name may have more later.
fn all_of(servers: &[Server]) -> usize {
    if servers.iter().any(|server| server.name.is_some()) {
        return TRIES_MAX;
    }
    servers.iter().map(|server| server.addresses.len()).sum::<usize>().clamp(1, TRIES_MAX)
}

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Weighted,
    RoundRobin,
    LeastConn,
    RandomTwo,
    IpHash,
    Hash,
}

const METHODS: [(&str, Method); 6] = [
    ("weighted", Method::Weighted),
    ("round_robin", Method::RoundRobin),
    ("least_conn", Method::LeastConn),
    ("random_two", Method::RandomTwo),
    ("ip_hash", Method::IpHash),
    ("hash", Method::Hash),
];

fn balance(upstream: &mut Fields<'_>) -> Balance {
    let method = upstream.read("balance", word(&METHODS));
    let has_key = upstream.has("hash");
    let key = upstream.read("hash", |node| node.mapping(|hash| hash.require("key", hash_key)));
    match method {
        Some(Method::Hash) => {
            if !has_key {
                upstream.error("hash", "is missing: balance hash needs { key: ... }");
            }
            return Balance::Hash(key.unwrap_or(HashKey::Uri));
        }
        // What could not be read may have been meant to be `hash`.
        None if upstream.has("balance") => {}
        _ if has_key => upstream.error("hash", "applies only to balance: hash"),
        _ => {}
    }
    match method {
        Some(Method::RoundRobin) => Balance::RoundRobin,
        Some(Method::LeastConn) => Balance::LeastConn,
        Some(Method::RandomTwo) => Balance::RandomTwo,
        Some(Method::IpHash) => Balance::IpHash,
        _ => Balance::Weighted,
    }
}

fn hash_key(node: &Node<'_>) -> Option<HashKey> {
    let must = "must be client_address, uri, path, query:NAME, header:NAME or cookie:NAME";
    text(must, |text| match text {
        "client_address" => Some(HashKey::ClientAddress),
        "uri" => Some(HashKey::Uri),
        "path" => Some(HashKey::Path),
        _ => {
            let (source, name) = text.split_once(':').filter(|(_, name)| is_token(name))?;
            let name = name.to_owned();
            match source {
                "query" => Some(HashKey::Query(name)),
                "header" => Some(HashKey::Header(name.to_ascii_lowercase())),
                "cookie" => Some(HashKey::Cookie(name)),
                _ => None,
            }
        }
    })(node)
}

/// A name as headers and cookies have it (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

/// One entry of `servers`.
fn server(node: &Node<'_>) -> Server {
    node.mapping(|server| {
        let (name, addresses) = server.require("address", address).unwrap_or_default();
        Server {
            addresses,
            name,
            weight: server.read("weight", number(1..=65535)).unwrap_or(1),
            max_fails: server.read("max_fails", number(0..=1000)).unwrap_or(1),
            fail_timeout: server.read("fail_timeout", duration(10 * MILLISECOND..=HOUR)).unwrap_or(10 * SECOND),
            max_conns: server.read("max_conns", number(0..=1_000_000)).unwrap_or(0),
            slow_start: server.read("slow_start", duration(Duration::ZERO..=HOUR)).unwrap_or_default(),
            backup: server.read("backup", flag).unwrap_or(false),
            down: server.read("down", flag).unwrap_or(false),
        }
    })
}

/// The host and port if the host is a name, and otherwise its one address.
fn address(node: &Node<'_>) -> Option<(Option<String>, Vec<SocketAddr>)> {
    let must = "must be a host and a port, such as 127.0.0.1:3001, \"[::1]:3001\" or backend.local:3001";
    let name = text(must, |text| host_and_port(text).map(|_| text.to_owned()))(node)?;
    match name.parse() {
        Ok(address) => Some((None, vec![address])),
        Err(_) => Some((Some(name), Vec::new())),
    }
}

fn host_header(node: &Node<'_>) -> Option<HostHeader> {
    text("must be upstream, client, or a host such as www.example.com", |text| match text {
        "upstream" => Some(HostHeader::Upstream),
        "client" => Some(HostHeader::Client),
        host => (is_host(host) || host_and_port(host).is_some()).then(|| HostHeader::Literal(host.to_owned())),
    })(node)
}

fn timeouts(node: &Node<'_>) -> UpstreamTimeouts {
    let timeout =
        |timeouts: &mut Fields<'_>, key| timeouts.read(key, duration(MILLISECOND..=7 * DAY)).unwrap_or(MINUTE);
    node.mapping(|timeouts| UpstreamTimeouts {
        connect: timeout(timeouts, "connect"),
        read: timeout(timeouts, "read"),
        send: timeout(timeouts, "send"),
        idle: timeout(timeouts, "idle"),
    })
}

fn health_check(node: &Node<'_>) -> HealthCheck {
    node.mapping(|check| HealthCheck {
        probe: probe(check),
        interval: check.read("interval", duration(100 * MILLISECOND..=HOUR)).unwrap_or(5 * SECOND),
        timeout: check.read("timeout", duration(MILLISECOND..=MINUTE)).unwrap_or(SECOND),
        rise: check.read("rise", number(1..=100)).unwrap_or(2),
        fall: check.read("fall", number(1..=100)).unwrap_or(3),
    })
}

fn probe(check: &mut Fields<'_>) -> Probe {
    #[derive(Clone, Copy, PartialEq)]
    enum Type {
        Tcp,
        Http,
    }
    match check.require("type", word(&[("tcp", Type::Tcp), ("http", Type::Http)])) {
        Some(Type::Http) => Probe::Http { path: check.require("path", probe_path).unwrap_or_default() },
        given => {
            let has_path = check.has("path");
            if has_path && given == Some(Type::Tcp) {
                check.error("path", "applies only to type: http; a tcp check sends no request");
            }
            Probe::Tcp
        }
    }
}

/// Unlike other paths this one is sent, not compared, so a query is welcome.
fn probe_path(node: &Node<'_>) -> Option<String> {
    text("must be a path such as /healthz or /healthz?full=1", |text| {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let fits = is_url_path(path) && query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        fits.then(|| text.to_owned())
    })(node)
}
