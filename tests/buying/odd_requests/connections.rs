//! Requests in pieces, pipelined requests, and old versions of HTTP.

use std::time::Duration;

use serde_json::json;

use super::{Bought, Ends, Refused, Shop, Stays, case, raw};
use crate::harness::purchase::{order_ids, purchase, purchase_with_key};
use crate::harness::{Answer, Edge, Outcome, Request};

#[test]
fn versions_and_connections() {
    let shop = Shop::open();
    let get = Request::get("/buy/ticket");
    let old = get.clone().http10();
    shop.check(vec![
        case("GET", &get, Bought(1), Stays),
        case("POST", &purchase(), Bought(1), Stays),
        case("the last request", &get.clone().header("Connection", "close"), Bought(1), Ends),
        case("the last purchase", &purchase().header("Connection", "Close"), Bought(1), Ends),
        case("HTTP/1.0", &old, Bought(1), Ends),
        case("HTTP/1.0, POST", &purchase().http10(), Bought(1), Ends),
        case("HTTP/1.0, kept open", &old.clone().header("Connection", "keep-alive"), Bought(1), Stays),
        case("HTTP/1.0, kept open in capitals", &old.clone().header("CONNECTION", "Keep-Alive"), Bought(1), Stays),
        case(
            "HTTP/1.0, POST with a body, kept open",
            &purchase().json(&json!({ "quantity": 2 })).http10().header("Connection", "keep-alive"),
            Bought(2),
            Stays,
        ),
        case("HTTP/1.0 with a host", &old.header("Host", "a"), Bought(1), Ends),
        raw("an empty line first", [b"\r\n".to_vec(), get.bytes()].concat(), Bought(1), Stays),
        case("header names in capitals", &purchase().header("IDEMPOTENCY-KEY", "capitals"), Bought(1), Stays),
        case(
            "an upgrade that is not to be had",
            &get.header("Connection", "Upgrade").header("Upgrade", "h2c"),
            Bought(1),
            super::AsTold,
        ),
    ]);
}

#[test]
fn a_refusal_keeps_the_connection_as_a_success_does() {
    let shop = Shop::open();
    shop.edge.operate("close", &json!({}));
    crate::harness::eventually("it is closed", || (shop.edge.ask(&purchase()).status == 410).then_some(()));
    let get = Request::get("/buy/ticket");
    shop.check(vec![
        case("POST", &purchase(), Refused(410, "sale-closed", ""), Stays),
        case("POST with a body", &purchase().json(&json!({})), Refused(410, "sale-closed", ""), Stays),
        case("GET", &get, Refused(410, "sale-closed", ""), Stays),
        case("HTTP/1.0", &get.clone().http10(), Refused(410, "sale-closed", ""), Ends),
        case(
            "HTTP/1.0, kept open",
            &get.http10().header("Connection", "keep-alive"),
            Refused(410, "sale-closed", ""),
            Stays,
        ),
    ]);
}

#[test]
fn requests_in_single_bytes() {
    let shop = Shop::open();
    let requests = [
        Request::get("/buy/ticket?quantity=2"),
        purchase().json(&json!({ "quantity": 2 })),
        purchase().json(&json!({ "quantity": 2 })).chunked(4),
        Request::get("/buy/ticket?quantity=2").http10().header("Connection", "keep-alive"),
    ];
    let mut connection = shop.edge.connect();
    for request in &requests {
        connection.send_in_single_bytes(&request.bytes());
        let outcome = Outcome::of(&connection.answer());
        let Outcome::Ordered { order, .. } = outcome else { panic!("{request:?}: {outcome:?}") };
        assert_eq!(order["quantity"], 2, "{request:?}");
    }
    assert_eq!(shop.edge.sold(), 8);
}

#[test]
fn a_request_in_two_pieces_wherever_it_is_split() {
    let shop = Shop::open();
    let bytes = Request::get("/buy/ticket?quantity=1").header("X-User-Id", "alice").bytes();
    let mut connection = shop.edge.connect();
    for at in 1..bytes.len() {
        connection.send(&bytes[..at]);
        std::thread::sleep(Duration::from_millis(1));
        connection.send(&bytes[at..]);
        let answer = connection.answer();
        assert!(Outcome::of(&answer).is_order(), "split at {at}: {answer:?}");
    }
    assert_eq!(shop.edge.sold(), bytes.len() as u64 - 1);
}

/// Sends all requests in one piece, and reads one answer for each.
fn pipelined(shop: &Shop, requests: &[Request]) -> Vec<Answer> {
    let mut connection = shop.edge.connect();
    connection.send(&requests.iter().flat_map(Request::bytes).collect::<Vec<u8>>());
    let answers = requests.iter().map(|request| {
        let answer = connection.try_answer();
        answer.unwrap_or_else(|error| panic!("no answer to {request:?}: {error}"))
    });
    let answers: Vec<Answer> = answers.collect();
    assert!(!connection.has_unread(), "one answer for each");
    assert!(answers.iter().all(|answer| !answer.closes()));
    assert_eq!(connection.ask(&Request::get("/elsewhere")).text(), "backend", "and the connection goes on");
    answers
}

