//! Message boundaries: where a request or an answer ends, and which connections to backends are used again.

use std::cell::RefCell;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::harness::backend::After;
use crate::harness::client::everything;
use crate::harness::recorder::Recorder;
use crate::harness::{Backend, Connection, Edge, Nginx, Request};

/// How an upload is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Http10,
    Http11 { chunk: Option<usize> },
    Http2 { has_length: bool, end: End },
}

/// How a stream of HTTP/2 ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    LastData,
    EmptyData,
    Trailers,
}

/// An upload of one client, which may leave in the middle.
#[derive(Debug, Clone)]
struct Upload {
    way: Way,
    parts: Vec<Vec<u8>>,
    /// How many of the parts are sent before the client leaves, if it does.
    leaves_after: Option<usize>,
    is_answered_early: bool,
}

impl Upload {
    fn whole(way: Way, parts: &[&str]) -> Self {
        let parts = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        Self { way, parts, leaves_after: None, is_answered_early: false }
    }

    fn path(&self) -> &'static str {
        if self.is_answered_early { "/early" } else { "/up" }
    }

    fn sent(&self) -> &[Vec<u8>] {
        &self.parts[..self.leaves_after.map_or(self.parts.len(), |parts| parts.min(self.parts.len()))]
    }

    /// The status of its answer, if the client stays for it.
    fn send(&self, edge: SocketAddr, runtime: &Runtime) -> Option<u16> {
        match self.way {
            Way::Http10 => self.send_http1(edge, None, true),
            Way::Http11 { chunk } => self.send_http1(edge, chunk, false),
            Way::Http2 { has_length, end } => runtime.block_on(self.send_http2(edge, has_length, end)),
        }
    }

    fn send_http1(&self, edge: SocketAddr, chunk: Option<usize>, is_http10: bool) -> Option<u16> {
        let request = Request::post(self.path()).body("text/plain", self.parts.concat());
        let request = if is_http10 { request.http10() } else { request };
        let request = if let Some(chunk) = chunk { request.chunked(chunk) } else { request };
        let bytes = request.bytes();
        let mut connection = Connection::to(edge);
        if self.leaves_after.is_some() {
            // At least one byte is missing.
            let body = self.sent().concat().len();
            let head = request.head_bytes().len();
            connection.send(&bytes[..(head + body).min(bytes.len() - 1)]);
            if self.is_answered_early && !self.parts.concat().is_empty() {
                assert_eq!(connection.answer().status, 200);
            }
            return None;
        }
        connection.send(&bytes);
        Some(connection.answer().status)
    }

    async fn send_http2(&self, edge: SocketAddr, has_length: bool, end: End) -> Option<u16> {
        let (send, connection) = h2::client::handshake(TcpStream::connect(edge).await.unwrap()).await.unwrap();
        let driver = tokio::spawn(connection);
        let uri = format!("http://tickets.example{}", self.path());
        let mut request = http::Request::builder().version(Version::HTTP_2).method(Method::POST).uri(uri);
        if has_length {
            request = request.header("content-length", self.parts.concat().len());
        }
        let (answer, mut body) = send.ready().await.unwrap().send_request(request.body(()).unwrap(), false).unwrap();
        let last = self.sent().len().checked_sub(1).filter(|_| self.leaves_after.is_none());
        for (number, part) in self.sent().iter().enumerate() {
            let ends = end == End::LastData && Some(number) == last;
            body.send_data(Bytes::from(part.clone()), ends).unwrap();
        }
        if self.leaves_after.is_some() {
            if self.is_answered_early {
                assert_eq!(answer.await.unwrap().status(), 200);
            }
            body.send_reset(h2::Reason::CANCEL);
            drop((body, send_ended(driver)));
            return None;
        }
        match end {
            End::LastData if last.is_some() => {}
            End::LastData | End::EmptyData => body.send_data(Bytes::new(), true).unwrap(),
            End::Trailers => {
                let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
                body.send_trailers(trailers).unwrap();
            }
        }
        let status = answer.await.unwrap().status().as_u16();
        driver.abort();
        Some(status)
    }
}

/// Ends a connection of HTTP/2 without a word more.
fn send_ended(driver: tokio::task::JoinHandle<Result<(), h2::Error>>) {
    driver.abort();
}

