//! The settings of a Redis: address and required durability.

use std::fmt;
use std::time::Duration;

use super::node::{Fields, Node};
use super::value::{MILLISECOND, MINUTE, SECOND, duration, host_and_port, is_digits, is_host, secret, text};

/// A Redis: address and required durability.
#[derive(Clone, PartialEq)]
pub struct Redis {
    /// Its address.
    pub place: RedisTopology,
    /// Time limit of a connection, 10 ms to 60 s; default 2 s.
    pub connect_timeout: Duration,
    /// Time limit of an answer before its outcome counts as unknown, 10 ms to 60 s and less than any sale's deadline;
    /// default 1 s.
    pub response_timeout: Duration,
    /// The required durability; the edge does not sell from a weaker Redis. None: any.
    pub durability: Option<Durability>,
    /// Replicas that must have a step before it is answered. None: none.
    pub replicas: Option<Replicas>,
}

/// How to find Redis.
#[derive(Clone, PartialEq)]
pub enum RedisTopology {
    /// `redis://[user:password@]host[:port][/db]` or `redis+unix:///path`.
    Url(String),
    /// The primary that Sentinels name.
    Sentinels {
        /// `host:port` each; at least one.
        addresses: Vec<String>,
        /// Their name for the primary.
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

/// What a Redis has on disk when it answers, from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// No promise.
    None,
    /// `appendfsync everysec`: all but the last second or two.
    Everysec,
    /// `appendfsync always`: everything.
    Always,
}

/// Replicas that must have a step before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// How many, 1 to 10.
    pub acknowledge: u32,
    /// How long they may take before the outcome counts as unknown, 1 ms to 10 s and less than the time limit of an
    /// answer; default 100 ms.
    pub timeout: Duration,
}

/// Hides the address, which may contain a password, so that settings may be logged.
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

impl Redis {
    /// A Redis without durability promises.
    #[must_use]
    pub fn at(url: String, connect_timeout: Duration, response_timeout: Duration) -> Self {
        Self { place: RedisTopology::Url(url), connect_timeout, response_timeout, durability: None, replicas: None }
    }
}

const REPLICAS_MAX: u64 = 10;

pub(super) fn redis(node: &Node<'_>) -> Redis {
    node.mapping(|redis| Redis {
        place: place(redis),
        connect_timeout: redis.read("connect_timeout", duration(10 * MILLISECOND..=MINUTE)).unwrap_or(2 * SECOND),
        response_timeout: redis.read("response_timeout", duration(10 * MILLISECOND..=MINUTE)).unwrap_or(SECOND),
        durability: redis.read("durability", durability),
        replicas: redis.read("replicas", |node| Some(replicas(node))),
    })
}

fn place(redis: &mut Fields<'_>) -> RedisTopology {
    let must = "must be redis://[user:password@]host[:port][/db] or redis+unix:///path";
    redis.alternatives(&["url", "sentinels"], "the primary is at one place");
    if !redis.has("sentinels") {
        for only in ["master", "user", "password", "db", "sentinel_user", "sentinel_password"] {
            if redis.has(only) {
                redis.error(only, "applies only to sentinels; put it into url");
            }
        }
        return RedisTopology::Url(redis.require("url", secret(must, redis_url)).unwrap_or_default());
    }
    let address = |node: &Node<'_>| {
        let must = "must be a host and a port, such as 10.0.0.1:26379";
        text(must, |text| host_and_port(text).map(|_| text.to_owned()))(node).unwrap_or_default()
    };
    let name = |text: &str| {
        let fits = (1..=100).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| text.to_owned())
    };
    let must_be_name = "must be 1 to 100 visible ASCII characters";
    RedisTopology::Sentinels {
        addresses: redis.group("sentinels", |node| node.filled_list(address)),
        master: redis.require("master", text(must_be_name, name)).unwrap_or_default(),
        user: redis.read("user", text(must_be_name, name)),
        password: redis.read("password", secret("must be text", |text| Some(text.to_owned()))),
        db: redis.read("db", db).unwrap_or(0),
        sentinel_user: redis.read("sentinel_user", text(must_be_name, name)),
        sentinel_password: redis.read("sentinel_password", secret("must be text", |text| Some(text.to_owned()))),
    }
}

fn db(node: &Node<'_>) -> Option<u16> {
    let db = node.value().as_u64().and_then(|db| u16::try_from(db).ok());
    db.or_else(|| node.refuse("must be 0 to 65535"))
}

fn durability(node: &Node<'_>) -> Option<Durability> {
    match node.value().as_str() {
        Some("none") => Some(Durability::None),
        Some("everysec") => Some(Durability::Everysec),
        Some("always") => Some(Durability::Always),
        _ => node.refuse("must be none, everysec or always"),
    }
}

fn replicas(node: &Node<'_>) -> Replicas {
    let count = |node: &Node<'_>| {
        let count = node.value().as_u64().filter(|count| (1..=REPLICAS_MAX).contains(count));
        count.map(|count| count as u32).or_else(|| node.refuse(format!("must be 1 to {REPLICAS_MAX}")))
    };
    node.mapping(|replicas| Replicas {
        acknowledge: replicas.require("acknowledge", count).unwrap_or(1),
        timeout: replicas.read("timeout", duration(MILLISECOND..=10 * SECOND)).unwrap_or(Duration::from_millis(100)),
    })
}

fn redis_url(url: &str) -> Option<String> {
    let is_socket = url.strip_prefix("redis+unix://").is_some_and(|path| path.starts_with('/') && path.len() > 1);
    let is_server = url.strip_prefix("redis://").is_some_and(|rest| {
        let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        // A password that has such characters must have them as %2F, %3F and so on.
        user.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#[]@".contains(&byte))
            && (is_host(host) || host_and_port(host).is_some())
            && (db.is_empty() || is_digits(db) && db.parse::<u16>().is_ok())
    });
    (is_socket || is_server).then(|| url.to_owned())
}
