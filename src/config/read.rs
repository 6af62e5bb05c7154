//! The shape of the file: which settings there are, what each may be, and what it is when it is left out.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use serde_yaml::Value;

use super::errors::{Errors, did_you_mean};
use super::node::{Fields, Node, is_word};
use super::value::{
    DAY, MILLISECOND, MINUTE, SECOND, duration, file_path, host_and_port, is_digits, is_host, is_url_path,
    listen_address, secret, text,
};
use super::{ClientTimeouts, Config, Control, Ledger, Route, Store, check, delivery, sale, upstream};

const WORKER_THREADS_MAX: usize = 1024;

/// Turns the file's text into settings, or into all that is wrong with it.
pub(super) fn config(yaml: &str) -> Result<Config, Errors> {
    let mut file: Value = serde_yaml::from_str(yaml).map_err(|error| Errors::one("", not_yaml(&error)))?;
    // Settings that several groups share may be written once: `timeouts: { <<: *patient, read: 5m }`.
    file.apply_merge().map_err(|error| Errors::one("", not_yaml(&error)))?;
    let errors = RefCell::default();
    let config = Node::root(&file, &errors).mapping(settings);
    let mut errors = errors.into_inner();
    check::relations(&config, &mut errors);
    if errors.0.is_empty() { Ok(config) } else { Err(errors) }
}

/// What the parser says of the one fault at which it stopped, without the values that it may quote: some are secrets.
fn not_yaml(error: &serde_yaml::Error) -> String {
    let message = error.to_string();
    let place =
        error.location().map_or_else(String::new, |at| format!(" at line {} column {}", at.line(), at.column()));
    if let Some((_, rest)) = message.split_once("duplicate entry with key ") {
        let key = rest.split(" at line ").next().unwrap_or_default().trim_matches('"');
        let key = if is_word(key) { format!("the key `{key}`") } else { "a key".to_owned() };
        // The parser notices only at the mapping's end, and says where it began.
        format!("has {key} twice in the mapping that begins{place}")
    } else if message.contains("invalid type") || message.contains("invalid value") {
        format!(
            "has a value{place} that is a number too large or not what its tag says; if it is text, put it in quotes"
        )
    } else if message.contains(" at line ") {
        message
    } else {
        format!("{message}{place}")
    }
}

fn settings(file: &mut Fields<'_>) -> Config {
    let listen = file.read("listen", |node| Some(node.filled_list(listener)));
    let threads = file.read("threads", threads);
    let shutdown_grace = file.group("shutdown", shutdown_grace);
    let client = file.group("client", client);
    let control = file.group("control", control);
    let ledger = file.group("ledger", ledger);
    let upstreams = file.group("upstreams", |node| node.entries(upstream::upstream));
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let routes = file.group("routes", |node| node.list(|node| route(node, &names)));
    let sales = file.group("sales", |node| node.entries(sale::sale));
    let delivery = file.read("delivery", |node| delivery::delivery(node, &names));
    Config {
        listen: listen.unwrap_or_else(|| vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80))]),
        threads: threads.unwrap_or_else(one_per_core),
        shutdown_grace,
        client,
        control,
        ledger,
        upstreams,
        routes,
        sales,
        delivery,
    }
}

fn listener(node: &Node<'_>) -> SocketAddr {
    let address = node.mapping(|listener| listener.require("address", listen_address));
    address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

fn threads(node: &Node<'_>) -> Option<usize> {
    if node.value().as_str() == Some("auto") {
        return Some(one_per_core());
    }
    let count = node.value().as_u64().and_then(|count| usize::try_from(count).ok());
    count
        .filter(|count| (1..=WORKER_THREADS_MAX).contains(count))
        .or_else(|| node.refuse(format!("must be \"auto\" or 1 to {WORKER_THREADS_MAX}")))
}

fn one_per_core() -> usize {
    available_parallelism().map_or(1, |cores| cores.get().min(WORKER_THREADS_MAX))
}

fn shutdown_grace(node: &Node<'_>) -> Duration {
    let grace = node.mapping(|shutdown| shutdown.read("grace", duration(Duration::ZERO..=MINUTE)));
    grace.unwrap_or(3 * SECOND)
}

fn client(node: &Node<'_>) -> ClientTimeouts {
    node.mapping(|client| ClientTimeouts {
        keepalive: client.read("keepalive", duration(MILLISECOND..=7 * DAY)).unwrap_or(75 * SECOND),
        read: client.read("read", duration(MILLISECOND..=7 * DAY)).unwrap_or(MINUTE),
        send: client.read("send", duration(MILLISECOND..=7 * DAY)).unwrap_or(MINUTE),
    })
}

fn control(node: &Node<'_>) -> Control {
    node.mapping(|control| {
        let listen = control.read("listen", listen_address);
        let token = control.read("token", secret(TOKEN, bearer_token));
        let token_in_file = control.read("token_file", token_file);
        control.alternatives(&["token", "token_file"], "there is one token");
        Control {
            listen: listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 9180))),
            token: token.or(token_in_file),
        }
    })
}

