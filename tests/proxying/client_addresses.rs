//! The address of a client: who may name it, which addresses may ask, and the limits of a route for each address.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use crate::harness::backend::After;
use crate::harness::purchase::purchase;
use crate::harness::{Answer, Backend, Connection, Edge, Request};

/// The addresses of a trusted proxy and of a stranger.
const PROXY: u8 = 9;
const STRANGER: u8 = 7;

fn from(last: u8, edge: &Edge) -> Connection {
    Connection::from(IpAddr::from(Ipv4Addr::new(127, 0, 0, last)), edge.address())
}

/// A backend that answers with the headers that it got, a line each.
fn mirror() -> Backend {
    Backend::start(|request| {
        let lines = request.headers.iter().map(|(name, value)| format!("{}: {value}\n", name.to_lowercase()));
        let text: String = lines.collect();
        request.answer(&text);
        After::KeepOpen
    })
}

/// The values of a header that the backend got.
fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

/// A request that the front door leaves to Pingora.
fn unusual(request: Request) -> Request {
    (0..70).fold(request, |request, n| request.header(&format!("X-{n}"), "1"))
}

fn for_client(request: Request, address: &str) -> Request {
    request.header("X-Forwarded-For", address)
}

#[test]
fn only_trusted_proxies_name_the_client() {
    let backend = mirror();
    for (mode, header, chain, client) in [
        ("x-forwarded-for", "X-Forwarded-For", "6.6.6.6, 192.0.2.7:80, 127.0.0.9", "192.0.2.7"),
        ("forwarded", "Forwarded", "for=6.6.6.6, for=\"[2001:db8::7]:80\";proto=https", "2001:db8::7"),
        ("x-real-ip", "X-Real-IP", "::ffff:192.0.2.7", "192.0.2.7"),
    ] {
        let edge = Edge::setup()
            .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
            .set("trusted_proxies", json!(["127.0.0.9/32"]))
            .set("client_address", json!(mode))
            .start();
        let forged = ["X-Forwarded-For", "X-Real-IP", "Forwarded"]
            .into_iter()
            .filter(|name| *name != header)
            .fold(Request::get("/"), |request, name| request.header(name, "for=6.6.6.6"))
            .header("X-Forwarded-Proto", "https")
            .header(header, chain);
        let (stranger, proxy) = (from(STRANGER, &edge).ask(&forged), from(PROXY, &edge).ask(&forged));
        for (answer, address, proto) in [(&stranger, "127.0.0.7", "http"), (&proxy, client, "https")] {
            assert_eq!(values(answer, "x-forwarded-for"), [address], "{mode}");
            assert_eq!(values(answer, "x-real-ip"), [address], "{mode}");
            assert_eq!(values(answer, "x-forwarded-proto"), [proto], "{mode}");
            assert_eq!(values(answer, "forwarded"), [""; 0], "{mode}");
        }
    }
}

