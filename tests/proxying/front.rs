//! The front door and Pingora give the same answers, and no request is read as two.

mod damaged_requests;
mod door;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::client;
use crate::harness::edge::Setup;
use crate::harness::purchase::purchase;
use crate::harness::{Backend, Edge, Request, buy, eventually};

/// More fields than the front door looks at, so that Pingora gets the request; they mean nothing to anybody.
fn behind_the_door(request: &Request) -> Request {
    (0..80).fold(request.clone(), |request, n| request.header(&format!("X-Filler-{n}"), "1"))
}

/// The last request of a connection.
const LAST: &str = "GET /sales/ticket HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// All that comes back for `bytes`; the date, which may change at any moment, is left out.
fn everything(address: SocketAddr, bytes: &[u8]) -> String {
    let text = String::from_utf8(client::everything(address, bytes)).unwrap();
    let lines = text.split_inclusive("\r\n").map(|line| if line.starts_with("Date: ") { "Date\r\n" } else { line });
    lines.collect()
}

/// Asks both ways, in either order; what only the passing of time can change is asked again.
fn same_both_ways(edge: &Edge, request: &Request) -> String {
    let mut differences = Vec::new();
    for _ in 0..3 {
        // The answer to the last request shows what became of the connection.
        let [front, behind] = [request.clone(), behind_the_door(request)]
            .map(|request| everything(edge.address(), &[&request.bytes(), LAST.as_bytes()].concat()));
        if front == behind {
            return front;
        }
        differences.push((front, behind));
    }
    panic!("{request:#?}: {differences:#?}");
}

/// An edge with the article's dialect, and buyers named by a header unless `ticket` says otherwise.
fn edge(ticket: Value) -> (Setup, Backend) {
    let backend = Backend::named("backend");
    let mut settings = json!({ "seed_dialect": true, "buyer": { "header": "X-User-Id" } });
    settings.as_object_mut().unwrap().extend(ticket.as_object().unwrap().clone());
    let setup = Edge::setup().proxies_to(json!({ "servers": [{ "address": backend.address() }] })).ticket(settings);
    (setup, backend)
}

/// Requests of many kinds, most of them wrong in some way. `state` makes keys that no other state has.
fn requests(state: &str) -> Vec<Request> {
    let mut all = Vec::new();
    let targets = [
        "/buy/ticket",
        "/buy/ticket?quantity=2",
        "/buy/ticket?quantity=1000000",
        "/buy/ticket?quantity=0",
        "/buy/ticket?quantity=%zz&x=y",
        "/buy/ticket?quantity=1&quantity=2",
        "/buy/ticket?",
        "/buy/ticket/",
        "/sales/ticket",
        "/sales/ticket?x",
        "/sales/other",
        "/sales/ticket/orders/0123",
        "/sales/ticket/orders/00000000000000000000000000000000",
    ];
    for method in ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for target in targets {
            let name = format!("{state}-{method}-{target}").replace(|byte: char| !byte.is_ascii_alphanumeric(), "-");
            let request = Request::new(method, target).header("Idempotency-Key", &name);
            all.push(request.clone().header("Connection", "close"));
            all.push(request.clone().header("X-User-Id", "alice"));
            all.push(request.clone().http10());
            all.push(request.http10().header("Connection", "Keep-Alive"));
        }
    }
    for key in ["", "\"", "\"a\"b", "k\u{fc}", "a b", &"k".repeat(256)] {
        all.push(purchase().header("Idempotency-Key", key));
    }
    all.push(purchase().header("X-User-Id", &"u".repeat(129)));
    all.push(purchase().header("X-User-Id", "alice").header("X-User-Id", "bob"));
    all.push(purchase().header("Connection", "keep-alive, x").header("Idempotency-Key", state));
    all.push(purchase().without("Host"));
    all.push(purchase().header("Host", "b"));
    all.push(purchase().without("Host").header("Host", "a@b"));
    all.push(purchase().header("Content-Length", "0").header("Idempotency-Key", &format!("{state}-twice")));
    all.push(purchase().json(&json!({ "idempotency_key": format!("{state}-body") })));
    all.push(purchase().json(&json!({ "quantity": 0 })).chunked(3));
    all
}

#[test]
fn both_ways_answer_the_same_in_every_state_of_a_sale() {
    let check = |state: &str, edge: &Edge| {
        let answers: Vec<String> = requests(state).iter().map(|request| same_both_ways(edge, request)).collect();
        assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 ")), "{answers:?}");
        answers
    };
    let told = |answers: &[String], what: &str| assert!(answers.iter().any(|answer| answer.contains(what)), "{what}");

    let (setup, _backend) = edge(json!({ "total": 1_000_000 }));
    let open = setup.start();
    let answers = check("open", &open);
    ["\"code\":1,", "201 Created", "\"code\":-7", "bad-request", "404", "405"]
        .iter()
        .for_each(|what| told(&answers, what));
    assert!(buy(open.address(), &purchase().header("Idempotency-Key", "k")).is_order());
    let reused = Request::post("/buy/ticket?quantity=2").header("Idempotency-Key", "k");
    told(&[same_both_ways(&open, &reused)], "key-reused");
    open.operate("pause", &json!({}));
    eventually("it is paused", || (open.ask(&purchase()).status == 403).then_some(()));
    told(&check("paused", &open), "sale-paused");
    open.operate("close", &json!({}));
    eventually("it is closed", || (open.ask(&purchase()).status == 410).then_some(()));
    told(&check("closed", &open), "sale-closed");

    let (setup, _backend) = edge(json!({ "total": 1 }));
    let small = setup.start();
    told(&[same_both_ways(&small, &Request::post("/buy/ticket?quantity=2"))], "not-enough-left");
    assert!(buy(small.address(), &purchase()).is_order());
    let answers = check("sold-out", &small);
    ["sold-out", "已售罄"].iter().for_each(|what| told(&answers, what));

    let (setup, _backend) = edge(json!({ "total": 9, "opens_at": "2999-01-01T00:00:00Z" }));
    told(&check("early", &setup.start()), "sale-not-open");

    let (setup, _backend) = edge(json!({ "total": 9, "per_buyer": 1, "seed_dialect": false }));
    let limited = setup.start();
    let alice = purchase().header("X-User-Id", "alice");
    assert!(buy(limited.address(), &alice).is_order());
    told(&[same_both_ways(&limited, &alice)], "buyer-limit");
    told(&check("limited", &limited), "bad-request");

    let (setup, _backend) = edge(json!({}));
    told(&check("missing", &setup.start()), "sale-missing");
}

#[test]
fn both_ways_count_alike() {
    let (setup, _backend) = edge(json!({ "total": 1 }));
    let edge = setup.start();
    assert!(buy(edge.address(), &purchase()).is_order());
    for n in 1..=5 {
        same_both_ways(&edge, &purchase());
        same_both_ways(&edge, &Request::get("/buy/ticket?quantity=0"));
        let count = |outcome: &str| edge.metric("spikegate_purchases_total", &format!("outcome=\"{outcome}\""));
        assert_eq!((count("sold_out"), count("bad_request"), count("ordered")), (2 * n, 2 * n, 1));
    }
}
