//! Requests and the purchases or errors that they are parsed to, in tables.

mod any;

use super::fuzz::{Request, settings};
use super::*;

/// Asserts what a request is parsed to: `quantity buyer key`, with `-` for none, or `field: fault`.
#[track_caller]
fn check(buyer: &BuyerSource, request: &[u8], expected: &str) {
    let head = Request::new(request);
    let read = match read(&head, &head.body, &settings(buyer, false), false) {
        Ok(Ask { quantity, buyer, key, .. }) => {
            format!("{quantity} {} {}", buyer.as_deref().unwrap_or("-"), key.as_deref().unwrap_or("-"))
        }
        Err(RequestRefusal::Bad { field, detail }) => format!("{field}: {detail}"),
        Err(other) => format!("{other:?}"),
    };
    assert_eq!(read, expected, "for {}", String::from_utf8_lossy(request));
}

#[track_caller]
fn each(buyer: &BuyerSource, rows: &[(&[u8], &str)]) {
    rows.iter().for_each(|(request, expected)| check(buyer, request, expected));
}

fn header() -> BuyerSource {
    BuyerSource::Header("x-user-id".into())
}

fn query() -> BuyerSource {
    BuyerSource::Query("user".into())
}

fn body() -> BuyerSource {
    BuyerSource::Body("buyer".into())
}

/// A request with a body of the type, after a query or `""`.
fn with_body(media_type: &str, body: &[u8]) -> Vec<u8> {
    [b"\nContent-Type: ", media_type.as_bytes(), b"\n\n", body].concat()
}

