//! Reads `upstreams`: groups of backends, how one is chosen, and how long it may take.

use std::net::{SocketAddr, ToSocketAddrs};

use super::node::{Fields, Node};
use super::value::{
    DAY, HOUR, MILLISECOND, MINUTE, SECOND, duration, host_and_port, is_host, is_url_path, number, text, word,
};
use super::{Balance, HealthCheck, HostHeader, Probe, Server, Upstream, UpstreamTimeouts};

/// More tries than this would let one request keep a whole group busy.
const TRIES_MAX: usize = 16;

pub(super) fn upstream(name: &str, node: &Node<'_>) -> Upstream {
    if !is_host(name) {
        node.error("a name is letters, digits, - _ and . between them, since backends see it as their Host");
    }
    node.mapping(|upstream| {
        let balance = upstream.read("balance", word(&BALANCES));
        let servers: Vec<Server> =
            upstream.group("servers", |node| node.filled_list(servers)).into_iter().flatten().collect();
        Upstream {
            name: name.to_owned(),
            balance: balance.unwrap_or(Balance::Weighted),
            host_header: upstream.read("host_header", host_header).unwrap_or(HostHeader::Upstream),
            timeouts: upstream.group("timeouts", timeouts),
            tries: upstream.read("tries", number(1..=TRIES_MAX)).unwrap_or(servers.len().clamp(1, TRIES_MAX)),
            health_check: upstream.read("health_check", |node| Some(health_check(node))),
            servers,
        }
    })
}

const BALANCES: [(&str, Balance); 3] =
    [("weighted", Balance::Weighted), ("round_robin", Balance::RoundRobin), ("ip_hash", Balance::IpHash)];

/// One entry of `servers`: a server for each address that its name has.
fn servers(node: &Node<'_>) -> Vec<Server> {
    node.mapping(|server| {
        let addresses = server.require("address", addresses).unwrap_or_default();
        let weight = server.read("weight", number(1..=65535)).unwrap_or(1);
        let max_fails = server.read("max_fails", number(0..=1000)).unwrap_or(1);
        let fail_timeout = server.read("fail_timeout", duration(10 * MILLISECOND..=HOUR)).unwrap_or(10 * SECOND);
        addresses.into_iter().map(|address| Server { address, weight, max_fails, fail_timeout }).collect()
    })
}

fn addresses(node: &Node<'_>) -> Option<Vec<SocketAddr>> {
    let must = "must be a host and a port, such as 127.0.0.1:3001, \"[::1]:3001\" or backend.local:3001";
    let name = text(must, |text| host_and_port(text).map(|_| text.to_owned()))(node)?;
    match name.to_socket_addrs() {
        Ok(found) => {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Some(addresses)
        }
        Err(error) => {
            node.error(format!("{name} cannot be resolved: {error}"));
            None
        }
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
                check.error("path", "belongs to type http; a tcp check asks for nothing");
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
