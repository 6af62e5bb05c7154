//! Request smuggling: requests that two parsers could read differently. None hides another.

use std::time::Duration;

use serde_json::json;

use crate::harness::Edge;
use crate::harness::client::everything;
use crate::harness::recorder::{Recorder, Seen};

/// What stands hidden in the others. A backend must never see it as a request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\nX: ";

/// What may come of an attack.
#[derive(Clone, Copy)]
enum Expect {
    /// The edge refuses it, and no backend gets it.
    Refused,
    /// So it is, with this status, and by a problem of ours that names this header.
    Told(u16, &'static str),
    /// A backend gets one request, with this body.
    One(&'static [u8]),
    /// The one or the other: both are safe.
    Either(&'static [u8]),
}

use Expect::{Either, One, Refused, Told};

/// `POST /` with these lines, and what follows them; `%` is the hidden request.
fn attacks() -> Vec<(&'static str, Expect, String)> {
    let post = |lines: &str, rest: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{rest}");
    let te = |line: &str| post(&format!("{line}\r\nContent-Length: 4"), "0\r\n\r\n%");
    let cl = |lines: &str| post(lines, "hello%");
    let chunked = |lines: &str| post(lines, "0\r\n\r\n%");
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n");
    let chunks = |chunks: &str| post("Transfer-Encoding: chunked", chunks);
    vec![
        // The two ways to say how long a body is, both at once.
        ("CL.TE", Told(400, "Content-Length"), post("Content-Length: 60\r\nTransfer-Encoding: chunked", "0\r\n\r\n%")),
        (
            "TE.CL",
            Told(400, "Content-Length"),
            post("Transfer-Encoding: chunked\r\nContent-Length: 4", "5\r\nhello\r\n0\r\n\r\n%"),
        ),
        (
            "CL.TE with 0",
            Told(400, "Content-Length"),
            post("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n%"),
        ),
        (
            "CL.TE in other letters",
            Told(400, "Content-Length"),
            post("cONTENT-lENGTH:4\r\ntRANSFER-eNCODING:CHUNKED", "0\r\n\r\n%"),
        ),
        (
            "CL.TE with a length that is none",
            Told(400, "Content-Length"),
            post("Content-Length: x\r\nTransfer-Encoding: chunked", "0\r\n\r\n%"),
        ),
        (
            "CL.TE behind a lone LF",
            Told(400, "Content-Length"),
            post("X: y\nContent-Length: 4\nTransfer-Encoding: chunked", "0\r\n\r\n%"),
        ),
        ("CL.TE of a GET", Told(400, "Content-Length"), {
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n%".into()
        }),
        // One of two codings that only some understand.
        ("two codings", Refused, te("Transfer-Encoding: chunked\r\nTransfer-Encoding: x")),
        (
            "two codings, the last known",
            Told(501, "Transfer-Encoding"),
            chunked("Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
        ),
        ("a list with a coding before", Told(501, "Transfer-Encoding"), chunked("Transfer-Encoding: gzip, chunked")),
        ("a list of codings", Refused, te("Transfer-Encoding: chunked, identity")),
        ("chunked twice", Told(501, "Transfer-Encoding"), chunked("Transfer-Encoding: chunked, chunked")),
        ("identity", Refused, te("Transfer-Encoding: identity")),
        ("xchunked", Refused, te("Transfer-Encoding: xchunked")),
        ("chunkedx", Refused, te("Transfer-Encoding: chunkedx")),
        ("in quotes", Refused, te("Transfer-Encoding: \"chunked\"")),
        ("with a parameter", Refused, te("Transfer-Encoding: chunked;x=y")),
        ("no coding", Refused, te("Transfer-Encoding:")),
        ("a vertical tab", Refused, te("Transfer-Encoding:\u{b}chunked")),
        ("a zero byte", Refused, te("Transfer-Encoding: chunked\0")),
        ("a space before the colon", Refused, te("Transfer-Encoding : chunked")),
        ("a tab before the colon", Refused, te("Transfer-Encoding\t: chunked")),
        ("a folded coding", Refused, te("Transfer-Encoding:\r\n chunked")),
        ("a coding in a folded line", Refused, te("X: y\r\n Transfer-Encoding: chunked")),
        ("a coding behind a lone LF", Either(b""), post("X: y\nTransfer-Encoding: chunked", "0\r\n\r\n%")),
        ("a coding behind a lone CR", Refused, te("X: y\rTransfer-Encoding: chunked")),
        // Lengths that are none, or more than one.
        ("two lengths", Refused, cl("Content-Length: 5\r\nContent-Length: 6")),
        ("a list of lengths", Refused, cl("Content-Length: 5, 6")),
        ("two equal lengths", Told(400, "Content-Length"), cl("Content-Length: 5\r\nContent-Length: 5")),
        ("a list of equal lengths", Told(400, "Content-Length"), cl("Content-Length: 5, 5")),
        ("a list of equal lengths without blanks", Told(400, "Content-Length"), cl("Content-Length: 5,5")),
        ("equal lengths in a list and a line", Refused, cl("Content-Length: 5, 5\r\nContent-Length: 5")),
        ("a list of one length", Refused, cl("Content-Length: 5,")),
        ("a length behind a comma", Refused, cl("Content-Length: ,5")),
        ("a sign", Refused, cl("Content-Length: +5")),
        ("a negative length", Refused, cl("Content-Length: -5")),
        ("hexadecimal", Refused, cl("Content-Length: 0x5")),
        ("a fraction", Refused, cl("Content-Length: 5.0")),
        ("a blank within", Refused, cl("Content-Length: 5 0")),
        ("no length", Refused, cl("Content-Length:")),
        ("a length beyond all numbers", Refused, cl("Content-Length: 18446744073709551621")),
        ("a space before the colon of a length", Refused, cl("Content-Length : 5")),
        ("a folded length", Refused, cl("Content-Length: 5\r\n 0")),
        ("a length in a folded line", Refused, cl("X: y\r\n\tContent-Length: 5")),
        // Chunks that are none.
        ("a size with a sign", Refused, chunks("+5\r\nhello\r\n0\r\n\r\n%")),
        ("a size with 0x", Refused, chunks("0x5\r\nhello\r\n0\r\n\r\n%")),
        ("a negative size", Refused, chunks("-1\r\nhello\r\n0\r\n\r\n%")),
        // Pingora takes them, and writes chunks of its own to the backend.
        ("white space after a size", Either(b"hello"), chunks("5 \t\r\nhello\r\n0\r\n\r\n")),
        ("a lone LF in an extension", Either(b"hello"), chunks("5;a\nb\r\nhello\r\n0\r\n\r\n")),
        ("a request in an extension", Either(b"hello"), chunks("5;\n0\n\n%\r\nhello\r\n0\r\n\r\n")),
        ("no size", Either(b""), chunks("\r\nhello\r\n0\r\n\r\n%")),
        ("a size beyond all numbers", Refused, chunks("10000000000000005\r\nhello\r\n0\r\n\r\n%")),
        ("a chunk longer than it says", Refused, chunks("3\r\nhello\r\n0\r\n\r\n%")),
        // Versions.
        (
            "chunks in HTTP/1.0",
            Refused,
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n%"
                .into(),
        ),
        ("HTTP/0.9", Refused, "GET /\r\n\r\n%".into()),
        ("HTTP/2 by name", Refused, "GET / HTTP/2.0\r\nHost: a\r\n\r\n%".into()),
        // Hosts.
        ("two hosts", Refused, post("Host: b\r\nContent-Length: 0", "")),
        ("another host in the target", Refused, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("another host in the target, and none beside it", Told(400, "Host"), get("http://b/", "X: y")),
        ("the same host in the target", One(b""), get("http://b/", "Host: b\r\nConnection: close")),
        ("no host", Told(400, "Host"), get("/", "X: y")),
        ("a host of nothing", Told(400, "Host"), get("/", "Host:")),
        ("a host with a path", Told(400, "Host"), get("/", "Host: a/b")),
        ("a host with a path behind its port", Told(400, "Host"), get("/", "Host: a:80/b")),
        ("a host with a query", Told(400, "Host"), get("/", "Host: a?b")),
        ("a host with a blank", Told(400, "Host"), get("/", "Host: a b")),
        ("a host with a backslash", Told(400, "Host"), get("/", "Host: a\\b")),
        ("a host with a port that is none", Told(400, "Host"), get("/", "Host: a:b")),
        ("a host with two ports", Told(400, "Host"), get("/", "Host: a:80:80")),
        ("a host that is no text", Told(400, "Host"), get("/", "Host: \u{fc}")),
        ("an address without its end", Told(400, "Host"), get("/", "Host: [::1")),
        ("a host with a path in HTTP/1.0", Told(400, "Host"), "GET / HTTP/1.0\r\nHost: a/b\r\n\r\n".into()),
        ("a host with a user", Refused, get("/", "Host: b@a")),
        // Targets that are none.
        ("a target without a slash", Told(400, "target"), get("x/", "Host: a")),
        ("a target that is a host", Told(400, "target"), get("a:80", "Host: a")),
        ("a target of another scheme", Told(400, "target"), get("ftp://a/", "Host: a")),
        ("CONNECT", Refused, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n%".into()),
        // Names that some take for others.
        (
            "an underscore",
            One(b""),
            "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nConnection: close\r\n\r\n".into(),
        ),
        ("a header that is not to be forwarded", One(b"hello"), {
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length\r\nContent-Length: 5\r\n\r\nhello%".into()
        }),
        ("an upgrade that nobody grants", One(b""), {
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n%".into()
        }),
        ("an upgrade with a body", Either(b"hello"), {
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\
             Content-Length: 5\r\n\r\nhello%"
                .into()
        }),
        ("an upgrade to HTTP/2", One(b""), {
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings, close\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n%"
                .into()
        }),
        ("the preface of HTTP/2", Refused, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
    ]
}

fn edge(recorder: &Recorder) -> Edge {
    Edge::setup()
        .proxies_to(json!({ "servers": [{ "address": recorder.address() }], "timeouts": { "read": "5s" } }))
        .ticket(json!({ "total": 1_000_000, "seed_dialect": true }))
        .set("client", json!({ "keepalive": "500ms", "read": "500ms" }))
        .start()
}

/// What is wrong with how an attack ended.
fn judge(expect: Expect, answers: &str, seen: &[&Seen]) -> Option<String> {
    let is_refused = answers.starts_with("HTTP/1.1 4") || answers.starts_with("HTTP/1.1 501") || answers.is_empty();
    let refused = seen.is_empty() && is_refused;
    let told = |status: u16, field: &str| {
        answers.starts_with(&format!("HTTP/1.1 {status} "))
            && answers.contains(&format!("\"field\":\"{field}\""))
            && answers.contains("Connection: close")
    };
    let one = |body: &[u8]| matches!(seen, [only] if only.body == body) && answers.starts_with("HTTP/1.1 200");
    let is_right = match expect {
        Refused => refused,
        Told(status, field) => refused && told(status, field),
        One(body) => one(body),
        Either(body) => refused || one(body),
    };
    (!is_right).then(|| format!("{seen:?} {answers:?}"))
}

#[test]
fn no_request_hides_another() {
    let recorder = Recorder::start();
    let edge = edge(&recorder);
    let attacks = attacks();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = attacks
            .iter()
            .enumerate()
            .map(|(number, (name, expect, bytes))| {
                let (edge, recorder) = (&edge, &recorder);
                scope.spawn(move || {
                    // Each has a path of its own, so that they can be told apart when all is over.
                    let path = format!("/{number}-");
                    let bytes = bytes.replace('%', HIDDEN).replacen(" / ", &format!(" {path} "), 1);
                    let bytes = bytes.replacen("://b/ ", &format!("://b{path} "), 1);
                    let answers = String::from_utf8_lossy(&everything(edge.address(), bytes.as_bytes())).into_owned();
                    // An edge that gives up on a client may still be sending what it had of the request.
                    std::thread::sleep(Duration::from_millis(200));
                    let all = recorder.requests();
                    let seen: Vec<&Seen> = all.iter().filter(|seen| seen.line.contains(&path)).collect();
                    judge(*expect, &answers, &seen).map(|wrong| format!("{name}: {wrong}"))
                })
            })
            .collect();
        running.into_iter().filter_map(|attack| attack.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), attacks.len());
    let hidden: Vec<Seen> = recorder.requests().into_iter().filter(|seen| seen.line.contains("hidden")).collect();
    assert!(hidden.is_empty(), "{hidden:#?}");
    assert_eq!(edge.sold(), 0);
}

#[test]
fn a_purchase_hidden_in_another_request_is_none() {
    let recorder = Recorder::start();
    let edge = edge(&recorder);
    let hidden = "POST /buy/ticket HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding : chunked",
        "Content-Length: 5\r\nContent-Length: 80",
        "Content-Length: 5\r\n 0",
        "X: y\r\n Content-Length: 0",
    ] {
        for path in ["/elsewhere", "/buy/ticket?quantity=0", "/sales/ticket"] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n{hidden}");
            let answers = String::from_utf8_lossy(&everything(edge.address(), request.as_bytes())).into_owned();
            assert!(!answers.contains("HELD"), "{lines:?} {path}: {answers}");
        }
    }
    assert_eq!(edge.sold(), 0);
}

#[test]
fn ambiguous_requests_buy_nothing() {
    let recorder = Recorder::start();
    let edge = edge(&recorder);
    // Behind the second, the connection is Pingora's: the front door never sees what follows.
    let befores = [
        "",
        "POST /before HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /before HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ];
    let both = "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked";
    for before in befores {
        for (lines, status, field) in [
            (both, 400, "Content-Length"),
            ("Host: a/b", 400, "Host"),
            ("X: y", 400, "Host"),
            ("Host: a\r\nTransfer-Encoding: gzip, chunked", 501, "Transfer-Encoding"),
        ] {
            for target in ["/buy/ticket", "/sales/ticket", "/elsewhere"] {
                let request = format!("{before}POST {target} HTTP/1.1\r\n{lines}\r\n\r\n0\r\n\r\n");
                let answers = everything(edge.address(), request.as_bytes());
                let answers = String::from_utf8_lossy(&answers).into_owned();
                let last = answers.rfind("HTTP/1.1 ").map_or("", |last| &answers[last..]);
                let wrong = judge(Told(status, field), last, &[]);
                assert_eq!(wrong, None, "{before:?} {lines:?} {target}: {answers}");
                assert_eq!(answers.matches("HTTP/1.1 ").count(), 1 + usize::from(!before.is_empty()), "{answers}");
            }
        }
    }
    assert!(recorder.requests().iter().all(|seen| seen.line.contains("/before")));
    assert_eq!(edge.sold(), 0);
}

#[test]
fn what_a_backend_gets_is_what_was_asked_byte_for_byte() {
    let recorder = Recorder::start();
    let edge = edge(&recorder);
    let body: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let mut connection = edge.connect();
    for (number, size) in [0usize, 1, 2, 17, 4_096, 5_000].into_iter().enumerate() {
        // What looks like another request is a part of this one.
        let mut content = HIDDEN.as_bytes().to_vec();
        content.extend_from_slice(&body[..size]);
        for chunked in [false, true] {
            let request = crate::harness::Request::new("PUT", &format!("/exact/{number}?a=%2f&b=%0d%0a"))
                .header("X-Text", "a\tb \u{fc}")
                .body("text/plain", &content);
            let request = if chunked { request.chunked(7) } else { request };
            assert_eq!(connection.ask(&request).text(), "ok");
            let last = recorder.requests().pop().unwrap();
            assert_eq!(last.line, format!("PUT /exact/{number}?a=%2f&b=%0d%0a HTTP/1.1"));
            assert_eq!(last.body, content, "{number} {chunked}");
            assert!(last.headers.contains(&("x-text".to_owned(), "a\tb \u{fc}".to_owned())), "{last:?}");
        }
    }
}
