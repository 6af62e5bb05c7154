//! Limits on requests and connections, for one address and for all.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use crate::harness::purchase::purchase;
use crate::harness::{Backend, Connection, Edge, Request, eventually};

fn client(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

#[test]
fn a_client_over_its_rate_gets_429_with_retry_after() {
    let begun = std::time::Instant::now();
    let backend = Backend::named("backend");
    let edge = Edge::setup()
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .ticket(json!({ "total": 1_000, "seed_dialect": true }))
        .set("limits", json!({ "requests_per_second": 1, "burst": 8 }))
        .start();
    let many = |request: &Request| (0..80).fold(request.clone(), |all, n| all.header(&format!("X-{n}"), "1"));
    let mut connection = Connection::from(client(7), edge.address());
    // All ways draw from one bucket: the front door's, the proxy's, and Pingora's to the same place.
    for request in [
        purchase(),
        Request::get("/elsewhere"),
        many(&purchase()),
        purchase().json(&json!({})),
        purchase().json(&json!({})).chunked(1),
        Request::get("/sales/ticket"),
        many(&Request::get("/elsewhere")),
    ] {
        let answer = connection.ask(&request);
        assert!(matches!(answer.status, 200 | 201), "{request:?}: {answer:?}");
    }
    let (sold, asked) = (edge.sold(), backend.requests());
    let refused = |connection: &mut Connection, request: &Request| {
        // A token comes back each second, and the machine may be slow.
        (0..60).map(|_| connection.ask(request)).find(|answer| answer.status == 429 || answer.text().contains("-16"))
    };
    for request in [
        purchase(),
        many(&purchase()),
        purchase().json(&json!({})),
        Request::get("/elsewhere"),
        many(&Request::get("/elsewhere")),
        Request::get("/sales/ticket"),
        Request::new("PUT", "/buy/ticket"),
    ] {
        let answer = refused(&mut connection, &request).unwrap_or_else(|| panic!("never refused: {request:?}"));
        assert_eq!((answer.status, answer.problem().as_str()), (429, "too-many-requests"), "{answer:?}");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3).contains(&wait), "{answer:?}");
    }
    let answer = refused(&mut connection, &Request::get("/buy/ticket")).expect("refused in the article's words");
    assert_eq!((answer.status, &answer.json()["code"]), (200, &json!(-16)), "{answer:?}");
    assert_eq!(answer.is_our_own().json()["msg"], "请求过于频繁，请稍后再试");

    // Others are not concerned.
    let mut other = Connection::from(client(8), edge.address());
    assert_eq!(other.ask(&purchase()).status, 201);
    assert!(edge.metric("spikegate_requests_limited_total", "") >= 8);
    // What was refused was not done: only tokens that came back meanwhile were.
    let back = begun.elapsed().as_secs() + 12;
    assert!(edge.sold() - sold <= back && backend.requests() as u64 - asked as u64 <= back);
    eventually("it may ask again", || (connection.ask(&purchase()).status == 201).then_some(()));
}

#[test]
fn the_outcomes_of_a_sale_are_those_of_all_its_purchases() {
    let edge = Edge::setup()
        .ticket(json!({ "total": 2, "seed_dialect": true }))
        .set("limits", json!({ "requests_per_second": 1, "burst": 6 }))
        .start();
    let asked = [
        purchase(),
        purchase(),
        purchase(),
        purchase().json(&json!({ "quantity": 0 })),
        Request::get("/buy/ticket"),
        purchase().json(&json!({})).chunked(1),
        // No more than six at once.
        purchase(),
        Request::get("/buy/ticket"),
        purchase().json(&json!({})).chunked(1),
    ];
    let mut connection = Connection::from(client(7), edge.address());
    for request in &asked {
        connection.ask(request);
        connection.ask(&Request::new("PUT", "/buy/ticket"));
    }
    let outcomes = |label: &str| edge.metric("spikegate_purchases_total", label);
    assert_eq!(outcomes("sale=\"ticket\""), asked.len() as u64);
    assert!(outcomes("limited") >= 1 && outcomes("ordered") >= 1, "{}", outcomes("limited"));
}

#[test]
fn a_refused_body_does_not_become_a_request() {
    let edge = Edge::setup()
        .ticket(json!({ "total": 1_000 }))
        .set("limits", json!({ "requests_per_second": 1, "burst": 1 }))
        .start();
    let mut connection = Connection::from(client(7), edge.address());
    let hidden = String::from_utf8(purchase().bytes()).unwrap();
    let request = purchase().body("application/json", hidden.repeat(20));
    for _ in 0..5 {
        let answer = connection.ask(&request);
        assert!(matches!(answer.status, 400 | 429), "{answer:?}");
    }
    assert_eq!(edge.sold(), 0);
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let edge =
        Edge::setup().ticket(json!({ "total": 1_000 })).set("limits", json!({ "connections_per_address": 3 })).start();
    let mut open: Vec<_> = (0..3).map(|_| Connection::from(client(7), edge.address())).collect();
    open.iter_mut().for_each(|connection| assert_eq!(connection.ask(&purchase()).status, 201));
    let fourth = Connection::from(client(7), edge.address()).try_ask(&purchase());
    assert!(fourth.is_err(), "{fourth:?}");
    let mut other = Connection::from(client(8), edge.address());
    assert_eq!(other.ask(&purchase()).status, 201, "others are not concerned");
    assert_eq!(edge.metric("spikegate_connections_refused_total", "connections_per_address"), 1);
    // Those who are there are served, and whoever leaves makes room.
    assert_eq!(open[0].ask(&purchase()).status, 201);
    drop(open.pop());
    eventually("there is room again", || {
        Connection::from(client(7), edge.address()).try_ask(&purchase()).ok().filter(|answer| answer.status == 201)
    });
}

#[test]
fn no_more_connections_are_served_than_there_may_be() {
    let edge = Edge::setup().ticket(json!({ "total": 1_000 })).set("limits", json!({ "connections": 50 })).start();
    let mut open: Vec<_> = (0..50).map(|_| edge.connect()).collect();
    open.iter_mut().for_each(|connection| assert_eq!(connection.ask(&purchase()).status, 201));
    let mut refused = 0;
    for _ in 0..200 {
        refused +=
            usize::from(Connection::try_to(edge.address()).and_then(|mut one| one.try_ask(&purchase())).is_err());
    }
    assert_eq!(refused, 200);
    assert_eq!(edge.metric("spikegate_connections_refused_total", "limit=\"connections\""), 200);
    assert_eq!(edge.metric("spikegate_connections", ""), 50);
    open.iter_mut().for_each(|connection| assert_eq!(connection.ask(&purchase()).status, 201));
    assert_eq!(edge.sold(), 100);
    drop(open);
    eventually("there is room again", || {
        Connection::try_to(edge.address()).and_then(|mut one| one.try_ask(&purchase())).ok()
    });
}