#[track_caller]
fn each_body(buyer: &BuyerSource, media_type: &str, rows: &[(&[u8], &str)]) {
    rows.iter().for_each(|(body, expected)| check(buyer, &with_body(media_type, body), expected));
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const TWICE: &str = "is given twice, with different values";

#[test]
fn the_method_makes_the_dialect() {
    let rows = [
        ("POST", true, Ok(Dialect::Rest)),
        ("POST", false, Ok(Dialect::Rest)),
        ("GET", true, Ok(Dialect::Seed)),
        ("GET", false, Err(RequestRefusal::Method)),
        ("HEAD", true, Err(RequestRefusal::Method)),
        ("PUT", true, Err(RequestRefusal::Method)),
        ("post", true, Err(RequestRefusal::Method)),
        ("get", true, Err(RequestRefusal::Method)),
        ("", true, Err(RequestRefusal::Method)),
    ];
    for (method, seed_dialect, expected) in rows {
        assert_eq!(dialect(method, &settings(&header(), seed_dialect)), expected, "{method} {seed_dialect}");
    }
}

#[test]
fn queries() {
    let quantity = |shown: &str| format!("quantity: must be 1 to 1000000, is \"{shown}\"");
    each(
        &query(),
        &[
            (b"", "1 - -"),
            (b"quantity=2&user=ann&idempotency_key=k-1", "2 ann k-1"),
            (b"quantity=1000000", "1000000 - -"),
            (b"&&quantity=007&", "7 - -"),
            (b"%71uantity=%32", "2 - -"),
            // Names that mean nothing here may be anything, even no text.
            (b"utm=1&%ff=%fe&buyer=x&Quantity=9&=x&==&quantity=3", "3 - -"),
            (b"buyer=%ff", "1 - -"),
            (b"user=a+b%2Bc%20d", "1 a b+c d -"),
            (b"user=%E5%BC%A0%e4%b8%89", "1 \u{5f20}\u{4e09} -"),
            (b"user=a=b", "1 a=b -"),
            (b"user=100%&idempotency_key=%zz", "1 100% %zz"),
            // Equal values do not contradict each other, however they are written.
            (b"quantity=2&quantity=2&user=a%20b&user=a+b", "2 a b -"),
            (b"quantity=", &quantity("")),
            (b"quantity", &quantity("")),
            (b"quantity=0", &quantity("0")),
            (b"quantity=1000001", &quantity("1000001")),
            (b"quantity=4294967297", &quantity("4294967297")),
            (b"quantity=-1", &quantity("-1")),
            (b"quantity=%2B1", &quantity("+1")),
            (b"quantity=+1", &quantity(" 1")),
            (b"quantity=1.0", &quantity("1.0")),
            (b"quantity=1e3", &quantity("1e3")),
            (b"quantity=0x1", &quantity("0x1")),
            (b"quantity=two", &quantity("two")),
            (b"quantity=%D9%A1", &quantity("\u{661}")),
            (b"quantity=1%00", &quantity("1\0")),
            (b"quantity=00000000000000000000000000000000000000000000009x", &quantity(&"0".repeat(40))),
            (b"quantity=1&quantity=2", &format!("quantity: {TWICE}")),
            (b"quantity=1&quantity=01", &format!("quantity: {TWICE}")),
            (b"quantity=2&quantity=", &format!("quantity: {TWICE}")),
            (b"user=ann&user=bob", &format!("user: {TWICE}")),
            (b"user=ann&user=Ann", &format!("user: {TWICE}")),
            (b"idempotency_key=a&idempotency_key=b", &format!("idempotency_key: {TWICE}")),
            (b"user=", "user: is empty"),
            (b"user", "user: is empty"),
            (b"idempotency_key=", "idempotency_key: is empty"),
            (b"quantity=%ff", "quantity: is not UTF-8"),
            (b"user=%c3%28", "user: is not UTF-8"),
            (b"user=\xff", "user: is not UTF-8"),
            (b"user=+%ff", "user: is not UTF-8"),
            (b"idempotency_key=%e5%bc", "idempotency_key: is not UTF-8"),
            (b"user=a%00b", "user: has a character that is not allowed"),
            (b"user=a%0Ab", "user: has a character that is not allowed"),
            (b"user=a%7F", "user: has a character that is not allowed"),
            (b"user=a%C2%85", "user: has a character that is not allowed"),
            (b"idempotency_key=a%09b", "idempotency_key: has a character that is not allowed"),
            (b"idempotency_key=%E5%BC%A0", "idempotency_key: has a character that is not allowed"),
            (b"idempotency_key=a%7F", "idempotency_key: has a character that is not allowed"),
        ],
    );
}

#[test]
fn headers() {
    let key = |detail: &str| format!("Idempotency-Key: {detail}");
    let (unfinished, not_allowed) =
        (key("has an unterminated quoted string"), key("has a character that is not allowed"));
    each(
        &header(),
        &[
            (b"\nX-User-Id: ann\nIdempotency-Key: k-1", "1 ann k-1"),
            (b"quantity=2\nx-user-id: a b", "2 a b -"),
            (b"\nX-USER-ID: \xe5\xbc\xa0", "1 \u{5f20} -"),
            (b"\nX-User-Id: ann\nX-User-Id: ann", "1 ann -"),
            // If the header carries the buyer, the query does not.
            (b"x-user-id=bob\nX-User-Id: ann", "1 ann -"),
            (b"\nX-User-Id: a%20b+c", "1 a%20b+c -"),
            (b"\nIdempotency-Key: \"8e03978e-40d5\"", "1 - 8e03978e-40d5"),
            (b"\nIdempotency-Key:  \t\"k\" \t", "1 - k"),
            (b"\nIdempotency-Key:  \tk \t", "1 - k"),
            (
                br#"
Idempotency-Key: "a\"b\\c""#,
                r#"1 - a"b\c"#,
            ),
            (
                br#"
Idempotency-Key: a"b\c"#,
                r#"1 - a"b\c"#,
            ),
            (b"\nIdempotency-Key: k\nIdempotency-Key: \"k\"", "1 - k"),
            (b"idempotency_key=k\nIdempotency-Key: \"k\"", "1 - k"),
            (b"\nX-User-Id: ", "x-user-id: is empty"),
            (b"\nX-User-Id: ann\nX-User-Id: bob", &format!("x-user-id: {TWICE}")),
            (b"\nX-User-Id: ann\nX-User-Id: \xff", "x-user-id: is not UTF-8"),
            (b"\nX-User-Id: \xff\nX-User-Id: ann", "x-user-id: is not UTF-8"),
            (b"\nX-User-Id: a\x01", "x-user-id: has a character that is not allowed"),
            (b"\nX-User-Id: a\tb", "x-user-id: has a character that is not allowed"),
            (b"\nIdempotency-Key: ", &key("is empty")),
            (b"\nIdempotency-Key:  \t", &key("is empty")),
            (b"\nIdempotency-Key: \"\"", &key("is empty")),
            (b"\nIdempotency-Key: \"", &unfinished),
            (b"\nIdempotency-Key: \"k", &unfinished),
            (
                br#"
Idempotency-Key: "k\""#,
                &unfinished,
            ),
            (
                br#"
Idempotency-Key: "k\n""#,
                &unfinished,
            ),
            (b"\nIdempotency-Key: \"k\"x", &key("has characters after the closing quote")),
            (b"\nIdempotency-Key: \"k\";a=1", &key("has characters after the closing quote")),
            (b"\nIdempotency-Key: \"a\", \"b\"", &key("has characters after the closing quote")),
            (b"\nIdempotency-Key: \"a\tb\"", &not_allowed),
            (b"\nIdempotency-Key: \xe5\xbc\xa0", &not_allowed),
            (b"\nIdempotency-Key: \"\xe5\xbc\xa0\"", &not_allowed),
            (b"\nIdempotency-Key: \xff", &key("is not UTF-8")),
            (b"\nIdempotency-Key: a\nIdempotency-Key: b", &key(TWICE)),
            (b"idempotency_key=a\nIdempotency-Key: b", &key(TWICE)),
        ],
    );
    check(&BuyerSource::Anonymous, b"user=bob\nX-User-Id: ann", "1 - -");
}

#[test]
fn json_bodies() {
    let strange = "is not an input of a purchase";
    each_body(
        &body(),
        JSON,
        &[
            (br#"{"quantity":2,"buyer":"ann","idempotency_key":"k-1"}"#, "2 ann k-1"),
            (b" {} ", "1 - -"),
            (br#"{"quantity":1000000}"#, "1000000 - -"),
            (br#"{"buyer":"\u5f20\"\\"}"#, "1 \u{5f20}\"\\ -"),
            (br#"{"quantity":2,"quantity":2}"#, "2 - -"),
            // Nothing is decoded twice, and a key in JSON has no quotes of its own.
            (br#"{"buyer":"a%20b+c","idempotency_key":"\"k\""}"#, "1 a%20b+c \"k\""),
            (br#"{"quantity":0}"#, "quantity: must be 1 to 1000000, is \"0\""),
            (br#"{"quantity":1000001}"#, "quantity: must be 1 to 1000000, is \"1000001\""),
            (br#"{"quantity":-1}"#, "quantity: must be 1 to 1000000, is \"-1\""),
            (br#"{"quantity":1.0}"#, "quantity: must be 1 to 1000000, is \"1.0\""),
            (br#"{"quantity":18446744073709551617}"#, "quantity: must be 1 to 1000000, is \"1.8446744073709552e+19\""),
            (br#"{"quantity":"2"}"#, "quantity: must be a number"),
            (br#"{"quantity":null}"#, "quantity: must be a number"),
            (br#"{"quantity":[2]}"#, "quantity: must be a number"),
            (br#"{"idempotency_key":1}"#, "idempotency_key: must be a string"),
            (br#"{"idempotency_key":null}"#, "idempotency_key: must be a string"),
            (br#"{"idempotency_key":""}"#, "idempotency_key: is empty"),
            (br#"{"idempotency_key":"\u5f20"}"#, "idempotency_key: has a character that is not allowed"),
            (br#"{"buyer":7}"#, "buyer: must be a string"),
            (br#"{"buyer":{"id":"ann"}}"#, "buyer: must be a string"),
            (br#"{"buyer":""}"#, "buyer: is empty"),
            (br#"{"buyer":"a\u0000"}"#, "buyer: has a character that is not allowed"),
            (br#"{"quantity":1,"quantity":2}"#, &format!("quantity: {TWICE}")),
            (br#"{"buyer":"ann","buyer":"bob"}"#, &format!("buyer: {TWICE}")),
            (br#"{"idempotency_key":"a","idempotency_\u006bey":"b"}"#, &format!("idempotency_key: {TWICE}")),
            (br#"{"Quantity":2}"#, &format!("Quantity: {strange}")),
            (br#"{"quantity":2,"seat":null}"#, &format!("seat: {strange}")),
            (b"[]", "body: is not a JSON object"),
            (b"2", "body: is not a JSON object"),
            (b"null", "body: is not a JSON object"),
            (br#""quantity""#, "body: is not a JSON object"),
            (b" ", "body: is not JSON: EOF while parsing a value at line 1 column 1"),
            (b"{", "body: is not JSON: EOF while parsing an object at line 1 column 1"),
            (b"{}{}", "body: is not JSON: trailing characters at line 1 column 3"),
            (br#"{"quantity":01}"#, "body: is not JSON: invalid number at line 1 column 14"),
            (br#"{"quantity":2,}"#, "body: is not JSON: trailing comma at line 1 column 15"),
            (br#"{"quantity":1e999}"#, "body: is not JSON: number out of range at line 1 column 17"),
            (br#"{"buyer":"\ud800"}"#, "body: is not JSON: unexpected end of hex escape at line 1 column 17"),
            (b"{\"buyer\":\"\xff\"}", "body: is not JSON: invalid unicode code point at line 1 column 11"),
            (b"\xef\xbb\xbf{}", "body: is not JSON: expected value at line 1 column 1"),
            (&[b'['; 4096], "body: is not a JSON object"),
        ],
    );
    // If the buyer comes from elsewhere, `buyer` is not an input.
    each_body(&header(), JSON, &[(br#"{"buyer":"ann"}"#, &format!("buyer: {strange}"))]);
    let deep = [br#"{"quantity":"#, &[b'['; 1000][..]].concat();
    check(&body(), &with_body(JSON, &deep), "body: is not JSON: recursion limit exceeded at line 1 column 139");
}

#[test]
fn forms() {
    let strange = "is not an input of a purchase";
    each_body(
        &body(),
        FORM,
        &[
            (b"quantity=2&buyer=ann&idempotency_key=k-1", "2 ann k-1"),
            (b"&", "1 - -"),
            (b"buyer=a+b%2Bc", "1 a b+c -"),
            (b"quantity=2&quantity=2", "2 - -"),
            (b"quantity=0", "quantity: must be 1 to 1000000, is \"0\""),
            (b"quantity=2\n", "quantity: must be 1 to 1000000, is \"2\n\""),
            (b"quantity=1&quantity=2", &format!("quantity: {TWICE}")),
            (b"buyer=", "buyer: is empty"),
            (b"buyer=%ff", "buyer: is not UTF-8"),
            (b"seat=4", &format!("seat: {strange}")),
            (b"Quantity=4", &format!("Quantity: {strange}")),
            (b"=4", &format!(": {strange}")),
            (b"%ff=4", "body: has a name that is not UTF-8"),
            (br#"{"quantity":2}"#, &format!("{{\"quantity\":2}}: {strange}")),
        ],
    );
    // A buyer comes only from the configured place.
    each_body(&query(), FORM, &[(b"user=ann", &format!("user: {strange}"))]);
    check(&body(), b"buyer=ann", "1 - -");
}

#[test]
fn head_and_body_must_not_contradict_each_other() {
    each(
        &query(),
        &[
            (b"quantity=2&user=ann\nContent-Type: application/json\n\n{\"quantity\":2}", "2 ann -"),
            (
                b"idempotency_key=k\nIdempotency-Key: k\nContent-Type: application/json\n\n{\"idempotency_key\":\"k\"}",
                "1 - k",
            ),
            (b"quantity=1\nContent-Type: application/json\n\n{\"quantity\":2}", &format!("quantity: {TWICE}")),
            (
                b"\nIdempotency-Key: a\nContent-Type: application/x-www-form-urlencoded\n\nidempotency_key=b",
                &format!("idempotency_key: {TWICE}"),
            ),
        ],
    );
}

#[test]
fn media_types() {
    let quantity = br#"{"quantity":2}"#;
    for media_type in ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json ;x"]
    {
        check(&body(), &with_body(media_type, quantity), "2 - -");
    }
    for media_type in [FORM, "APPLICATION/X-WWW-FORM-URLENCODED;charset=UTF-8"] {
        check(&body(), &with_body(media_type, b"quantity=2"), "2 - -");
    }
    for media_type in ["", "text/plain", "application/jsonx", "application/problem+json", "text/json", "json", "*/*"] {
        check(&body(), &with_body(media_type, quantity), "MediaType");
    }
    check(&body(), b"\n\n{}", "MediaType");
    // Without a body its type means nothing.
    check(&body(), b"quantity=2\nContent-Type: text/plain\n\n", "2 - -");
}

#[test]
fn limits_are_exact() {
    let text = |length| "x".repeat(length);
    let too_long = |field: &str, most: usize, has: usize| format!("{field}: must have at most {most} bytes, has {has}");

    let buyer = |name: &str| format!("user={name}").into_bytes();
    check(&query(), &buyer(&text(128)), &format!("1 {} -", text(128)));
    check(&query(), &buyer(&text(129)), &too_long("user", 128, 129));
    // Bytes are counted, not characters: 43 times 3.
    check(&query(), &buyer(&"\u{5f20}".repeat(42)), &format!("1 {} -", "\u{5f20}".repeat(42)));
    check(&query(), &buyer(&"\u{5f20}".repeat(43)), &too_long("user", 128, 129));

    let key = |key: &str| format!("\nIdempotency-Key: {key}").into_bytes();
    let (longest, longer) = (text(255), text(256));
    check(&query(), &key(&longest), &format!("1 - {longest}"));
    check(&query(), &key(&format!("\"{longest}\"")), &format!("1 - {longest}"));
    check(&query(), &key(&longer), &too_long("Idempotency-Key", 255, 256));
    check(&query(), &key(&format!("\"{longer}\"")), &too_long("Idempotency-Key", 255, 256));

    let padded = |length: usize| format!("{:<length$}", r#"{"quantity":2}"#).into_bytes();
    check(&query(), &with_body(JSON, &padded(4096)), "2 - -");
    check(&query(), &with_body(JSON, &padded(4097)), "TooLarge");
    // Before its type, and before its contents.
    check(&query(), &with_body("text/plain", &padded(4097)), "TooLarge");
}
