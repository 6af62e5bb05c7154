//! The structure of the file: its settings, their values and defaults.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use serde_yaml::Value;

use super::errors::Errors;
use super::node::{Fields, Node, is_word};
use super::value::{
    DAY, MILLISECOND, MINUTE, SECOND, duration, file_path, flag, is_host, is_url_path, listen_address, number, quota,
    rate, secret, size, text, upstream_named, word,
};
use super::{
    ClientTimeouts, Config, Control, Ledger, Limits, MAX_BODY, Route, Store, Target, answers, check, delivery, listen,
    logs, redis, sale, tracing, upstream,
};
use crate::http::client::{Access, AddressHeader, Network, NetworkError, Networks};

const WORKER_THREADS_MAX: usize = 1024;

/// Parses the file's text into settings, or into all of its errors.
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

/// The parser's message about the one error where it stopped, without values that it may quote: some are secrets.
fn not_yaml(error: &serde_yaml::Error) -> String {
    let message = error.to_string();
    let place =
        error.location().map_or_else(String::new, |at| format!(" at line {} column {}", at.line(), at.column()));
    if let Some((_, rest)) = message.split_once("duplicate entry with key ") {
        let key = rest.split(" at line ").next().unwrap_or_default().trim_matches('"');
        let key = if is_word(key) { format!("the key `{key}`") } else { "a key".to_owned() };
        // The parser notices it only at the end of the mapping, and reports the beginning.
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
    let listen = file.read("listen", |node| Some(node.filled_list(listen::listener)));
    let threads = file.read("threads", threads);
    let (shutdown_grace, shutdown_delay) = file.group("shutdown", shutdown);
    let client = file.group("client", client);
    let trusted_proxies = file.group("trusted_proxies", networks);
    let client_address = file.read("client_address", word(&ADDRESS_HEADERS));
    if client_address.is_some() && trusted_proxies.is_empty() {
        file.error("client_address", "has no effect without trusted_proxies");
    }
    let access = access(file);
    let limits = file.group("limits", limits);
    let control = file.group("control", control);
    let ledger = file.group("ledger", ledger);
    let upstreams = file.group("upstreams", |node| node.entries(upstream::upstream));
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let routes = file.group("routes", |node| node.list(|node| route(node, &names)));
    let compression = file.read("compression", |node| Some(answers::compression(node)));
    let error_pages = file.group("error_pages", |node| node.list(answers::error_page));
    let sales = file.group("sales", |node| node.entries(sale::sale));
    let delivery = file.read("delivery", |node| delivery::delivery(node, &names));
    let tracing = file.read("tracing", |node| Some(tracing::tracing(node)));
    let (access_log, error_log, request_id) = logs::logs(file);
    Config {
        listen: listen.unwrap_or_else(|| vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80)).into()]),
        threads: threads.unwrap_or_else(one_per_core),
        shutdown_grace,
        shutdown_delay,
        client,
        trusted_proxies,
        client_address: client_address.unwrap_or_default(),
        access,
        limits,
        control,
        ledger,
        upstreams,
        routes,
        compression,
        error_pages,
        sales,
        delivery,
        tracing,
        access_log,
        error_log,
        request_id,
    }
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

/// The grace and the delay.
fn shutdown(node: &Node<'_>) -> (Duration, Duration) {
    node.mapping(|shutdown| {
        let grace = shutdown.read("grace", duration(Duration::ZERO..=MINUTE)).unwrap_or(3 * SECOND);
        (grace, shutdown.read("delay", duration(Duration::ZERO..=MINUTE)).unwrap_or(Duration::ZERO))
    })
}

fn client(node: &Node<'_>) -> ClientTimeouts {
    node.mapping(|client| ClientTimeouts {
        keepalive: client.read("keepalive", duration(MILLISECOND..=7 * DAY)).unwrap_or(75 * SECOND),
        read: client.read("read", duration(MILLISECOND..=7 * DAY)).unwrap_or(MINUTE),
        send: client.read("send", duration(MILLISECOND..=7 * DAY)).unwrap_or(MINUTE),
    })
}

