use proptest::prelude::*;
use proptest::sample::select;

use super::fuzz::agree;
use super::*;

const PLAIN: [&str; 8] = [
    "GET /buy/ticket HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /buy/ticket?quantity=2&x=%20 HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
    "GET /sales/ticket HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
    "POST /buy/ticket HTTP/1.1\r\nHost: shop.example:8080\r\nContent-Length: 0\r\n\r\n",
    "POST /buy/ticket HTTP/1.1\r\nhost: a\r\nContent-Type: application/json\r\nIdempotency-Key: \"k\"\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost:a\r\nX-User-Id:  alice \t\r\nx-user-id: bob\r\nX-Empty:\r\n\r\n",
    "GET //a/../b HTTP/1.1\r\nHost: a\r\nAccept: ü\r\n\r\nGET /next HTTP/1.1\r\n",
];

const CLEAR: [&str; 9] = [
    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhello",
    "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
    "GET /\"quoted\" HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
];

const DOUBTFUL: [&str; 26] = [
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
    "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
];

#[test]
fn heads_are_plain_or_clear_or_doubtful() {
    for head in PLAIN {
        assert_eq!(agree(head.as_bytes()), (true, true), "{head:?}");
    }
    for head in CLEAR {
        assert_eq!(agree(head.as_bytes()), (true, false), "{head:?}");
    }
    for head in DOUBTFUL {
        assert!(matches!(parse(head.as_bytes(), &mut Room::default()), Parsed::Doubtful), "{head:?}");
    }
    let many = |n| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n - 1));
    assert_eq!(agree(many(FIELDS_MAX).as_bytes()), (true, true));
    assert_eq!(agree(many(FIELDS_MAX + 1).as_bytes()), (false, false));
}

#[test]
fn a_head_is_partial_until_its_last_byte() {
    for head in PLAIN.iter().chain(&CLEAR).filter(|head| head.ends_with("\r\n\r\n")) {
        for end in 0..head.len() {
            assert!(matches!(parse(&head.as_bytes()[..end], &mut Room::default()), Parsed::Partial), "{head:?} {end}");
        }
    }
}

/// What Pingora refuses at once is not waited for, and what it would mend is, since it sets no deadline itself.
#[test]
fn nonsense_is_not_waited_for() {
    let is_partial = |bytes: &[u8]| matches!(parse(bytes, &mut Room::default()), Parsed::Partial);
    assert!(!is_partial(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "a client that speaks TLS");
    assert!(!is_partial(b"HELO there\r\n"));
    assert!(!is_partial(b"GET / HTTP/1.1\r\nHost : a\r\n"));
    assert!(is_partial(b"GET /a b HTTP/1.1\r\nHost: a\r\n"));
    assert!(is_partial(format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(FIELDS_MAX + 1)).as_bytes()));
}

/// One thing that happens to a head on its way.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(usize, u8),
    Cut(usize, usize),
    Repeat(usize, usize),
    Insert(usize, &'static [u8]),
    /// A line of another head, somewhere.
    Line(usize, &'static str),
}

const PIECES: [&[u8]; 16] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b":",
    b" ",
    b"\t",
    b"\x0b",
    b",",
    b"\r\n ",
    b"\n\n",
    b"\r\n\r\n",
    b"%",
    b"?",
    b"/",
    b"\xff",
];

const LINES: [&str; 18] = [
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "content-length : 5",
    "Content_Length: 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding: chunked, x",
    "X: y\nTransfer-Encoding: chunked",
    "Host: b",
    "Connection: close",
    "Connection: keep-alive, Content-Length",
    "Expect: 100-continue",
    "Upgrade: h2c",
    " folded",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<usize>();
    prop_oneof![
        (at, any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (at, 1..8usize).prop_map(|(at, len)| Mutation::Cut(at, len)),
        (at, 1..30usize).prop_map(|(at, len)| Mutation::Repeat(at, len)),
        (at, select(&PIECES[..])).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (at, select(&LINES[..])).prop_map(|(at, line)| Mutation::Line(at, line)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let len = bytes.len();
    let place = |at: usize| at % (len + 1);
    let part = |at: usize, size: usize| place(at)..(place(at) + size).min(len);
    match *mutation {
        Mutation::Flip(at, bits) if len > 0 => bytes[at % len] ^= bits,
        Mutation::Flip(..) => {}
        Mutation::Cut(at, size) => drop(bytes.drain(part(at, size))),
        Mutation::Repeat(at, size) => {
            let copy = bytes[part(at, size)].to_vec();
            bytes.splice(place(at)..place(at), copy);
        }
        Mutation::Insert(at, piece) => drop(bytes.splice(place(at)..place(at), piece.iter().copied())),
        Mutation::Line(at, line) => {
            let ends: Vec<usize> =
                bytes.windows(2).enumerate().filter(|(_, two)| two == b"\r\n").map(|(i, _)| i + 2).collect();
            if let Some(at) = ends.get(at % ends.len().max(1)) {
                bytes.splice(*at..*at, format!("{line}\r\n").into_bytes());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_is_beyond_doubt_is_what_pingora_reads(
        head in prop_oneof![select(&PLAIN[..]), select(&CLEAR[..]), select(&DOUBTFUL[..])],
        mutations in prop::collection::vec(mutation(), 0..4),
    ) {
        let mut bytes = head.as_bytes().to_vec();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        agree(&bytes);
    }
}