const TOKEN: &str = "must be 16 to 256 visible ASCII characters";

fn bearer_token(text: &str) -> Option<String> {
    let fits = (16..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

fn token_file(node: &Node<'_>) -> Option<String> {
    let path = file_path(node)?;
    match std::fs::read_to_string(path) {
        Ok(content) => {
            // An editor ends the file with a line's end, which is no part of the token.
            let token = bearer_token(content.trim_end());
            if token.is_none() {
                node.error(format!("{TOKEN} in that file (what is there is not shown: it may be a secret)"));
            }
            token
        }
        Err(error) => {
            node.error(format!("cannot be read: {error}"));
            None
        }
    }
}

fn ledger(node: &Node<'_>) -> Ledger {
    node.mapping(|ledger| {
        ledger.alternatives(&["embedded", "redis"], "one store sells, or tickets would be sold twice");
        let embedded = ledger.group("embedded", embedded);
        let store = ledger.read("redis", |node| Some(redis(node))).unwrap_or(embedded);
        Ledger {
            store,
            sync: ledger.read("sync", duration(10 * MILLISECOND..=10 * SECOND)).unwrap_or(100 * MILLISECOND),
        }
    })
}

fn embedded(node: &Node<'_>) -> Store {
    let path = node.mapping(|embedded| embedded.read("path", file_path));
    Store::Embedded { path: path.unwrap_or_else(|| PathBuf::from("data")) }
}

fn redis(node: &Node<'_>) -> Store {
    let must = "must be redis://[user:password@]host[:port][/db] or redis+unix:///path";
    node.mapping(|redis| Store::Redis {
        url: redis.require("url", secret(must, redis_url)).unwrap_or_default(),
        connect_timeout: redis.read("connect_timeout", duration(10 * MILLISECOND..=MINUTE)).unwrap_or(2 * SECOND),
        response_timeout: redis.read("response_timeout", duration(10 * MILLISECOND..=MINUTE)).unwrap_or(SECOND),
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

fn route(node: &Node<'_>, upstreams: &[&str]) -> Route {
    node.mapping(|route| Route {
        hosts: route.read("hosts", |node| Some(hosts(node))).unwrap_or_default(),
        path: route.require("path", route_path).unwrap_or_else(|| "/".to_owned()),
        upstream: route.require("upstream", |node| upstream_named(node, upstreams)).unwrap_or_default(),
    })
}

fn hosts(node: &Node<'_>) -> Vec<String> {
    let must = "must be a host without port or wildcard, such as www.example.com";
    let host = |text: &str| is_host(text).then(|| text.to_ascii_lowercase());
    node.filled_list(|node| text(must, host)(node).unwrap_or_default())
}

/// `/a/` is not taken, since it would be unclear whether it takes `/a`.
fn route_path(node: &Node<'_>) -> Option<String> {
    text("must be / or a path such as /shop, without pattern, query, empty or dot segments, or / at its end", |path| {
        let fits = is_url_path(path) && (path == "/" || !path.ends_with('/'));
        fits.then(|| path.to_owned())
    })(node)
}

/// The index of a group by its name.
pub(super) fn upstream_named(node: &Node<'_>, upstreams: &[&str]) -> Option<usize> {
    let name = text("must be the name of an upstream", |name| Some(name.to_owned()))(node)?;
    let index = upstreams.iter().position(|upstream| *upstream == name);
    if index.is_none() {
        let hint = did_you_mean(&name, upstreams.iter().copied());
        node.error(format!("there is no upstream {name:?}{hint}"));
    }
    index
}
