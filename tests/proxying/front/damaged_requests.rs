//! Damaged and forged requests, each followed by a second request, the marker. The marker is answered as itself, or not
//! at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::{edge, everything};
use crate::harness::Edge;

const HEADS: [&str; 8] = [
    "GET /sales/ticket HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /elsewhere HTTP/1.1\r\nHost: a\r\nX-User-Id: alice\r\n\r\n",
    "POST /buy/ticket HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "POST /elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /elsewhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /buy/ticket HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET http://a/sales/ticket HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /sales/ticket HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
];

const PIECES: [&str; 24] = [
    "\r",
    "\n",
    "\r\n",
    "\0",
    ":",
    " ",
    "\t",
    "\u{b}",
    "\n\n",
    "\r\n ",
    "\r\n\r\n",
    "0\r\n\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 44\r\n",
    "Content-Length : 44\r\n",
    "Content-Length: +44\r\n",
    "Content-Length: 44\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding:\u{b}chunked\r\n",
    "Transfer-Encoding: x\r\n",
    "Host: b\r\n",
    "Expect: 100-continue\r\n",
    "X: y\n",
];

/// The last request. Only its answer contains `marker`.
const MARKERS: [&str; 2] = [
    "GET /sales/marker HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET /marker HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
];

#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Cut(Index, usize),
    Insert(Index, &'static str),
    /// A piece in front of one of the lines.
    Line(Index, &'static str),
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    match mutation {
        Mutation::Flip(at, bits) => {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        Mutation::Cut(at, size) => {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + size).min(bytes.len()));
        }
        Mutation::Insert(at, piece) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, piece.bytes());
        }
        Mutation::Line(at, piece) => {
            let lines: Vec<usize> = (2..bytes.len()).filter(|at| bytes[..*at].ends_with(b"\r\n")).collect();
            if !lines.is_empty() {
                let at = lines[at.index(lines.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
}

/// The answers in what came back, each as its status and its body; what is no answer is a fault.
fn answers(mut text: &str) -> Vec<(u16, &str)> {
    let mut answers = Vec::new();
    while !text.is_empty() {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let status: u16 =
            head.strip_prefix("HTTP/1.1 ").and_then(|line| line[..3].parse().ok()).expect("a status line");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        // A HEAD is answered without the body that is announced.
        let length = if rest.starts_with("HTTP/1.1 ") || rest.is_empty() { 0 } else { length };
        answers.push((status, rest.get(..length).unwrap_or_else(|| panic!("no body: {text:?}"))));
        text = &rest[length..];
    }
    answers
}

/// A backend that is content with anything: it reads to the end of a request if it can tell where that is, and for a
/// moment otherwise. One request for each connection.
fn tolerant() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    let is_whole = |all: &[u8]| {
        let text = String::from_utf8_lossy(all).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if head.contains("chunked") { body.ends_with("0\r\n\r\n") } else { body.len() >= length.unwrap_or(0) }
    };
    while !is_whole(&all) {
        match stream.read(&mut piece) {
            Ok(length @ 1..) => all.extend_from_slice(&piece[..length]),
            _ => break,
        }
    }
    let body = if all.starts_with(b"GET /marker ") { "marker" } else { "backend" };
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}

#[test]
fn no_damage_makes_one_request_out_of_two() {
    let (setup, _other) = edge(json!({ "total": 1_000_000 }));
    let sales = json!({
        "ticket": { "path": "/buy/ticket", "total": 1_000_000, "seed_dialect": true },
        "marker": { "path": "/buy/marker", "total": 1 },
    });
    let setup = setup.set("sales", sales).set("client", json!({ "read": "300ms", "keepalive": "300ms" }));
    let setup = setup.upstream("load_rule", json!({ "servers": [{ "address": tolerant() }] }));
    let edge = setup.start();

    for head in HEADS {
        check(&edge, head.as_bytes(), 0, true);
        check(&edge, head.as_bytes(), 1, true);
    }
    let mutation = prop_oneof![
        (any::<Index>(), 1..=255u8).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (any::<Index>(), 1..8usize).prop_map(|(at, size)| Mutation::Cut(at, size)),
        (any::<Index>(), select(&PIECES[..])).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (any::<Index>(), select(&PIECES[..])).prop_map(|(at, piece)| Mutation::Line(at, piece)),
    ];
    let case = (select(&HEADS[..]), prop::collection::vec(mutation, 1..4), 0..2usize);
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&case, |(head, mutations, marker)| {
        let mut bytes = head.as_bytes().to_vec();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        check(&edge, &bytes, marker, false);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

fn check(edge: &Edge, first: &[u8], marker: usize, is_sound: bool) {
    let all = everything(edge.address(), &[first, MARKERS[marker].as_bytes()].concat());
    let answers = answers(&all);
    let is_marker = |(status, body): &(u16, &str)| *status == 200 && body.contains("marker");
    let at = answers.iter().position(is_marker);
    assert!(at.is_none_or(|at| at + 1 == answers.len()), "an answer behind the last: {} {all}", first.escape_ascii());
    // Whatever was not answered 200 as itself was refused, and the connection ended there. Only a body whose frame is
    // damaged may lawfully take the marker in, or be answered before it is found to be broken; then nothing may follow.
    let text = String::from_utf8_lossy(first).to_ascii_lowercase();
    let may_take_in = !is_sound && (text.contains("chunked") || text.contains("content-length"));
    let broke = |(status, _): &(u16, &str)| *status != 200 || all.contains("Connection: close");
    let ended = answers.last().is_none_or(broke) || may_take_in;
    assert!(at.is_some() || ended, "{} {all}", first.escape_ascii());
    assert!(at.is_some() || !is_sound || all.contains("Connection: close"), "{} {all}", first.escape_ascii());
}