const ADDRESS_HEADERS: [(&str, AddressHeader); 3] = [
    ("x-forwarded-for", AddressHeader::XForwardedFor),
    ("forwarded", AddressHeader::Forwarded),
    ("x-real-ip", AddressHeader::XRealIp),
];

/// Which clients are allowed, from `allow` and `deny` of a group.
fn access(group: &mut Fields<'_>) -> Access {
    let access = Access { allow: group.group("allow", networks), deny: group.group("deny", networks) };
    if let Some(both) = access.allow.shared_with(&access.deny) {
        group.error("deny", format!("has {both}, which is in allow as well"));
    }
    access
}

/// Each item is a network, an address, or `all`.
fn networks(node: &Node<'_>) -> Networks {
    node.list(network).into_iter().flatten().collect()
}

fn network(node: &Node<'_>) -> Vec<Network> {
    let Some(text) = node.value().as_str().filter(|text| *text != "all") else {
        return match node.value().as_str() {
            Some(_all) => Network::ALL.to_vec(),
            None => node.refuse(NETWORK).unwrap_or_default(),
        };
    };
    match text.parse() {
        Ok(network) => return vec![network],
        Err(NetworkError::Meant(network)) => {
            node.error(format!("{text:?} has host bits set; the network is {network}"));
        }
        Err(NetworkError::Malformed) => drop(node.refuse::<()>(NETWORK)),
    }
    Vec::new()
}

const NETWORK: &str = "must be a network or an address, such as 10.0.0.0/8, \"2001:db8::/32\" or 192.0.2.1, or all";

/// Larger than any sensible value.
const SIZE_MAX: u64 = 1 << 40;

fn limits(node: &Node<'_>) -> Limits {
    node.mapping(|limits| {
        let default = Limits::default();
        let (requests_per_second, burst) = rate(limits);
        Limits {
            connections: limits.read("connections", number(1..=1_000_000)).unwrap_or(default.connections),
            connections_per_address: limits
                .read("connections_per_address", number(0..=1_000_000))
                .unwrap_or(default.connections_per_address),
            requests_per_second,
            burst,
        }
    })
}

fn control(node: &Node<'_>) -> Control {
    node.mapping(|control| {
        let listen = control.read("listen", listen_address);
        let token = control.read("token", secret(TOKEN, bearer_token));
        let token_in_file = control.read("token_file", token_file);
        control.alternatives(&["token", "token_file"], "there is only one token");
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
            // The line end that editors add is not part of the token.
            let token = bearer_token(content.trim_end());
            if token.is_none() {
                node.error(format!("{TOKEN} in that file (its content is not shown because it may be a secret)"));
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
        ledger.alternatives(&["embedded", "redis"], "only one store can sell, or tickets would be sold twice");
        let embedded = ledger.group("embedded", embedded);
        let store = ledger.read("redis", |node| Some(Store::Redis(redis::redis(node)))).unwrap_or(embedded);
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

fn route(node: &Node<'_>, upstreams: &[&str]) -> Route {
    node.mapping(|route| Route {
        hosts: route.read("hosts", |node| Some(hosts(node))).unwrap_or_default(),
        path: route.require("path", route_path).unwrap_or_else(|| "/".to_owned()),
        target: target(route, upstreams),
        rewrite: route.read("rewrite", answers::rewrite),
        request_headers: route.group("request_headers", answers::header_rules),
        response_headers: route.group("response_headers", answers::header_rules),
        compress: route.read("compress", flag).unwrap_or(true),
        access: access(route),
        limits: route.group("limits", quota),
        max_body: route.read("max_body", size(0..=SIZE_MAX)).map_or(Some(MAX_BODY), |most| (most > 0).then_some(most)),
    })
}

fn target(route: &mut Fields<'_>, upstreams: &[&str]) -> Target {
    route.alternatives(&["upstream", "files"], "only one of them can answer");
    match route.read("files", |node| Some(answers::files(node))) {
        Some(files) => Target::Files(files),
        None => Target::Upstream(route.require("upstream", |node| upstream_named(node, upstreams)).unwrap_or_default()),
    }
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
