//! Proxied requests: what the edge changes on the way to a backend and back, and what it answers when a backend fails.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::backend::After;
use crate::harness::process::free_address;
use crate::harness::{Answer, Backend, Connection, Edge, Request};

fn one(address: SocketAddr) -> Value {
    json!({ "servers": [{ "address": address }] })
}

/// A request line and headers.
type Head = (String, Vec<(String, String)>);

/// A backend that keeps the heads of the requests that it got, and an edge in front of it.
struct Recorded {
    edge: Edge,
    heads: Arc<Mutex<Vec<Head>>>,
    _backend: Backend,
}

impl Recorded {
    fn with(settings: Value) -> Self {
        let heads = Arc::<Mutex<Vec<_>>>::default();
        let own = Arc::clone(&heads);
        let backend = Backend::start(move |request| {
            own.lock().unwrap().push((request.line.clone(), request.headers.clone()));
            request.answer("recorded");
            After::KeepOpen
        });
        let mut upstream = one(backend.address());
        upstream.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        Self { edge: Edge::setup().proxies_to(upstream).start(), heads, _backend: backend }
    }

    /// The request line and the headers, in lower case, that the backend got for this request.
    fn ask(&self, connection: &mut Connection, request: &Request) -> Head {
        assert_eq!(connection.ask(request).text(), "recorded");
        let (line, headers) = self.heads.lock().unwrap().pop().unwrap();
        (line, headers.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect())
    }
}

/// All values of a header.
fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_backend_is_told_who_asks_for_what() {
    let recorded = Recorded::with(json!({}));
    let client: IpAddr = Ipv4Addr::new(127, 0, 0, 77).into();
    let mut connection = Connection::from(client, recorded.edge.address());

    let request = Request::get("/a/b?c=d%20e&f").header("X-Own", "kept");
    let (line, headers) = recorded.ask(&mut connection, &request);
    assert_eq!(line, "GET /a/b?c=d%20e&f HTTP/1.1");
    assert_eq!(values(&headers, "host"), ["load_rule"], "as Nginx: the group's name");
    assert_eq!(values(&headers, "x-forwarded-host"), ["tickets.example"]);
    assert_eq!(values(&headers, "x-forwarded-for"), ["127.0.0.77"]);
    assert_eq!(values(&headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&headers, "x-real-ip"), ["127.0.0.77"]);
    assert_eq!(values(&headers, "x-own"), ["kept"]);

    let request = Request::get("/").header("X-Forwarded-For", "10.0.0.1").header("X-Real-IP", "10.0.0.1");
    let (_, headers) = recorded.ask(&mut connection, &request);
    assert_eq!(values(&headers, "x-forwarded-for"), ["127.0.0.77"], "who asks cannot be feigned");
    assert_eq!(values(&headers, "x-real-ip"), ["127.0.0.77"]);
}

#[test]
fn what_concerns_one_connection_stays_on_it() {
    let recorded = Recorded::with(json!({}));
    let request = Request::get("/").header("Connection", "keep-alive, X-Private").header("X-Private", "1");
    let request = request.header("Keep-Alive", "timeout=5").header("TE", "trailers").header("Proxy-Connection", "x");
    let (_, headers) = recorded.ask(&mut recorded.edge.connect(), &request);
    for name in ["x-private", "keep-alive", "proxy-connection"] {
        assert_eq!(values(&headers, name), [""; 0], "{name} goes no further");
    }
}

#[test]
fn a_backend_sees_the_host_that_the_settings_say() {
    let client = Recorded::with(json!({ "host_header": "client" }));
    let mut connection = client.edge.connect();
    let (_, headers) = client.ask(&mut connection, &Request::get("/"));
    assert_eq!(values(&headers, "host"), ["tickets.example"]);
    let (_, headers) = client.ask(&mut connection, &Request::get("/").http10());
    assert_eq!(values(&headers, "host"), ["load_rule"], "a client that sends none");

    let literal = Recorded::with(json!({ "host_header": "www.example.com" }));
    let (_, headers) = literal.ask(&mut literal.edge.connect(), &Request::get("/"));
    assert_eq!(values(&headers, "host"), ["www.example.com"]);
}

