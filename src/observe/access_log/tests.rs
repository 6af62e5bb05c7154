use std::net::{IpAddr, SocketAddr};
use std::time::UNIX_EPOCH;

use pingora::http::RequestHeader;
use serde_json::{Value, json};

use super::*;
use crate::config::Field;
use crate::config::LogDestination;
use crate::http::request_id::RequestId;
use crate::ledger::OrderId;

/// 2026-12-01, 12:00:00.123 UTC.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_796_126_400_123)
}

fn head(fields: &[(&'static str, &[u8])]) -> RequestHeader {
    let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
    for (name, value) in fields {
        head.append_header(*name, *value).expect("a header");
    }
    head
}

fn record<'a>(target: &'a [u8], head: &'a RequestHeader) -> Record<'a> {
    Record {
        client: IpAddr::from([192, 0, 2, 7]),
        peer: SocketAddr::from(([10, 0, 0, 1], 4567)),
        target: Target { method: b"GET", target, protocol: "HTTP/1.1" },
        head,
        tls: None,
        status: Some(200),
        bytes: 17,
        duration: Some(Duration::from_micros(1_000_250)),
        id: None,
        route: None,
        upstream: None,
        backend: None,
        backend_duration: None,
        tries: 0,
        sale: None,
        outcome: None,
        order: None,
    }
}

fn combined(record: &Record<'_>) -> String {
    let mut out = Vec::new();
    combined::write(&mut out, record, now());
    String::from_utf8(out).expect("text")
}

fn json(fields: &[Field], record: &Record<'_>) -> Value {
    let mut out = Vec::new();
    json::write(&mut out, fields, record, now());
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text.find('\n'), Some(text.len() - 1), "one line");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn combined_is_as_nginx_writes_it() {
    let fields: [(&str, &[u8]); 2] = [("Referer", b"http://a.example/\"x"), ("User-Agent", b"curl/8\n\\")];
    let fields = fields.map(|(name, value)| (name, value.iter().copied().filter(|b| *b != b'\n').collect::<Vec<_>>()));
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_slice())).collect();
    let all = head(&fields);
    assert_eq!(
        combined(&record(b"/a?b=c", &all)),
        "192.0.2.7 - - [01/Dec/2026:12:00:00 +0000] \"GET /a?b=c HTTP/1.1\" 200 17 \
         \"http://a.example/\\x22x\" \"curl/8\\x5C\"\n"
    );
    let none = head(&[]);
    let line = |record: &Record<'_>| combined(record).split_once("] ").map(|(_, rest)| rest.to_owned());
    let left = Record { status: None, bytes: 0, ..record(b"/", &none) };
    assert_eq!(line(&left).as_deref(), Some("\"GET / HTTP/1.1\" 499 0 \"-\" \"-\"\n"));
    let raw = Record { target: Target::raw(b"\x16\x03\"GET"), status: Some(400), ..record(b"", &none) };
    assert_eq!(line(&raw).as_deref(), Some("\"\\x16\\x03\\x22GET\" 400 17 \"-\" \"-\"\n"));
    let silent = Record { target: Target::default(), status: Some(408), ..record(b"", &none) };
    assert_eq!(line(&silent).as_deref(), Some("\"-\" 408 17 \"-\" \"-\"\n"));
}

#[test]
fn a_json_line_has_what_was_asked_for_and_what_there_is() {
    let fields = head(&[("Host", b"shop.example"), ("Referer", b"r"), ("User-Agent", "ü\"".as_bytes())]);
    let id = RequestId::Made(0xAB);
    let whole = Record {
        tls: Some("TLSv1.3"),
        id: Some(&id),
        route: Some("/a"),
        upstream: Some("shop"),
        backend: Some(SocketAddr::from(([127, 0, 0, 1], 3001))),
        backend_duration: Some(Duration::from_millis(20)),
        tries: 2,
        sale: Some("ticket"),
        outcome: Some("ordered"),
        order: Some(OrderId([0xCD; 16])),
        ..record(b"/a/b?token=x", &fields)
    };
    let expected = json!({
        "time": "2026-12-01T12:00:00.123Z",
        "client": "192.0.2.7",
        "peer": "10.0.0.1:4567",
        "method": "GET",
        "path": "/a/b",
        "query": "token=x",
        "target": "/a/b?token=x",
        "protocol": "HTTP/1.1",
        "host": "shop.example",
        "referer": "r",
        "user_agent": "ü\"",
        "tls": "TLSv1.3",
        "status": 200,
        "bytes": 17,
        "duration": 1.00025,
        "request_id": "000000000000000000000000000000ab",
        "route": "/a",
        "upstream": "shop",
        "backend": "127.0.0.1:3001",
        "backend_duration": 0.02,
        "tries": 2,
        "sale": "ticket",
        "outcome": "ordered",
        "order_id": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
    });
    let written = json(&Field::ALL, &whole);
    assert_eq!(written, expected);
    let names: Vec<&String> = written.as_object().expect("an object").keys().collect();
    assert_eq!(names, Field::ALL.map(Field::name), "in the order that was asked for");

    let bare = head(&[]);
    let expected = json!({ "status": 200, "client": "192.0.2.7" });
    let some = [Field::Status, Field::Query, Field::Sale, Field::Host, Field::Tls, Field::Tries, Field::Client];
    assert_eq!(json(&some, &record(b"/", &bare)), expected);
    assert_eq!(json(&[Field::Query], &record(b"/", &bare)), json!({}));
    assert!(!Field::USUAL.iter().any(|field| matches!(field, Field::Query | Field::Target | Field::Referer)));
}

#[test]
fn time_goes_on() {
    let none = head(&[]);
    let mut out = Vec::new();
    for seconds in 0..3 {
        let write = |out: &mut Vec<u8>, now| json::write(out, &[Field::Time], &record(b"/", &none), now);
        write(&mut out, now() + Duration::from_secs(seconds));
    }
    let lines: Vec<_> = std::str::from_utf8(&out).expect("text").lines().collect();
    let expected = ["00.123", "01.123", "02.123"].map(|second| format!("{{\"time\":\"2026-12-01T12:00:{second}Z\"}}"));
    assert_eq!(lines, expected);
}

#[test]
fn of_refusals_exactly_their_share_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    for (refusals, expected) in [(0.0, 0), (0.01, 100), (0.25, 2_500), (1.0, 10_000)] {
        let place = LogDestination::File(folder.path().join(format!("{refusals}")));
        let settings = config::AccessLog { place, format: LogFormat::Combined, refusals };
        // Of each thread for itself, and so here.
        let (log, taken) = std::thread::scope(|scope| {
            let counted = scope.spawn(|| {
                let log = AccessLog::open(&settings).expect("opened");
                let mut taken = 0;
                for _ in 0..10_000 {
                    let is_timed = log.begin().is_some();
                    assert!(log.takes(false), "what is no refusal is always written");
                    let is_taken = log.takes(true);
                    assert_eq!(is_timed, is_taken);
                    taken += u64::from(is_taken);
                }
                (log, taken)
            });
            counted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        assert!(taken.abs_diff(expected) <= 1, "{refusals}: {taken}");
        assert_eq!(log.counts().skipped, 10_000 - taken);
    }
}