#[test]
fn what_an_address_may_take_is_its_own() {
    let backend = mirror();
    let edge = Edge::setup()
        .ticket(json!({ "total": 1_000 }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .set("trusted_proxies", json!(["127.0.0.9"]))
        .set("limits", json!({ "requests_per_second": 1, "burst": 3, "connections_per_address": 2 }))
        .start();
    // A proxy has as many connections as it likes; its clients are told apart.
    let mut proxies: Vec<_> = (0..6).map(|_| from(PROXY, &edge)).collect();
    let drain = |proxy: &mut Connection, address: &str| {
        (0..60).map(|_| proxy.ask(&for_client(purchase(), address))).find(|answer| answer.status == 429)
    };
    for (at, address) in ["192.0.2.1", "192.0.2.2", "2001:db8::1"].into_iter().enumerate() {
        assert_eq!(proxies[at].ask(&for_client(purchase(), address)).status, 201, "{address}");
        assert_eq!(proxies[at].ask(&for_client(unusual(Request::get("/")), address)).status, 200, "{address}");
        assert_eq!(drain(&mut proxies[at], address).unwrap().problem(), "too-many-requests", "{address}");
    }
    // A stranger who claims to be somebody else uses up what it may take itself, whatever it claims.
    let mut stranger = from(STRANGER, &edge);
    let refused =
        (0..60).find(|n| stranger.ask(&for_client(purchase(), &format!("192.0.2.{}", 100 + n))).status == 429);
    assert!(refused.is_some(), "a new address for each request is of no use");
    assert_eq!(proxies[5].ask(&for_client(purchase(), "192.0.2.100")).status, 201, "and nobody else pays for it");
    let _second = from(STRANGER, &edge);
    assert!(from(STRANGER, &edge).try_ask(&purchase()).is_err(), "a stranger has two connections");
}

#[test]
fn an_address_that_may_not_ask_gets_nothing() {
    let backend = mirror();
    let route = |path: &str, access: Value| {
        let mut route = json!({ "path": path, "upstream": "load_rule" });
        route.as_object_mut().unwrap().extend(access.as_object().unwrap().clone());
        route
    };
    let edge = Edge::setup()
        .ticket(json!({ "total": 1_000, "seed_dialect": true }))
        .upstream("load_rule", json!({ "servers": [{ "address": backend.address() }] }))
        .route(route("/office", json!({ "allow": ["192.0.2.0/24"], "deny": ["192.0.2.66"] })))
        .route(route("/", json!({})))
        .set("trusted_proxies", json!(["127.0.0.9"]))
        .set("deny", json!(["198.51.100.0/24", "127.0.0.8"]))
        .set("allow", json!(["198.51.100.1", "all"]))
        .start();
    let mut proxy = from(PROXY, &edge);
    let everything = [
        purchase(),
        purchase().json(&json!({ "quantity": 1 })),
        unusual(purchase()),
        Request::get("/sales/ticket"),
        Request::get("/else"),
        unusual(Request::get("/else")),
    ];
    for request in everything {
        let mut ask = |address: &str| proxy.ask(&for_client(request.clone(), address));
        for address in ["198.51.100.7", "::ffff:198.51.100.7"] {
            let answer = ask(address);
            assert_eq!((answer.status, answer.problem().as_str()), (403, "address-denied"), "{request:?}");
        }
        assert!(matches!(ask("198.51.100.1").status, 200 | 201), "the narrower network decides: {request:?}");
        // A stranger is what it is.
        let mut answer = from(8, &edge).ask(&for_client(request.clone(), "192.0.2.1"));
        assert_eq!(answer.status, 403, "{request:?}");
        answer = from(STRANGER, &edge).ask(&for_client(request.clone(), "198.51.100.7"));
        assert!(matches!(answer.status, 200 | 201), "{request:?}");
    }
    let answer = proxy.ask(&for_client(Request::get("/buy/ticket"), "198.51.100.7"));
    assert_eq!((answer.status, &answer.is_our_own().json()["code"]), (200, &json!(-17)));
    for (address, status) in [("192.0.2.1", 200), ("192.0.2.66", 403), ("203.0.113.1", 403), ("198.51.100.7", 403)] {
        let answer = proxy.ask(&for_client(Request::get("/office/door"), address));
        assert_eq!(answer.status, status, "{address}: {answer:?}");
    }
    assert_eq!(from(STRANGER, &edge).ask(&for_client(Request::get("/office"), "192.0.2.1")).status, 403);
    assert_eq!(edge.metric("spikegate_requests_denied_total", ""), 6 * 3 + 1 + 3 + 1);
}

#[test]
fn a_client_stays_with_its_backend_behind_a_proxy() {
    let backends = [Backend::named("a"), Backend::named("b")];
    let servers: Vec<_> = backends.iter().map(|backend| json!({ "address": backend.address() })).collect();
    let edge = Edge::setup()
        .proxies_to(json!({ "servers": servers, "balance": "ip_hash" }))
        .set("trusted_proxies", json!(["127.0.0.9"]))
        .start();
    let mut proxy = from(PROXY, &edge);
    let mut ask = |n: u8| proxy.ask(&for_client(Request::get("/"), &format!("192.0.{n}.7"))).text().to_owned();
    let first: Vec<_> = (0..40).map(&mut ask).collect();
    let again: Vec<_> = (0..40).map(&mut ask).collect();
    assert_eq!(first, again);
    assert!(first.iter().any(|name| name == "a") && first.iter().any(|name| name == "b"), "{first:?}");
}

#[test]
fn a_route_gives_each_address_its_share() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let own = Arc::clone(&gate);
    let backend = Backend::start(move |request| {
        if request.path() == "/slow" {
            let (open, opened) = &*own;
            drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        }
        request.answer("done");
        After::KeepOpen
    });
    let edge = Edge::setup()
        .upstream("load_rule", json!({ "servers": [{ "address": backend.address() }] }))
        .route(json!({ "path": "/slow", "upstream": "load_rule", "limits": { "concurrent": 2 } }))
        .route(json!({ "path": "/few", "upstream": "load_rule", "limits": { "requests_per_second": 1, "burst": 2 } }))
        .route(json!({ "path": "/", "upstream": "load_rule" }))
        .start();
    let slow = Request::get("/slow");
    let mut under_way: Vec<_> = (0..2).map(|_| from(STRANGER, &edge)).collect();
    under_way.iter_mut().for_each(|connection| connection.send(&slow.bytes()));
    let answer = crate::harness::eventually("both are under way", || {
        (backend.requests() == 2).then(|| from(STRANGER, &edge).ask(&slow))
    });
    assert_eq!((answer.status, answer.problem().as_str()), (429, "too-many-requests"), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(from(STRANGER, &edge).ask(&Request::get("/")).status, 200, "another route");
    let mut other = from(8, &edge);
    other.send(&slow.bytes());
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    under_way.iter_mut().chain([&mut other]).for_each(|connection| assert_eq!(connection.answer().status, 200));
    assert_eq!(from(STRANGER, &edge).ask(&slow).status, 200, "whoever is done makes room");

    let mut client = from(STRANGER, &edge);
    let refused = (0..60).map(|_| client.ask(&Request::get("/few"))).find(|answer| answer.status == 429);
    assert_eq!(refused.expect("more than it may").problem(), "too-many-requests");
    assert_eq!(from(8, &edge).ask(&Request::get("/few")).status, 200);
    assert!(edge.metric("spikegate_requests_limited_total", "limit=\"route\"") >= 2);
}

#[test]
fn a_body_is_no_longer_than_its_route_allows() {
    let backend = Backend::start(|request| {
        let length = request.header("content-length").map(|length| length.parse().unwrap());
        let read = match length {
            Some(length) => request.body(length).len(),
            // Chunked; the last chunk ends it.
            None => {
                let mut read = std::mem::take(&mut request.rest);
                while !read.ends_with(b"\r\n0\r\n\r\n") {
                    let mut piece = [0; 4096];
                    match std::io::Read::read(request.stream, &mut piece) {
                        Ok(length @ 1..) => read.extend_from_slice(&piece[..length]),
                        _ => return After::Close,
                    }
                }
                read.len()
            }
        };
        request.answer(&read.to_string());
        After::KeepOpen
    });
    let route = |path: &str, max_body: Value| json!({ "path": path, "upstream": "load_rule", "max_body": max_body });
    let edge = Edge::setup()
        .upstream("load_rule", json!({ "servers": [{ "address": backend.address() }] }))
        .route(route("/small", json!("10KiB")))
        .route(route("/any", json!(0)))
        .route(json!({ "path": "/", "upstream": "load_rule" }))
        .start();
    let post = |path: &str, length: usize| Request::post(path).body("text/plain", vec![b'x'; length]);
    for (path, most) in [("/small", 10 * 1024), ("/", 1024 * 1024)] {
        assert_eq!(edge.ask(&post(path, most)).text(), most.to_string());
        assert_eq!(edge.ask(&post(path, most).chunked(4000)).status, 200);
        let before = backend.requests();
        let answer = edge.ask(&post(path, most + 1));
        assert_eq!((answer.status, answer.problem().as_str()), (413, "body-too-large"), "{answer:?}");
        assert_eq!(backend.requests(), before, "what says itself that it is too long goes nowhere");
        let answer = edge.ask(&post(path, most + 1).chunked(4000));
        assert_eq!((answer.status, answer.problem().as_str()), (413, "body-too-large"), "{answer:?}");
    }
    assert_eq!(edge.ask(&post("/any", 3 * 1024 * 1024)).text(), (3 * 1024 * 1024).to_string());
}