#[test]
fn a_client_of_http_1_0_without_host_is_served() {
    let recorded = Recorded::with(json!({}));
    let mut connection = recorded.edge.connect();
    connection.send(&Request::get("/old").http10().bytes());
    let answer = connection.answer();
    assert_eq!((answer.status, answer.text()), (200, "recorded"));
    assert!(connection.is_closed_by_peer(Duration::from_secs(5)), "an HTTP/1.0 connection ends with its answer");

    let mut connection = recorded.edge.connect();
    connection.send(&Request::get("/old").http10().header("Connection", "keep-alive").bytes());
    let answer = connection.answer();
    assert_eq!(answer.header("connection").map(str::to_lowercase).as_deref(), Some("keep-alive"), "{answer:?}");
    assert_eq!(connection.ask(&Request::get("/old").http10()).text(), "recorded", "unless it was asked to be kept");
}

#[test]
fn routes_go_by_host_and_path_and_the_first_that_matches_is_taken() {
    let backends = ["shop", "api", "rest"].map(Backend::named);
    let mut setup = Edge::setup();
    for (name, backend) in ["shop", "api", "rest"].iter().zip(&backends) {
        setup = setup.upstream(name, one(backend.address()));
    }
    let edge = setup
        .route(json!({ "hosts": ["api.example"], "path": "/v1", "upstream": "api" }))
        .route(json!({ "path": "/shop", "upstream": "shop" }))
        .route(json!({ "hosts": ["api.example", "www.example"], "path": "/", "upstream": "rest" }))
        .start();
    let ask = |host: &str, path: &str| edge.ask(&Request::get(path).without("Host").header("Host", host));
    for (host, path, expected) in [
        ("api.example", "/v1", "api"),
        ("api.example", "/v1/x?y", "api"),
        ("API.Example:8080", "/v1/x", "api"),
        ("api.example", "/v12", "rest"),
        ("elsewhere.example", "/shop/cart", "shop"),
        ("www.example", "/shop", "shop"),
        ("www.example", "/shopping", "rest"),
    ] {
        assert_eq!(ask(host, path).text(), expected, "{host}{path}");
    }
    let nowhere = ask("elsewhere.example", "/shopping");
    assert_eq!(nowhere.status, 404, "{nowhere:?}");
}

#[test]
fn an_answer_in_chunks_reaches_every_kind_of_client() {
    let backend = Backend::start(|request| {
        request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nchunk \r\n5\r\nafter\r\n");
        request.send(b"6\r\n chunk\r\n0\r\n\r\n");
        After::KeepOpen
    });
    let edge = Edge::setup().proxies_to(one(backend.address())).start();

    let answer = edge.ask(&Request::get("/"));
    assert_eq!(answer.text(), "chunk after chunk");
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));

    let mut connection = edge.connect();
    connection.send(&Request::get("/").http10().bytes());
    let answer = connection.answer();
    assert_eq!(answer.text(), "chunk after chunk", "HTTP/1.0 knows no chunks: {answer:?}");
    assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
    assert!(connection.is_closed_by_peer(Duration::from_secs(5)), "and its end is the connection's");
}

/// The most that may be kept of a body on its way, with room for the buffers of sockets and allocator.
const MEMORY_OF_A_STREAM_KIB: u64 = 24 * 1024;
const LARGE: usize = 50 * 1024 * 1024;

#[test]
fn fifty_megabytes_stream_through_both_ways_in_little_memory() {
    let backend = Backend::start(|request| {
        if request.line.starts_with("POST") {
            let length = request.header("content-length").unwrap().parse().unwrap();
            let sum = request.sum_of_body(length);
            request.answer(&format!("{length} {sum}"));
        } else {
            request.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes());
            for _ in 0..LARGE / 65536 {
                request.send(&[3; 65536]);
            }
        }
        After::KeepOpen
    });
    let route = json!({ "path": "/", "upstream": "load_rule", "max_body": 0 });
    let edge = Edge::setup().upstream("load_rule", one(backend.address())).route(route).start();
    assert_eq!(edge.ask(&Request::post("/").body("text/plain", "warm")).text(), "4 439");
    let before = edge.peak_memory_kib();

    let mut connection = edge.connect();
    connection.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes());
    for _ in 0..LARGE / 65536 {
        connection.send(&[7; 65536]);
    }
    assert_eq!(connection.answer().text(), format!("{LARGE} {}", LARGE * 7), "all of it, unchanged");

    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // A client that is slow at first: what it does not take must wait at the backend, not in the edge.
    std::thread::sleep(Duration::from_millis(500));
    let answer = connection.answer();
    assert_eq!(answer.body.len(), LARGE);
    assert!(answer.body.iter().all(|byte| *byte == 3), "all of it, unchanged");

    let grown = edge.peak_memory_kib() - before;
    assert!(grown < MEMORY_OF_A_STREAM_KIB, "the edge grew by {grown} KiB");
}

