//! Malformed and unusual queries and headers.

use super::{AsTold, Bought, Case, Ends, Malformed, Refused, Shop, Stays, bad, case, raw};
use crate::harness::Request;
use crate::harness::purchase::{purchase, purchase_with_key};

/// The same purchase in both dialects.
fn in_both_dialects(name: &str, query: &str, expect: super::Expect) -> [Case; 2] {
    let target = format!("/buy/ticket?{query}");
    [
        case(&format!("POST, {name}"), &Request::post(&target), expect, Stays),
        case(&format!("GET, {name}"), &Request::get(&target), expect, Stays),
    ]
}

#[test]
fn quantities() {
    let shop = Shop::open();
    let mut cases = Vec::new();
    for (query, expect) in [
        ("quantity=1", Bought(1)),
        ("quantity=1000", Bought(1000)),
        ("quantity=007", Bought(7)),
        ("quantity=%32", Bought(2)),
        ("quant%69ty=2", Bought(2)),
        ("quantity=2&quantity=2", Bought(2)),
        ("a=b&quantity=2&c&=&&d=%ff", Bought(2)),
        ("Quantity=5", Bought(1)),
        ("", Bought(1)),
        ("quantity=1000000", Refused(409, "not-enough-left", "")),
        ("quantity=0", bad("quantity")),
        ("quantity=-1", bad("quantity")),
        ("quantity=1000001", bad("quantity")),
        ("quantity=1000000000", bad("quantity")),
        ("quantity=99999999999999999999999999", bad("quantity")),
        ("quantity=1e9", bad("quantity")),
        ("quantity=1.0", bad("quantity")),
        ("quantity=0x1", bad("quantity")),
        ("quantity=abc", bad("quantity")),
        ("quantity=", bad("quantity")),
        ("quantity", bad("quantity")),
        ("quantity=+1", bad("quantity")),
        ("quantity=%2B1", bad("quantity")),
        ("quantity=1%00", bad("quantity")),
        ("quantity=%ff", bad("quantity")),
        ("quantity=%D9%A1", bad("quantity")),
        ("quantity=1&quantity=2", bad("quantity")),
        ("quantity=2&quantity=0", bad("quantity")),
    ] {
        cases.extend(in_both_dialects(query, query, expect));
    }
    shop.check(cases);
}

