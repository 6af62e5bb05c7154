//! The PROXY protocol: which peers may send it, and which address the edge uses then.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::backend::After;
use crate::harness::edge::Setup;
use crate::harness::{Authority, Backend, Connection, Edge, Request, eventually};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 80\r\n";

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, block].concat()
}

/// 192.0.2.8:1024 to 192.0.2.1:80, and a TLV that means nothing to us.
fn v2_tcp4() -> Vec<u8> {
    v2(1, 0x11, &[192, 0, 2, 8, 192, 0, 2, 1, 4, 0, 0, 80, 0xee, 0, 2, 1, 2])
}

/// 2001:db8::9.
fn v2_tcp6() -> Vec<u8> {
    let mut block = vec![0; 36];
    block[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    block[15] = 9;
    v2(1, 0x21, &block)
}

/// An edge whose backend answers with the headers about the client.
fn edge(listener: Value) -> (Setup, Backend) {
    let backend = Backend::start(|request| {
        let told = |name: &str| request.header(name).unwrap_or("none").to_owned();
        let text = [told("x-forwarded-for"), told("x-real-ip"), told("x-forwarded-proto")].join(" ");
        request.answer(&text);
        After::KeepOpen
    });
    let setup = Edge::setup().listener(listener).proxies_to(json!({ "servers": [{ "address": backend.address() }] }));
    (setup, backend)
}

#[track_caller]
fn told(address: SocketAddr, header: &[u8]) -> String {
    let mut connection = Connection::to(address);
    // With the request in one packet, and with a pause that the edge can see.
    connection.send(header);
    let said = connection.ask(&Request::get("/")).text().to_owned();
    let mut connection = Connection::to(address);
    connection.send(&[header, &Request::get("/").bytes()].concat());
    assert_eq!(connection.answer().text(), said);
    assert_eq!(connection.ask(&Request::get("/")).text(), said, "and for all requests of the connection");
    said
}

#[test]
fn the_client_is_whom_the_header_names() {
    let (setup, _backend) = edge(json!({ "proxy_protocol": true }));
    let edge = setup.ticket(json!({ "total": 9 })).start();
    assert_eq!(told(edge.address(), V1), "192.0.2.7 192.0.2.7 http");
    assert_eq!(told(edge.address(), b"PROXY TCP6 2001:db8::7 ::1 1 80\r\n"), "2001:db8::7 2001:db8::7 http");
    assert_eq!(told(edge.address(), &v2_tcp4()), "192.0.2.8 192.0.2.8 http");
    assert_eq!(told(edge.address(), &v2_tcp6()), "2001:db8::9 2001:db8::9 http");
    assert_eq!(told(edge.address(), b"PROXY UNKNOWN\r\n"), "127.0.0.1 127.0.0.1 http");
    assert_eq!(told(edge.address(), &v2(0, 0, b"")), "127.0.0.1 127.0.0.1 http", "LOCAL: a health check");

    let mut slow = Connection::to(edge.address());
    slow.send_in_single_bytes(&v2_tcp4());
    assert_eq!(slow.ask(&Request::get("/")).text(), "192.0.2.8 192.0.2.8 http");
    let mut bought = Connection::to(edge.address());
    bought.send(V1);
    assert_eq!(bought.ask(&crate::harness::purchase::purchase()).status, 201);
}

#[test]
fn what_is_no_header_ends_the_connection() {
    let (setup, _backend) = edge(json!({ "proxy_protocol": true }));
    let edge = setup.set("client", json!({ "read": "400ms" })).start();
    let none: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 56324\r\n",
        b"PROXY TCP4 300.0.2.7 192.0.2.1 56324 80\r\n",
        &v2(3, 0x11, &[0; 12]),
        &v2(1, 0x11, &[0; 11]),
    ];
    for (n, bytes) in none.iter().enumerate() {
        assert_eq!(crate::harness::client::everything(edge.address(), bytes), b"", "{}", bytes.escape_ascii());
        let refused = || edge.metric("spikegate_proxy_headers_refused_total", "");
        eventually("it is counted", || (refused() == n as u64 + 1).then_some(()));
    }
    edge.wait_for_log("invalid PROXY header: it does not begin with one");
    assert!(edge.log().lines().filter(|line| line.contains("invalid PROXY header")).count() <= none.len());
    // Half of one is not waited for, nor is none.
    for half in [&b""[..], b"PROXY TCP4 192.0.2.7", &v2_tcp4()[..20]] {
        let mut connection = Connection::to(edge.address());
        connection.send(half);
        assert!(connection.is_closed_by_peer(Duration::from_secs(10)), "{}", half.escape_ascii());
    }
    eventually("nobody is left", || (edge.metric("spikegate_connections", "") == 0).then_some(()));
}