fn way() -> impl Strategy<Value = Way> {
    let end = prop_oneof![Just(End::LastData), Just(End::EmptyData), Just(End::Trailers)];
    prop_oneof![
        1 => Just(Way::Http10),
        2 => proptest::option::of(1..2_000usize).prop_map(|chunk| Way::Http11 { chunk }),
        4 => (any::<bool>(), end).prop_map(|(has_length, end)| Way::Http2 { has_length, end }),
    ]
}

fn upload() -> impl Strategy<Value = Upload> {
    let part = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => (0..9_000usize).prop_map(|length| vec![b'\n'; length]),
        1 => Just(b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        1 => Just(b"0\r\n\r\n".to_vec()),
    ];
    let parts = proptest::collection::vec(part, 0..5);
    let leaves_after = prop_oneof![3 => Just(None), 1 => (0..5usize).prop_map(Some)];
    (way(), parts, leaves_after, any::<bool>()).prop_map(|(way, parts, leaves_after, is_answered_early)| Upload {
        way,
        parts,
        leaves_after,
        is_answered_early,
    })
}

fn edge(backend: SocketAddr) -> Edge {
    let timeouts = json!({ "read": "10s" });
    Edge::setup()
        .listener(json!({ "h2c": true }))
        .proxies_to(json!({ "servers": [{ "address": backend }], "timeouts": timeouts }))
        .start()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// All at once and one after the other, so that every one of them follows another on a pooled connection.
fn ways() -> Vec<Way> {
    let mut ways = vec![Way::Http10, Way::Http11 { chunk: None }, Way::Http11 { chunk: Some(3) }];
    for has_length in [false, true] {
        ways.extend([End::LastData, End::EmptyData, End::Trailers].map(|end| Way::Http2 { has_length, end }));
    }
    ways
}

#[test]
fn an_upload_is_one_message_and_leaves_its_connection_clean() {
    let recorder = Recorder::start();
    let edge = edge(recorder.address());
    let runtime = runtime();
    let mut other = edge.connect();
    for way in ways() {
        for parts in [&["hello"][..], &["hel", "lo"], &["", "hello", ""], &[""], &[]] {
            let upload = Upload::whole(way, parts);
            assert_eq!(upload.send(edge.address(), &runtime), Some(200), "{upload:?}");
            assert_eq!(other.ask(&Request::get("/other")).status, 200, "after {upload:?}");
            let seen = recorder.requests();
            assert_eq!(seen[seen.len() - 2].body, parts.concat().as_bytes(), "{upload:?}");
        }
    }
    // A client may be answered a moment before its connection is back in the pool.
    assert!(recorder.connections() < 20, "clean connections are used again: {}", recorder.connections());
}

/// The client of a request is the only one who meets what is wrong with it.
#[test]
fn no_client_meets_what_another_sent() {
    let recorder = Recorder::start();
    let nginx = Nginx::start(|address| {
        format!("events {{}}\nhttp {{\n    server {{ listen {address}; location / {{ return 200 ok; }} }}\n}}\n")
    });
    let edges = [edge(recorder.address()), edge(nginx.address())];
    let runtime = runtime();
    let others = RefCell::new(edges.each_ref().map(Edge::connect));
    // A fault stays with the backend that saw it, so smaller inputs cannot be tried after it.
    let config = Config { cases: 150, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&upload(), |upload| {
        for (edge, other) in edges.iter().zip(others.borrow_mut().iter_mut()) {
            let status = upload.send(edge.address(), &runtime);
            prop_assert!(matches!(status, None | Some(200)), "{status:?}");
            let answer = other.ask(&Request::get("/other"));
            prop_assert_eq!(answer.status, 200, "another client");
        }
        let seen = recorder.requests();
        // What is answered early is read later.
        if upload.leaves_after.is_none() && !upload.is_answered_early {
            prop_assert_eq!(&seen[seen.len() - 2].body, &upload.parts.concat());
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// As nginx: an answer has one length, or it is none.
#[test]
fn an_answer_has_one_length() {
    let backend = Backend::start(|request| {
        let fields = request.header("x-fields").unwrap().replace('|', "\r\n");
        request.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok").as_bytes());
        After::KeepOpen
    });
    let edge = edge(backend.address());
    for (fields, expected) in [
        ("Content-Length: 2", 200),
        ("Content-Length:2 ", 200),
        ("Content-Length: 2, 2", 200),
        ("Content-Length: 2,2,2", 200),
        ("Content-Length: 2|Content-Length: 2", 200),
        ("Content-Length: 2, 3", 502),
        ("Content-Length: 2|Content-Length: 3", 502),
        ("Content-Length: 2,", 502),
        ("Content-Length: +2", 502),
        ("Content-Length: -2", 502),
        ("Content-Length: 0x2", 502),
        ("Content-Length: 2 2", 502),
        ("Content-Length:", 502),
        ("Content-Length: 18446744073709551618", 502),
    ] {
        let answer = edge.ask(&Request::get("/").header("X-Fields", fields));
        assert_eq!(answer.status, expected, "{fields}");
        if expected == 200 {
            assert_eq!(answer.text(), "ok", "{fields}");
            let lengths = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            assert_eq!(lengths.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["2"], "{fields}");
        }
    }
}

#[test]
fn only_clients_of_http_1_1_get_interim_answers() {
    let backend = Backend::start(|request| {
        assert_eq!(request.header("expect"), None);
        for interim in ["100 Continue", "102 Processing", "103 Early Hints"] {
            request.send(format!("HTTP/1.1 {interim}\r\nLink: </a>\r\n\r\n").as_bytes());
        }
        request.answer("backend");
        After::KeepOpen
    });
    let edge = Edge::setup()
        .ticket(json!({ "total": 10 }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .start();
    let ask = |target: &str, version: &str, lines: &str| {
        let method = if lines.is_empty() { "GET" } else { "POST" };
        let head = format!("{method} {target} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
        let body = if lines.is_empty() { "" } else { "{}" };
        String::from_utf8(everything(edge.address(), (head + body).as_bytes())).unwrap()
    };
    let body = "Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n";
    for (target, lines) in [("/", ""), ("/", body), ("/buy/ticket", body)] {
        let answer = ask(target, "1.0", lines);
        assert!(answer.starts_with("HTTP/1.1 20"), "{target} {lines}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{target} {lines}: {answer}");
    }
    let answer = ask("/", "1.1", "");
    assert!(answer.contains("HTTP/1.1 103 Early Hints\r\nLink: </a>"), "{answer}");
    assert!(ask("/buy/ticket", "1.1", body).starts_with("HTTP/1.1 100 Continue\r\n\r\n"));
}

/// What a client does wrong is logged as its own, below the level of what an operator has to mend.
#[test]
fn a_client_that_sends_half_a_body_or_bad_chunks_is_to_blame() {
    let recorder = Recorder::start();
    let edge = || {
        Edge::setup()
            .ticket(json!({ "total": 10 }))
            .proxies_to(json!({ "servers": [{ "address": recorder.address() }] }))
            .first_route(json!({ "path": "/denied", "upstream": "load_rule", "deny": ["127.0.0.0/8"] }))
            .environment(&[("RUST_LOG".to_owned(), "spikegate=debug".to_owned())])
            .start()
    };
    // Lines of one kind are at most one a second, so each case has an edge of its own.
    for (path, refused) in [("/buy/ticket", None), ("/up", None), ("/sales/ticket", Some(405)), ("/denied", Some(403))]
    {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
        for body in ["Content-Length: 2\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n2\r\n{"] {
            let edge = edge();
            edge.connect().send(format!("{head}{body}").as_bytes());
            edge.wait_for_log(&format!("499 POST {path}"));
            assert!(!edge.log().contains("ERROR"), "{}", edge.log());
        }
        let edge = edge();
        for chunks in ["x\r\n{}\r\n0\r\n\r\n", "+2\r\n{}\r\n0\r\n\r\n", "2\r\n{}x\r\n0\r\n\r\n"] {
            let mut connection = edge.connect();
            connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes());
            assert_eq!(connection.answer().status, refused.unwrap_or(400), "{path} {chunks:?}");
        }
        edge.wait_for_log(&format!("400 POST {path}"));
        assert!(!edge.log().contains("ERROR"), "{}", edge.log());
    }
}
