//! Purchases in unusual forms. Each has the right answer, leaves its connection in the announced state, and sells
//! nothing if it is refused.

mod bodies;
mod connections;
mod inputs;

use std::time::Duration;

use serde_json::json;

use crate::harness::purchase::purchase;
use crate::harness::{Backend, Edge, Outcome, Request, eventually};

/// What has to come of a request.
#[derive(Clone, Copy)]
enum Expect {
    /// An order of this many tickets.
    Bought(u64),
    /// A problem of our own; a bad request names the field that is wrong.
    Refused(u16, &'static str, &'static str),
    /// It is no HTTP, or of two meanings: 400, from whoever notices, and no word more on this connection.
    Malformed,
}

/// What has to become of the connection.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// The next request is answered on it.
    Stays,
    /// The answer has `Connection: close`, and the connection ends.
    Ends,
    /// Either of the two, as the answer announces.
    AsTold,
}

use Expect::{Bought, Malformed, Refused};
use Then::{AsTold, Ends, Stays};

/// A request, what has to come of it, and what has to become of its connection.
struct Case {
    name: String,
    bytes: Vec<u8>,
    expect: Expect,
    then: Then,
}

fn case(name: &str, request: &Request, expect: Expect, then: Then) -> Case {
    raw(name, request.bytes(), expect, then)
}

fn raw(name: &str, bytes: impl Into<Vec<u8>>, expect: Expect, then: Then) -> Case {
    Case { name: name.to_owned(), bytes: bytes.into(), expect, then }
}

fn bad(field: &'static str) -> Expect {
    Refused(400, "bad-request", field)
}

/// An edge that sells plenty to buyers named by a header, and sends everything else to a backend.
struct Shop {
    edge: Edge,
    _backend: Backend,
}

impl Shop {
    fn open() -> Self {
        let backend = Backend::named("backend");
        let edge = Edge::setup()
            .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
            .ticket(json!({ "total": 1_000_000, "seed_dialect": true, "buyer": { "header": "X-User-Id" } }))
            .start();
        Self { edge, _backend: backend }
    }

    /// Tries every row of a table, and reports all failures together.
    fn check(&self, cases: Vec<Case>) {
        let wrong: Vec<String> = cases
            .iter()
            .filter_map(|case| {
                let check = std::panic::AssertUnwindSafe(|| self.check_one(case));
                // The panic's own message is shown where it arose; this says for which case.
                std::panic::catch_unwind(check).is_err().then(|| case.name.clone())
            })
            .collect();
        assert!(wrong.is_empty(), "{} of {} cases are wrong: {wrong:#?}", wrong.len(), cases.len());
    }

    fn check_one(&self, case: &Case) {
        let name = &case.name;
        let before = self.edge.sold();
        let mut connection = self.edge.connect();
        // An edge that refuses may do so before it has everything; then sending on fails, and that is its right.
        let _ = connection.try_send(&case.bytes);
        let answer = connection.try_answer().unwrap_or_else(|error| panic!("{name}: no answer: {error}"));

        let bought = match case.expect {
            Bought(quantity) => {
                let outcome = Outcome::of(&answer);
                let Outcome::Ordered { order, .. } = &outcome else { panic!("{name}: {answer:?}") };
                assert_eq!(order["quantity"], quantity, "{name}: {answer:?}");
                quantity
            }
            Refused(status, problem, field) => {
                let status = if answer.status == 200 { 200 } else { status };
                let outcome = Outcome::of(&answer);
                let Outcome::Refused { name: told, status: told_status, body } = &outcome else {
                    panic!("{name}: {answer:?}")
                };
                assert_eq!((told.as_str(), *told_status), (problem, status), "{name}: {answer:?}");
                assert!(field.is_empty() || body["field"] == field, "{name}: {answer:?}");
                0
            }
            Malformed => {
                assert_eq!(answer.status, 400, "{name}: {answer:?}");
                0
            }
        };
        match case.then {
            Stays => assert!(!answer.closes(), "{name}: the connection has to stay: {answer:?}"),
            Ends => assert!(answer.closes(), "{name}: the answer has to say that it is the last: {answer:?}"),
            AsTold => {}
        }
        if answer.closes() {
            // It may linger for a while, so that its answer is not torn by what the client still sends.
            let closed = connection.is_closed_by_peer(Duration::from_secs(10));
            assert!(closed, "{name}: it said that it would end: {answer:?}");
        } else {
            assert!(!connection.has_unread(), "{name}: one request, one answer");
            let next = connection.ask(&Request::get("/sales/ticket"));
            assert_eq!((next.status, &next.json()["sale"]), (200, &json!("ticket")), "{name}: {next:?}");
            let next = connection.ask(&Request::get("/elsewhere"));
            assert_eq!(next.text(), "backend", "{name}: {next:?}");
        }
        assert_eq!(self.edge.sold(), before + bought, "{name}: what was sold");
    }
}

#[test]
fn a_client_that_leaves_before_it_has_asked_has_bought_nothing() {
    let shop = Shop::open();
    let whole = purchase().json(&json!({ "quantity": 2 })).bytes();
    for length in [1, 20, whole.len() - 30, whole.len() - 1] {
        shop.edge.connect().send(&whole[..length]);
    }
    let mut chunked = shop.edge.connect();
    chunked.send(&purchase().json(&json!({ "quantity": 2 })).chunked(4).head_bytes());
    chunked.send(b"4\r\n{\"qu\r\n");
    drop(chunked);
    let ours = eventually("the edge still sells", || {
        let answer = shop.edge.ask(&purchase());
        (answer.status == 201).then_some(answer)
    });
    assert_eq!(ours.json()["quantity"], 1);
    assert_eq!(shop.edge.sold(), 1);
}
