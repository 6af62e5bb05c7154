//! Bodies of all kinds, where one is accepted and where none is.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use super::{AsTold, Bought, Ends, Malformed, Refused, Shop, Stays, bad, case, raw};
use crate::harness::purchase::purchase;
use crate::harness::{Outcome, Request};

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn json_bodies() {
    let shop = Shop::open();
    let with = |body: &str| purchase().body("application/json", body);
    let padded = |length: usize| format!("{:>length$}", r#"{"quantity":2}"#);
    let two = with(r#"{"quantity":2}"#);
    shop.check(vec![
        case("a quantity", &two, Bought(2), Stays),
        case("an empty object", &with("{}"), Bought(1), Stays),
        case("in chunks", &two.clone().chunked(5), Bought(2), Stays),
        case("in chunks of one byte", &two.clone().chunked(1), Bought(2), Stays),
        case("an empty body in chunks", &with("").chunked(5), Bought(1), Stays),
        case(
            "with a charset",
            &purchase().body("Application/JSON; charset=utf-8", "{\"quantity\":3}"),
            Bought(3),
            Stays,
        ),
        case("with space around", &with(" \r\n{ \"quantity\" : 2 }\n"), Bought(2), Stays),
        case("of the greatest length", &with(&padded(4096)), Bought(2), Stays),
        case("of the greatest length in chunks", &with(&padded(4096)).chunked(1000), Bought(2), Stays),
        case(
            "with the same in the query",
            &Request::post("/buy/ticket?quantity=2").json(&json!({"quantity": 2})),
            Bought(2),
            Stays,
        ),
        case(
            "with something else in the query",
            &Request::post("/buy/ticket?quantity=2").json(&json!({"quantity": 3})),
            bad("quantity"),
            Stays,
        ),
        case("cut short", &with(r#"{"quantity":"#), bad("body"), Stays),
        case("with more behind", &with(r#"{"quantity":2}{}"#), bad("body"), Stays),
        case("a list", &with("[1]"), bad("body"), Stays),
        case("a number", &with("1"), bad("body"), Stays),
        case("null", &with("null"), bad("body"), Stays),
        case("not UTF-8", &purchase().body("application/json", b"{\"quantity\":\xff}"), bad("body"), Stays),
        case("an unknown member", &with(r#"{"quantity":1,"quantum":2}"#), bad("quantum"), Stays),
        case("the buyer, who comes from elsewhere", &with(r#"{"X-User-Id":"alice"}"#), bad("X-User-Id"), Stays),
        case("a quantity of zero", &with(r#"{"quantity":0}"#), bad("quantity"), Stays),
        case("a quantity below zero", &with(r#"{"quantity":-1}"#), bad("quantity"), Stays),
        case("a huge quantity", &with(r#"{"quantity":1e9}"#), bad("quantity"), Stays),
        case("a fraction", &with(r#"{"quantity":1.5}"#), bad("quantity"), Stays),
        case("a quantity in quotes", &with(r#"{"quantity":"2"}"#), bad("quantity"), Stays),
        case("no quantity", &with(r#"{"quantity":null}"#), bad("quantity"), Stays),
        case("two quantities", &with(r#"{"quantity":1,"quantity":2}"#), bad("quantity"), Stays),
        case("a key that is a number", &with(r#"{"idempotency_key":7}"#), bad("idempotency_key"), Stays),
        case("an empty key", &with(r#"{"idempotency_key":""}"#), bad("idempotency_key"), Stays),
        case("a control character in a key", &with(r#"{"idempotency_key":"a\u0000b"}"#), bad("idempotency_key"), Stays),
        case("deeply nested", &with(&"[".repeat(3000)), bad("body"), Stays),
    ]);
}

#[test]
fn other_bodies() {
    let shop = Shop::open();
    let form = |body: &str| purchase().body(FORM, body);
    shop.check(vec![
        case("a form", &form("quantity=2"), Bought(2), Stays),
        case("a form in chunks", &form("quantity=2").chunked(3), Bought(2), Stays),
        case("an empty form", &form(""), Bought(1), Stays),
        case("a type and nothing of it", &purchase().header("Content-Type", "text/plain"), Bought(1), Stays),
        raw("no body and no length", "POST /buy/ticket HTTP/1.1\r\nHost: a\r\n\r\n", Bought(1), Stays),
        case("an unknown name in a form", &form("quantity=2&quantum=1"), bad("quantum"), Stays),
        case("a form with two quantities", &form("quantity=1&quantity=2"), bad("quantity"), Stays),
        case("a form that is not UTF-8", &form("quantity=%ff"), bad("quantity"), Stays),
        case("plain text", &purchase().body("text/plain", "2"), Refused(415, "unsupported-media-type", ""), AsTold),
        case("a type that is none", &purchase().body("json", "{}"), Refused(415, "unsupported-media-type", ""), AsTold),
        raw(
            "a body of no type",
            "POST /buy/ticket HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            Refused(415, "unsupported-media-type", ""),
            AsTold,
        ),
    ]);
    let answer = shop.edge.ask(&purchase().body("text/plain", "2"));
    assert_eq!(answer.header("accept-post"), Some("application/json, application/x-www-form-urlencoded"));
}

#[test]
fn bodies_too_large() {
    let shop = Shop::open();
    let of = |length: usize| purchase().body("application/json", " ".repeat(length - 2) + "{}");
    let refused = Refused(413, "body-too-large", "");
    let announced = "POST /buy/ticket HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                     Content-Length: 99999999999\r\n\r\n{";
    shop.check(vec![
        case("by one byte", &of(4097), refused, AsTold),
        case("by one byte, in chunks", &of(4097).chunked(4097), refused, AsTold),
        case("by far", &of(1_000_000), refused, AsTold),
        case("by far, in chunks", &of(1_000_000).chunked(10_000), refused, AsTold),
        raw("announced, and not even sent", announced, refused, Ends),
        case(
            "plain text by far",
            &purchase().body("text/plain", "x".repeat(1_000_000)),
            Refused(413, "body-too-large", ""),
            AsTold,
        ),
    ]);
}

#[test]
fn bodies_where_none_is_taken() {
    let shop = Shop::open();
    let get = Request::get("/buy/ticket");
    let order = Request::get(&format!("/sales/ticket/orders/{}", "0".repeat(32)));
    shop.check(vec![
        case("GET with a body", &get.clone().body("application/json", r#"{"quantity":5}"#), Bought(1), AsTold),
        case("GET with a body in chunks", &get.clone().body("text/plain", "hello").chunked(2), Bought(1), AsTold),
        case("GET with a large body", &get.clone().body("text/plain", "x".repeat(300_000)), Bought(1), AsTold),
        case(
            "GET with a body that looks like a request",
            &get.clone().body("text/plain", get.bytes()),
            Bought(1),
            AsTold,
        ),
        case(
            "DELETE with a body",
            &Request::new("DELETE", "/buy/ticket").json(&json!({})),
            Refused(405, "method-not-allowed", ""),
            AsTold,
        ),
        case(
            "an order asked for with a body",
            &order.body("text/plain", "hello"),
            Refused(404, "order-unknown", ""),
            AsTold,
        ),
    ]);
}

#[test]
fn lengths_that_contradict_themselves() {
    let shop = Shop::open();
    let post = |headers: &str, body: &str| format!("POST /buy/ticket HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}");
    shop.check(vec![
        raw("two lengths", post("Content-Length: 2\r\nContent-Length: 3", "{} "), Malformed, Ends),
        raw("a length below zero", post("Content-Length: -1", ""), Malformed, Ends),
        raw("a length that is no number", post("Content-Length: two", "{}"), Malformed, Ends),
        raw("a length with a sign", post("Content-Length: +2", "{}"), Malformed, Ends),
        raw("a coding that nobody knows", post("Transfer-Encoding: gzip", "{}"), Malformed, Ends),
        raw(
            "a chunk whose size is no number",
            post("Content-Type: application/json\r\nTransfer-Encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"),
            Malformed,
            Ends,
        ),
        raw(
            "chunks in HTTP/1.0",
            "POST /buy/ticket HTTP/1.0\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            Malformed,
            Ends,
        ),
    ]);
    // Chunks and a length: the chunks count (RFC 9112, 6.3), or it is refused; either way the connection ends.
    let before = shop.edge.sold();
    let both = post(
        "Content-Type: application/json\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        "e\r\n{\"quantity\":2}\r\n0\r\n\r\nGET /buy/ticket HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let mut connection = shop.edge.connect();
    connection.send(both.as_bytes());
    let answer = connection.answer();
    assert!(answer.closes(), "{answer:?}");
    assert!(matches!((answer.status, shop.edge.sold() - before), (201, 2) | (400, 0)), "{answer:?}");
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    let shop = Shop::open();
    let request = purchase().json(&json!({ "quantity": 2 })).header("Expect", "100-continue");
    let mut connection = shop.edge.connect();
    connection.send(&request.head_bytes());
    let mut interim = [0; 25];
    connection.stream().read_exact(&mut interim).unwrap();
    assert_eq!(std::str::from_utf8(&interim), Ok("HTTP/1.1 100 Continue\r\n\r\n"));
    connection.send(br#"{"quantity":2}"#);
    let answer = connection.answer();
    assert!(Outcome::of(&answer).is_order(), "{answer:?}");
    if answer.closes() {
        assert!(connection.is_closed_by_peer(Duration::from_secs(5)));
    } else {
        assert_eq!(connection.ask(&Request::get("/elsewhere")).text(), "backend", "the connection goes on");
    }
    assert_eq!(shop.edge.sold(), 2);
}

#[test]
fn a_client_that_does_not_wait_for_100_continue_is_served() {
    let shop = Shop::open();
    let get = Request::get("/buy/ticket").header("Expect", "100-continue");
    shop.check(vec![
        case(
            "with a body",
            &purchase().json(&json!({ "quantity": 2 })).header("Expect", "100-continue"),
            Bought(2),
            AsTold,
        ),
        case("with no body", &purchase().header("Expect", "100-continue"), Bought(1), AsTold),
        case("GET", &get, Bought(1), AsTold),
    ]);
}
