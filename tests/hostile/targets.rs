//! Targets that look like the path of a purchase, and are not.

use serde_json::json;

use crate::harness::recorder::Recorder;
use crate::harness::{Edge, Request};

#[test]
fn only_the_exact_path_sells() {
    let recorder = Recorder::start();
    let edge = Edge::setup()
        .proxies_to(json!({ "servers": [{ "address": recorder.address() }] }))
        .ticket(json!({ "total": 1_000_000, "seed_dialect": true }))
        .start();
    for target in [
        "/buy//ticket",
        "/./buy/ticket",
        "/buy/./ticket",
        "/buy/ticket/.",
        "/buy/ticket/..",
        "/buy/x/../ticket",
        "/buy%2fticket",
        "/buy%2Fticket",
        "/%62uy/ticket",
        "/buy/%74icket",
        "/buy/ticket%00",
        "/buy/ticket%20",
        "/buy/ticket%0d%0a",
        "/buy/ticket%3fquantity=2",
        "/buy/ticket%23",
        "/buy/ticket;quantity=2",
        "/buy/ticket/?quantity=2",
        "/BUY/TICKET",
        "/buy/Ticket",
        "/buy/ticket.",
        "/buy/ticket,",
        "/buy/tick\u{e9}t",
        "/buy\\ticket",
        "/sales//ticket",
        "/sales/ticket/",
        "/sales/%74icket",
        "/sales/ticket/Orders/00000000000000000000000000000000",
        "/sales/ticket/orders",
        "//evil.example/buy/ticket",
    ] {
        for method in ["GET", "POST"] {
            let answer = edge.ask(&Request::new(method, target).header("Content-Length", "0"));
            if answer.status == 200 {
                assert_eq!(answer.text(), "ok", "{method} {target} is for a backend: {answer:?}");
                let line = recorder.requests().pop().unwrap().line;
                assert_eq!(line, format!("{method} {target} HTTP/1.1"), "as it was asked");
            } else {
                assert_eq!(answer.status, 400, "{method} {target}: {answer:?}");
            }
        }
    }
    assert_eq!(edge.sold(), 0);
    // A fragment is no part of a target (RFC 9112, 3.2). As Nginx, the edge reads what stands before it, and nothing of
    // it.
    for (sold, target) in
        ["/buy/ticket#", "/buy/ticket#x", "/buy/ticket#?quantity=2", "/buy/ticket?quantity=1#&quantity=2"]
            .iter()
            .enumerate()
    {
        let answer = edge.ask(&Request::post(target));
        assert_eq!((answer.status, edge.sold()), (201, sold as u64 + 1), "{target}: {answer:?}");
    }
}

#[test]
fn a_route_cannot_be_bypassed() {
    let (public, secret) = (Recorder::start(), Recorder::start());
    let edge = Edge::setup()
        .upstream("secret", json!({ "servers": [{ "address": secret.address() }] }))
        .upstream("public", json!({ "servers": [{ "address": public.address() }] }))
        .route(json!({ "hosts": ["inside.example"], "path": "/", "upstream": "secret" }))
        .route(json!({ "path": "/public", "upstream": "public" }))
        .start();
    for (target, host) in [
        ("/secret", "outside.example"),
        ("/secret", "inside.example.outside.example"),
        ("/secret", "xinside.example"),
        ("/publicx/secret", "outside.example"),
        ("http://inside.example/secret", "outside.example"),
        ("http://inside.example@outside.example/secret", "outside.example"),
    ] {
        let answer = edge.ask(&Request::get(target).without("Host").header("Host", host));
        assert!(matches!(answer.status, 400 | 404), "{target} {host}: {answer:?}");
    }
    assert!(secret.requests().is_empty() && public.requests().is_empty());
}