#[test]
fn an_upgraded_connection_carries_whatever_both_sides_say() {
    let backend = Backend::start(|request| {
        assert_eq!(request.header("upgrade").map(str::to_lowercase).as_deref(), Some("websocket"));
        assert_eq!(request.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        request.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
        request.send(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello");
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = request.stream.read(&mut piece) {
            if request.stream.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        After::Close
    });
    let edge = Edge::setup().proxies_to(one(backend.address())).start();
    let mut connection = edge.connect();
    let request = Request::get("/chat").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let request = request.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").header("Sec-WebSocket-Version", "13");
    connection.send(&request.bytes());

    let answer = connection.answer();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(connection.read_exactly(5), b"hello", "the backend may speak first");
    for round in 0..100_u32 {
        let frame: Vec<u8> = (0..1000).map(|byte| (byte * 31 + round) as u8).collect();
        connection.send(&frame);
        assert_eq!(connection.read_exactly(frame.len()), frame, "in round {round}");
    }
}

/// The answer names the failure in a few words, and reveals nothing about the backends.
#[track_caller]
fn is_a_plain_failure(answer: &Answer, status: u16, backend: SocketAddr) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    assert!(!answer.body.is_empty() && answer.body.len() < 300, "a short word for a person: {answer:?}");
    let all = format!("{answer:?} {}", answer.text()).to_lowercase();
    for leak in ["pingora", "127.0.0.1", "refused", &backend.port().to_string()] {
        assert!(!all.contains(leak), "{leak} is nobody's business: {all}");
    }
}

#[test]
fn no_backend_to_be_reached_is_502() {
    let dead = free_address();
    let edge = Edge::setup().proxies_to(one(dead)).start();
    let mut connection = edge.connect();
    is_a_plain_failure(&connection.ask(&Request::get("/")), 502, dead);
}

#[test]
fn a_backend_that_talks_nonsense_is_502() {
    let backend = Backend::start(|request| {
        request.send(b"nonsense\r\n\r\n");
        After::Close
    });
    let edge = Edge::setup().proxies_to(one(backend.address())).start();
    is_a_plain_failure(&edge.ask(&Request::get("/")), 502, backend.address());
}

#[test]
fn no_backend_in_health_is_503() {
    let dead = free_address();
    let check = json!({ "type": "tcp", "interval": "100ms", "fall": 1 });
    let edge = Edge::setup().proxies_to(json!({ "servers": [{ "address": dead }], "health_check": check })).start();
    crate::harness::eventually("the check has found it dead", || {
        (edge.ask(&Request::get("/")).status != 502).then_some(())
    });
    is_a_plain_failure(&edge.ask(&Request::get("/")), 503, dead);
}

#[test]
fn a_backend_that_says_nothing_in_time_is_504() {
    // Reads until the edge gives up.
    let backend = Backend::start(|request| {
        request.rest_of_connection();
        After::Close
    });
    let mut upstream = one(backend.address());
    upstream["timeouts"] = json!({ "read": "300ms" });
    let edge = Edge::setup().proxies_to(upstream).start();
    let begun = Instant::now();
    is_a_plain_failure(&edge.ask(&Request::get("/")), 504, backend.address());
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300), "it took {took:?}");
}

#[test]
fn a_request_that_may_have_been_done_is_not_sent_to_another_backend() {
    // Both hang up on a POST after they have read it: a second one would be a second order.
    let hang_up = || Backend::start(|_request| After::Close);
    let backends = [hang_up(), hang_up()];
    let servers = backends.each_ref().map(|backend| json!({ "address": backend.address() }));
    let edge = Edge::setup().proxies_to(json!({ "servers": servers })).start();

    let answer = edge.ask(&Request::post("/pay").body("text/plain", "once"));
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(backends.iter().map(Backend::requests).sum::<usize>(), 1);
}