#[test]
fn keys() {
    let shop = Shop::open();
    let with = |value: &str| purchase().header("Idempotency-Key", value);
    let longest = "k".repeat(255);
    let too_long = "k".repeat(256);
    shop.check(vec![
        case("the longest key", &with(&longest), Bought(1), Stays),
        case("a bare key", &with("8f14e45f-ceea-467f"), Bought(1), Stays),
        case("a key with a quote in it", &with(r#""a\"b""#), Bought(1), Stays),
        case("the same key twice", &purchase_with_key("same").header("Idempotency-Key", "same"), Bought(1), Stays),
        case("a key too long", &with(&too_long), bad("Idempotency-Key"), Stays),
        case("a quoted key too long", &with(&format!("\"{too_long}\"")), bad("Idempotency-Key"), Stays),
        case("no key in the header", &with(""), bad("Idempotency-Key"), Stays),
        case("no key in the quotes", &with("\"\""), bad("Idempotency-Key"), Stays),
        case("a quote without its end", &with("\"abc"), bad("Idempotency-Key"), Stays),
        case("more behind the quotes", &with("\"abc\"def"), bad("Idempotency-Key"), Stays),
        case("a tab in a key", &with("a\tb"), bad("Idempotency-Key"), Stays),
        case("a key that is not ASCII", &with("schlüssel"), bad("Idempotency-Key"), Stays),
        case("two keys", &purchase_with_key("one").header("Idempotency-Key", "two"), bad("Idempotency-Key"), Stays),
        case(
            "two keys, the second in the query",
            &Request::post("/buy/ticket?idempotency_key=two").header("Idempotency-Key", "one"),
            bad("Idempotency-Key"),
            Stays,
        ),
        case("no key in the query", &Request::post("/buy/ticket?idempotency_key="), bad("idempotency_key"), Stays),
        case(
            "two keys in the query",
            &Request::get("/buy/ticket?idempotency_key=a&idempotency_key=b"),
            bad("idempotency_key"),
            Stays,
        ),
    ]);
}

#[test]
fn buyers() {
    let shop = Shop::open();
    let by = |value: &str| purchase().header("X-User-Id", value);
    let with_bytes = |value: &[u8]| {
        [b"POST /buy/ticket HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX-User-Id: ", value, b"\r\n\r\n"].concat()
    };
    shop.check(vec![
        case("the longest name", &by(&"b".repeat(128)), Bought(1), Stays),
        case("a name with a space and umlauts", &by("Jörg Müller"), Bought(1), Stays),
        case("the same name twice", &by("alice").header("x-user-id", "alice"), Bought(1), Stays),
        case("a name in the query, which means nothing", &Request::post("/buy/ticket?X-User-Id="), Bought(1), Stays),
        case("an empty name", &by(""), bad("x-user-id"), Stays),
        case("a name too long", &by(&"b".repeat(129)), bad("x-user-id"), Stays),
        case("two names", &by("alice").header("X-User-Id", "bob"), bad("x-user-id"), Stays),
        case("a tab in a name", &by("a\tb"), bad("x-user-id"), Stays),
        raw("a name that is not UTF-8", with_bytes(b"a\xffb"), bad("x-user-id"), Stays),
        raw("a control character in a name", with_bytes(b"a\x01b"), Malformed, Ends),
        raw("a zero byte in a name", with_bytes(b"a\0b"), Malformed, Ends),
    ]);
}

#[test]
fn methods_and_targets() {
    let shop = Shop::open();
    let mut cases: Vec<Case> = ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"]
        .map(|method| {
            let request = Request::new(method, "/buy/ticket");
            case(method, &request, Refused(405, "method-not-allowed", ""), AsTold)
        })
        .into();
    cases.extend([
        case("the absolute form", &Request::get("http://tickets.example/buy/ticket?quantity=2"), Bought(2), Stays),
        raw("two hosts", "GET /buy/ticket HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Malformed, Ends),
        raw("no host", "GET /buy/ticket HTTP/1.1\r\n\r\n", Malformed, AsTold),
        raw("a line of nonsense", "nonsense\r\n\r\n", Malformed, Ends),
        raw("a version from the future", "GET /buy/ticket HTTP/9.9\r\nHost: a\r\n\r\n", Malformed, Ends),
        raw("a header without a colon", "GET /buy/ticket HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", Malformed, Ends),
        raw("a space before a colon", "GET /buy/ticket HTTP/1.1\r\nHost : a\r\n\r\n", Malformed, Ends),
    ]);
    shop.check(cases);

    // HEAD has no body to read a problem from, so the table cannot have it; it must not sell either.
    let answer = shop.edge.ask(&Request::new("HEAD", "/buy/ticket"));
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST")), "{answer:?}");
    let before = shop.edge.sold();
    for target in ["/buy/ticket/", "/buy/tickets", "/buy/ticket/x", "//buy/ticket", "/Buy/ticket", "/x/../buy/ticket"] {
        let answer = shop.edge.ask(&Request::post(target));
        assert_eq!(answer.text(), "backend", "{target} is not ours to sell from: {answer:?}");
    }
    assert_eq!(shop.edge.sold(), before);
}

#[test]
fn queries_that_are_no_text() {
    let shop = Shop::open();
    let line = |query: &[u8]| [b"GET /buy/ticket?", query, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    shop.check(vec![
        case("encoded, where nobody looks", &Request::post("/buy/ticket?from=%ff%fe"), Bought(1), Stays),
        case("an encoding cut short", &Request::post("/buy/ticket?from=%f&to=%"), Bought(1), Stays),
        case(
            "an encoding cut short, where it counts",
            &Request::post("/buy/ticket?quantity=%f"),
            bad("quantity"),
            Stays,
        ),
        raw("UTF-8 as it is", line("from=票".as_bytes()), Bought(1), Stays),
        raw("bytes that are no text", line(b"from=\xff\xfe"), Malformed, Ends),
        raw("bytes that are no text, where it counts", line(b"quantity=\xff"), Malformed, Ends),
    ]);
}

#[test]
fn many_and_large_headers() {
    let shop = Shop::open();
    let kib = "x".repeat(1000);
    let large = (0..20).fold(purchase(), |request, number| request.header(&format!("X-Large-{number}"), &kib));
    let many = (0..90).fold(purchase(), |request, number| request.header(&format!("X-Many-{number}"), "1"));
    let endless = (0..2000).fold(purchase(), |request, number| request.header(&format!("X-Large-{number}"), &kib));
    shop.check(vec![
        case("20 KiB of headers", &large, Bought(1), Stays),
        case("20 KiB of headers on GET", &large_get(&kib), Bought(1), Stays),
        case("90 headers", &many, Bought(1), Stays),
        case("a long query", &Request::post(&format!("/buy/ticket?from={kib}{kib}{kib}&quantity=2")), Bought(2), Stays),
    ]);
    // What is beyond all bounds may be refused in any way, as long as nothing is sold and nothing breaks.
    let before = shop.edge.sold();
    let mut connection = shop.edge.connect();
    let _ = connection.try_send(&endless.bytes());
    if let Ok(answer) = connection.try_answer() {
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    assert_eq!(shop.edge.sold(), before);
}

fn large_get(kib: &str) -> Request {
    (0..20).fold(Request::get("/buy/ticket"), |request, number| request.header(&format!("X-Large-{number}"), kib))
}
