//! Clients that are slow on purpose: the edge stops waiting for each of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::backend::After;
use crate::harness::purchase::purchase;
use crate::harness::{Backend, Edge, PATIENCE, Request, eventually};

/// Sends a byte every 100 ms until that fails or an answer comes, which must be within [`PATIENCE`].
#[track_caller]
fn trickle(stream: &mut TcpStream, byte: u8) {
    let begun = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    loop {
        let sent = stream.write_all(&[byte]);
        let came = stream.read(&mut [0; 1024]);
        let is_silent = came
            .as_ref()
            .is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
        if sent.is_err() || !is_silent {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the edge waits for ever");
    }
}

#[test]
fn a_purchases_body_has_one_deadline_however_it_trickles_in() {
    let edge = Edge::setup().set("client", json!({ "read": "1s" })).ticket(json!({ "total": 10 })).start();
    for head in [
        "POST /buy/ticket HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n",
        "POST /buy/ticket HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nf00\r\n",
    ] {
        let mut connection = edge.connect();
        connection.send(head.as_bytes());
        trickle(connection.stream(), b' ');
    }
    assert_eq!(edge.sold(), 0);
}

#[test]
fn a_head_behind_chunks_has_one_deadline_too() {
    let edge =
        Edge::setup().set("client", json!({ "read": "1s", "keepalive": "1s" })).ticket(json!({ "total": 10 })).start();
    let mut connection = edge.connect();
    let chunked = purchase().json(&json!({ "quantity": 1 })).chunked(4);
    assert_eq!(connection.ask(&chunked).status, 201);
    connection.send(b"GET /sales/ticket HTTP/1.1\r\nX: ");
    trickle(connection.stream(), b'x');
}

#[test]
fn clients_that_never_read_are_disconnected_and_cost_little_memory() {
    const LARGE: usize = 20 * 1024 * 1024;
    let backend = Backend::start(|request| {
        request.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes());
        for _ in 0..LARGE / 65536 {
            request.send(&[3; 65536]);
        }
        After::Close
    });
    let edge = Edge::setup()
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .set("client", json!({ "send": "1s", "keepalive": "1s" }))
        .ticket(json!({ "total": 10 }))
        .start();
    let before = edge.peak_memory_kib();
    let mut deaf: Vec<_> = (0..20).map(|_| edge.connect()).collect();
    deaf.iter_mut().for_each(|connection| connection.send(&Request::get("/large").bytes()));
    // And those who ask without end, and read none of the answers.
    let mut greedy: Vec<_> = (0..5).map(|_| edge.connect()).collect();
    for connection in &mut greedy {
        connection.stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let heap = Request::get("/sales/ticket").bytes().repeat(500);
        while connection.try_send(&heap).is_ok() {}
    }
    eventually("all of them are let go", || (edge.metric("spikegate_connections", "") == 0).then_some(()));
    let grown_kib = edge.peak_memory_kib() - before;
    assert!(grown_kib < 64 * 1024, "25 who do not read took {grown_kib} KiB");
}