#[test]
fn pipelined_purchases_are_answered_in_order() {
    let shop = Shop::open();
    let requests: Vec<Request> =
        (1..=20).map(|number| Request::post(&format!("/buy/ticket?quantity={number}"))).collect();
    let outcomes: Vec<Outcome> = pipelined(&shop, &requests).iter().map(Outcome::of).collect();
    for (index, outcome) in outcomes.iter().enumerate() {
        let Outcome::Ordered { order, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(order["quantity"], index + 1);
    }
    assert_eq!(order_ids(&outcomes).len(), 20);
    assert_eq!(shop.edge.sold(), (1..=20).sum::<u64>());
}

#[test]
fn pipelined_purchases_and_proxied_requests_are_answered_in_order() {
    let shop = Shop::open();
    let elsewhere = Request::get("/elsewhere");
    let get = Request::get("/buy/ticket");
    for heap in [
        vec![get.clone(), get.clone()],
        vec![purchase(), elsewhere.clone()],
        vec![elsewhere.clone(), purchase()],
        vec![elsewhere.clone(), elsewhere.clone()],
        vec![get.clone(), elsewhere.clone(), get.clone(), elsewhere, get],
        vec![purchase().json(&json!({ "quantity": 2 })), purchase(), purchase_with_key("heap").json(&json!({}))],
        vec![Request::post("/buy/ticket?quantity=0"), purchase(), Request::get("/sales/ticket"), purchase()],
        vec![purchase().json(&json!({})).chunked(1), purchase()],
    ] {
        let before = shop.edge.sold();
        let answers = pipelined(&shop, &heap);
        let mut bought = 0;
        for (request, answer) in heap.iter().zip(&answers) {
            let target = String::from_utf8(request.head_bytes()).unwrap();
            match target.split(' ').nth(1).unwrap() {
                "/elsewhere" => assert_eq!(answer.text(), "backend", "{heap:?}"),
                "/sales/ticket" => assert_eq!(answer.json()["sale"], "ticket", "{heap:?}"),
                "/buy/ticket?quantity=0" => assert_eq!(answer.status, 400, "{heap:?}"),
                _ => match Outcome::of(answer) {
                    Outcome::Ordered { order, .. } => bought += order["quantity"].as_u64().unwrap(),
                    refused @ Outcome::Refused { .. } => panic!("{heap:?}: {refused:?}"),
                },
            }
        }
        assert_eq!(shop.edge.sold() - before, bought, "{heap:?}");
    }
}

#[test]
fn bytes_after_the_last_request_of_a_connection_are_not_executed() {
    let shop = Shop::open();
    let mut connection = shop.edge.connect();
    let last = purchase().header("Connection", "close");
    connection.send(&[last.bytes(), purchase().bytes()].concat());
    let answer = connection.answer();
    assert!(Outcome::of(&answer).is_order() && answer.closes(), "{answer:?}");
    assert!(connection.is_closed_by_peer(Duration::from_secs(5)));
    assert_eq!(shop.edge.sold(), 1);
}

#[test]
fn a_client_that_falls_silent_is_waited_for_no_longer_than_the_settings_say() {
    let edge =
        Edge::setup().set("client", json!({ "keepalive": "1s", "read": "1s" })).ticket(json!({ "total": 100 })).start();
    let soon = Duration::from_secs(5);

    let mut between = edge.connect();
    assert!(Outcome::of(&between.ask(&purchase())).is_order());
    let mut in_a_body = edge.connect();
    let whole = purchase().json(&json!({ "quantity": 2 })).bytes();
    in_a_body.send(&whole[..whole.len() - 5]);
    let mut in_a_second_head = edge.connect();
    assert!(Outcome::of(&in_a_second_head.ask(&purchase())).is_order());
    in_a_second_head.send(b"POST /buy/ti");

    assert!(between.is_closed_by_peer(soon), "between two requests");
    if let Ok(answer) = in_a_body.try_answer() {
        assert!(matches!(answer.status, 400 | 408) && answer.closes(), "{answer:?}");
    }
    assert!(in_a_body.is_closed_by_peer(soon), "in the middle of a body");
    let answer = in_a_second_head.try_answer().unwrap();
    assert!(answer.status == 408 && answer.closes(), "{answer:?}");
    assert!(in_a_second_head.is_closed_by_peer(soon), "in the middle of a head");
    assert_eq!(edge.sold(), 2);
}