#[test]
fn only_configured_peers_may_send_the_header() {
    let (setup, _backend) = edge(json!({ "proxy_protocol": { "from": ["127.0.0.16/28", "10.0.0.0/8"] } }));
    let edge = setup.start();
    let from = |last: u8| Connection::from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), edge.address());
    let mut balancer = from(17);
    balancer.send(V1);
    assert_eq!(balancer.ask(&Request::get("/")).text(), "192.0.2.7 192.0.2.7 http");
    let mut client = from(33);
    assert_eq!(client.ask(&Request::get("/")).text(), "127.0.0.33 127.0.0.33 http", "others come without");
    let mut forger = from(33);
    forger.send(V1);
    forger.send(&Request::get("/").bytes());
    assert_eq!(forger.answer().status, 400, "and what they forge is no request");
    let mut forger = from(33);
    forger.send(&v2_tcp4());
    forger.send(&Request::get("/").bytes());
    assert_eq!(forger.answer().status, 400);
}

#[test]
fn limits_are_those_of_the_client_and_not_of_the_balancer() {
    let (setup, _backend) = edge(json!({ "proxy_protocol": true }));
    let limits = json!({ "connections_per_address": 2, "requests_per_second": 1, "burst": 3 });
    let edge = setup.set("limits", limits).start();
    let connect = |address: &str| {
        let mut connection = Connection::to(edge.address());
        connection.send(format!("PROXY TCP4 {address} 192.0.2.1 1024 80\r\n").as_bytes());
        connection
    };
    let mut one: Vec<_> = (0..2).map(|_| connect("192.0.2.7")).collect();
    assert!(one.iter_mut().all(|connection| connection.ask(&Request::get("/")).status == 200));
    let mut refused = connect("192.0.2.7");
    assert!(refused.stream().read(&mut [0]).is_err(), "a reset");
    assert_eq!(edge.metric("spikegate_connections_refused_total", "connections_per_address"), 1);
    let mut others: Vec<_> = (10..20).map(|last| connect(&format!("192.0.2.{last}"))).collect();
    assert!(others.iter_mut().all(|connection| connection.ask(&Request::get("/")).status == 200));
    let statuses: Vec<u16> = (0..6).map(|_| one[0].ask(&Request::get("/")).status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(others[0].ask(&Request::get("/")).status, 200);
}

#[test]
fn the_header_comes_before_tls() {
    let authority = Authority::new();
    let tls = json!({ "certificates": [authority.certificate("tickets", &["tickets.example"])] });
    let (setup, _backend) = edge(json!({ "proxy_protocol": true, "tls": tls }));
    let edge = setup.start();
    for header in [V1.to_vec(), v2_tcp4()] {
        let mut connection = Connection::to(edge.address());
        connection.send(&header);
        let stream = connection.stream().try_clone().unwrap();
        let mut secure = authority.over(stream, "tickets.example").unwrap();
        let said = secure.ask(&Request::get("/"));
        assert!(said.text().starts_with("192.0.2.") && said.text().ends_with(" https"), "{}", said.text());
    }
}
