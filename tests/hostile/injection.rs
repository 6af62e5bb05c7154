//! Injection: input of clients in answers, in requests to backends and in logs.

use serde_json::json;

use crate::harness::purchase::{purchase, purchase_with_key};
use crate::harness::recorder::Recorder;
use crate::harness::{Answer, Edge, Outcome, Request};

/// Text that is harmful where it is not escaped.
const SPITEFUL: [&str; 8] = [
    "\"}],\"code\":1,\"x\":\"",
    "\\\",\"state\":\"PAID",
    "<script>alert(1)</script>",
    "a%0d%0aSet-Cookie: x=y",
    "\u{85}\u{2028}\u{9b}31m",
    "'; FLUSHALL; --",
    "{ticket_hash_key}:orders",
    "$(reboot)`reboot`",
];

fn edge(recorder: &Recorder) -> Edge {
    Edge::setup()
        .proxies_to(json!({ "servers": [{ "address": recorder.address() }] }))
        .ticket(json!({ "total": 1_000, "buyer": { "header": "X-User-Id" }, "stat_log": "stat.log" }))
        .start()
}

/// It has exactly the headers of an answer of ours, and a body that is JSON.
#[track_caller]
fn is_ours(answer: &Answer) {
    answer.is_our_own().json();
}

#[test]
fn hostile_input_is_escaped_in_answers() {
    let recorder = Recorder::start();
    let edge = edge(&recorder);
    for words in SPITEFUL {
        let answer = edge.ask(&purchase().header("X-User-Id", words));
        is_ours(&answer);
        if words.contains('\u{85}') {
            assert_eq!(answer.problem(), "bad-request", "control characters are no name");
        } else {
            let outcome = Outcome::of(&answer);
            let id = outcome.id().to_owned();
            let Outcome::Ordered { order, .. } = outcome else { panic!("{answer:?}") };
            assert_eq!(order["buyer"], words);
            assert_eq!(edge.order(&id).unwrap()["buyer"], words);
        }

        // Quoted as RFC 9651 has it, or refused; never an order that differs from the one that a retry gets.
        let key = words.replace('\\', "\\\\").replace('"', "\\\"");
        let request = purchase_with_key(&key).header("X-User-Id", "alice");
        let [first, again] = [edge.ask(&request), edge.ask(&request)];
        is_ours(&first);
        assert_eq!((first.status, first.header("location")), (again.status, again.header("location")), "{words}");

        for target in [
            format!("/sales/ticket/orders/{}", words.replace([' ', '<', '>', '"', '`', '{', '}', '\\'], "%20")),
            format!("/buy/ticket?quantity={}", words.replace([' ', '<', '>', '"', '`', '{', '}', '\\'], "%20")),
        ] {
            let answer = edge.ask(&Request::post(&target));
            if answer.status != 400 || answer.header("content-type") != Some("text/plain") {
                is_ours(&answer);
            }
            assert!(answer.status >= 400, "{target}: {answer:?}");
        }
        let wrong = purchase().json(&json!({ words: 1, "quantity": words }));
        let answer = edge.ask(&wrong);
        is_ours(&answer);
        assert_eq!(answer.problem(), "bad-request");
    }
    let log = std::fs::read_to_string(edge.folder().join("stat.log")).unwrap_or_default();
    let is_line = |line: &str| line.starts_with("result:") && !line.contains(['<', '$', '"']);
    assert!(log.lines().all(is_line), "{log}");
}

#[test]
fn an_answer_repeats_nothing_that_was_not_asked_for() {
    let recorder = Recorder::start();
    let edge = edge(&recorder);
    let request = |target: &str| {
        Request::post(target)
            .header("X-Request-Id", "spite-1")
            .header("Origin", "spite-2")
            .header("Cookie", "spite-3")
            .header("User-Agent", "spite-4")
            .header("X-Forwarded-Host", "spite-5")
    };
    for target in
        ["/buy/ticket?spite-6", "/sales/ticket?spite-6", "/sales/ticket/orders/spite-6", "/buy/ticket?quantity=0"]
    {
        let answer = edge.ask(&request(target));
        let all = format!("{answer:?}{}", answer.text());
        assert!(!all.contains("spite"), "{target}: {all}");
    }
    edge.ask(&request("/elsewhere"));
    let seen = recorder.requests().pop().unwrap();
    let hosts: Vec<&str> =
        seen.headers.iter().filter(|(name, _)| name == "x-forwarded-host").map(|(_, value)| value.as_str()).collect();
    assert_eq!(hosts, ["tickets.example"], "{seen:?}");
}

#[test]
fn a_line_of_the_log_is_one_line_of_plain_text() {
    let dead = crate::harness::process::free_address();
    let edge = Edge::setup().proxies_to(json!({ "servers": [{ "address": dead }] })).start();
    for (number, tail) in
        ["%0a[2999-01-01T00:00:00Z ERROR] forged", "\u{85}forged", "\u{9b}31mred", "\u{202e}desrever", "%1b[31m"]
            .iter()
            .enumerate()
    {
        // One line of a kind is written each second.
        std::thread::sleep(std::time::Duration::from_millis(1_050));
        let answer = edge.ask(&Request::get(&format!("/{number}/{}", tail.replace(' ', "%20"))));
        assert!(matches!(answer.status, 400 | 502), "{answer:?}");
    }
    edge.wait_for_log("/0/");
    let log = edge.log();
    let is_plain = |line: &str| line.starts_with('[') && line.chars().all(|c| !c.is_control() && c != '\u{202e}');
    assert!(log.lines().all(is_plain), "{log:?}");
    assert!(!log.contains("\n[2999"), "{log}");
}
