//! Connections at the front door: deadlines, limits on the head, and how connections end.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::json;

use super::edge;
use crate::harness::backend::After;
use crate::harness::purchase::purchase;
use crate::harness::{Backend, Edge, PATIENCE, Request, becomes, buy};

#[test]
fn a_head_has_one_deadline_however_it_trickles_in() {
    let (setup, _backend) = edge(json!({ "total": 9 }));
    let edge = setup.set("client", json!({ "read": "500ms", "keepalive": "10s" })).start();
    // One that we would answer, one that Pingora would, and one that Pingora would mend.
    for begin in ["GET /buy/ticket HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", "GET /a b HTTP/1.1\r\n", "G"] {
        for warm in [false, true] {
            let mut connection = edge.connect();
            if warm {
                assert_eq!(connection.ask(&Request::get("/sales/ticket")).status, 200);
                std::thread::sleep(Duration::from_millis(600));
            }
            let begun = Instant::now();
            connection.send(begin.as_bytes());
            while begun.elapsed() < Duration::from_secs(5) && connection.try_send(b"X").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
                if begun.elapsed() > Duration::from_millis(700) {
                    break;
                }
            }
            let answer = connection.answer();
            assert_eq!((answer.status, answer.text()), (408, "408 Request Timeout\n"), "{begin:?} {warm}");
            assert!(answer.closes());
            assert!(begun.elapsed().as_millis() >= 500, "{begin:?} {warm}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn silent_clients_are_disconnected_without_an_answer() {
    let (setup, _backend) = edge(json!({ "total": 9 }));
    let edge = setup.set("client", json!({ "read": "400ms", "keepalive": "3s" })).start();
    let begun = Instant::now();
    let mut silent = edge.connect();
    assert!(silent.is_closed_by_peer(PATIENCE));
    assert!(begun.elapsed().as_millis() >= 350);
    for target in ["/sales/ticket", "/elsewhere"] {
        let mut idle = edge.connect();
        for _ in 0..3 {
            assert_eq!(idle.ask(&Request::get(target)).status, 200);
            // Three pauses are longer than `keepalive`: it begins again with each request.
            std::thread::sleep(Duration::from_millis(1200));
        }
        let begun = Instant::now();
        assert!(idle.is_closed_by_peer(PATIENCE));
        assert!(begun.elapsed().as_millis() >= 150, "{target}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_head_may_be_long_but_not_endless() {
    let (setup, _backend) = edge(json!({ "total": 9 }));
    let edge = setup.start();
    for target in ["/sales/ticket", "/elsewhere"] {
        let answer = edge.ask(&Request::get(target).header("X-Long", &"x".repeat(30_000)));
        assert_eq!(answer.status, 200, "{target}");
        let mut connection = edge.connect();
        let long = Request::get(target).header("X-Long", &"x".repeat(1_000_000)).bytes();
        // It may be refused before all of it was sent.
        let _ = connection.try_send(&long);
        let answer = connection.answer();
        assert_eq!((answer.status, answer.closes()), (431, true), "{target}");
    }
}

#[test]
fn all_kinds_of_requests_share_a_connection() {
    let backend = Backend::start(|request| {
        let length = request.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        request.sum_of_body(length);
        request.answer("backend");
        After::KeepOpen
    });
    let (setup, _other) = edge(json!({ "total": 1000, "buyer": { "body": "buyer" } }));
    let edge = setup.upstream("load_rule", json!({ "servers": [{ "address": backend.address() }] })).start();
    let kinds = [
        Request::get("/sales/ticket"),
        Request::get("/elsewhere"),
        purchase(),
        Request::new("POST", "/elsewhere").body("text/plain", "x".repeat(5000)),
        Request::post("/buy/ticket").json(&json!({ "buyer": "alice" })),
        Request::get("/sales/ticket"),
        Request::post("/buy/ticket").json(&json!({ "buyer": "bob" })).chunked(3),
        Request::get("/buy/ticket"),
        Request::get("/elsewhere"),
        Request::get("/sales/ticket").http10().header("Connection", "keep-alive"),
    ];
    // One after the other, in one heap, and in pieces that end anywhere.
    let heap: Vec<u8> = kinds.iter().flat_map(Request::bytes).collect();
    for size in [heap.len(), 1, 7, 100, 1000, 4096] {
        let mut connection = edge.connect();
        let mut writer = connection.stream().try_clone().unwrap();
        let heap = heap.clone();
        let writing = std::thread::spawn(move || {
            for piece in heap.chunks(size) {
                writer.write_all(piece).unwrap();
                if size < heap.len() {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        });
        let statuses = kinds.iter().map(|_| {
            let answer = connection.try_answer();
            answer.unwrap_or_else(|error| panic!("in pieces of {size}: {error}")).status
        });
        let statuses: Vec<u16> = statuses.collect();
        assert_eq!(statuses, [200, 200, 201, 200, 201, 200, 201, 200, 200, 200], "in pieces of {size}");
        assert!(!connection.has_unread());
        writing.join().unwrap();
    }
    assert_eq!(edge.sold(), 4 * 6);
}

#[test]
fn a_client_that_closed_its_sending_side_is_answered() {
    let (setup, _backend) = edge(json!({ "total": 9 }));
    let edge = setup.start();
    for request in [Request::get("/sales/ticket"), purchase()] {
        let mut connection = edge.connect();
        connection.send(&request.bytes());
        connection.stream().shutdown(Shutdown::Write).unwrap();
        assert!([200, 201].contains(&connection.answer().status));
        assert!(connection.is_closed_by_peer(Duration::from_secs(5)));
    }
}

#[test]
fn a_client_that_reads_slowly_gets_every_answer() {
    let (setup, _backend) = edge(json!({ "total": 1 }));
    let edge = setup.start();
    assert!(buy(edge.address(), &purchase()).is_order());
    let mut connection = edge.connect();
    let mut writer = connection.stream().try_clone().unwrap();
    // Far more answers than the buffers of both sockets hold.
    let count = 100_000;
    let writing = std::thread::spawn(move || {
        let heap = Request::get("/buy/ticket").bytes().repeat(100);
        (0..count / 100).for_each(|_| writer.write_all(&heap).unwrap());
    });
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..count {
        assert_eq!(connection.answer().status, 200);
    }
    writing.join().unwrap();
    assert!(!connection.has_unread());
}

#[test]
fn idle_connections_do_not_keep_an_edge_from_ending() {
    let slow = Backend::start(|request| {
        std::thread::sleep(Duration::from_millis(700));
        request.answer("slow");
        After::KeepOpen
    });
    let setup = Edge::setup().proxies_to(json!({ "servers": [{ "address": slow.address() }] }));
    let mut edge = setup.ticket(json!({ "total": 9 })).set("shutdown", json!({ "grace": "1m" })).start();
    let mut fresh = edge.connect();
    let mut warm = edge.connect();
    assert_eq!(warm.ask(&Request::get("/sales/ticket")).status, 200);
    let mut proxied = edge.connect();
    assert_eq!(proxied.ask(&Request::get("/elsewhere")).status, 200);
    let mut busy = edge.connect();
    busy.send(&Request::get("/elsewhere").bytes());
    becomes("requests at the backend", 2, || slow.requests());

    edge.signal("TERM");
    // Each might have sent a request just now, and has a second for it. That is long before the grace ends.
    for idle in [&mut fresh, &mut warm, &mut proxied] {
        assert!(idle.is_closed_by_peer(PATIENCE));
    }
    let answer = busy.answer();
    assert_eq!(answer.text(), "slow");
    assert!(busy.is_closed_by_peer(PATIENCE));
    let (status, _) = edge.wait();
    assert!(status.success(), "{status}");
}
