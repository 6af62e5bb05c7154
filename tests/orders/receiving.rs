//! Delivery, the side of the order service: it keeps each event once, and only from the edge.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{held, id, paid, released};
use crate::harness::orders::{EPOCH, SECRET, delivery, question, signed};
use crate::harness::{Connection, Request, Shelf, eventually};

fn with_both_databases(story: impl Fn(Shelf)) {
    story(Shelf::sqlite());
    story(Shelf::postgres());
}

#[test]
fn what_comes_twice_overlapping_or_late_changes_nothing() {
    with_both_databases(|shelf| {
        let service = shelf.service("demo");
        let (one, two, three) = (id(1), id(2), id(3));
        let first = [held(1, &one, "ann"), held(1, &two, "ann")];
        service.keep(&first);
        let seen = (service.order(&one), service.order(&two));
        assert_eq!(
            seen.0,
            json!({ "order_id": one, "sale": "ticket", "buyer": "ann", "quantity": 1, "state": "HELD",
                    "expires_at": super::END, "payment": null, "updated_at": super::AT })
        );
        service.keep(&first);
        assert_eq!((service.order(&one), service.order(&two)), seen);

        service.keep(&[held(1, &two, "ann"), released(2, &one, "expired"), held(3, &three, "ann")]);
        assert_eq!(
            (&service.order(&one)["state"], &service.order(&one)["reason"]),
            (&json!("RELEASED"), &json!("expired"))
        );
        assert_eq!(service.order(&two), seen.1);
        // Taken back by a late payment; then all that was before comes once more, in the wrong order.
        service.keep(&[paid(4, &one, "p-1")]);
        for late in [&first[..], &[released(2, &one, "expired")], &[held(3, &three, "bob")], &[]] {
            service.keep(late);
        }
        let order = service.order(&one);
        assert_eq!((&order["state"], &order["payment"]), (&json!("PAID"), &json!({ "id": "p-1", "state": "paid" })));
        assert_eq!((order.get("reason"), &order["expires_at"]), (None, &json!(super::END)));
        assert_eq!(service.order(&three)["buyer"], "ann");

        let list = service.ask(&Request::get("/orders").header("X-User-Id", "ann")).json();
        let ids: Vec<&Value> = list["orders"].as_array().unwrap().iter().map(|order| &order["order_id"]).collect();
        assert_eq!(ids, [&json!(one), &json!(two), &json!(three)], "all are of the same moment, so by id");
        assert_eq!(service.ask(&Request::get("/orders").header("X-User-Id", "eve")).json(), json!({ "orders": [] }));
        assert_eq!(service.ask(&Request::get("/orders")).status, 400);
    });
}

#[test]
fn an_edge_is_told_what_is_known_page_by_page_and_nobody_else_is() {
    with_both_databases(|shelf| {
        let service = shelf.service("demo");
        let empty = service.ask(&question(None, 1_000));
        assert_eq!((empty.status, empty.json()), (200, json!({ "seq": 0, "orders": [] })));
        let (one, two, three) = (id(1), id(2), id(3));
        service.keep(&[held(1, &three, "ann"), held(2, &one, "ann"), paid(3, &one, "p-1"), held(4, &two, "ann")]);
        service.keep(&[released(5, &two, "expired")]);
        let known = |order: &str, seq: u64, state: &str, reason: Option<&str>, payment: Option<&str>| {
            json!({ "order_id": order, "seq": seq, "state": state, "quantity": 1, "buyer": "ann",
                    "expires_at": super::END, "reason": reason, "payment": payment })
        };
        let orders = [
            known(&one, 3, "PAID", None, Some("p-1")),
            known(&two, 5, "RELEASED", Some("expired"), None),
            known(&three, 1, "HELD", None, None),
        ];
        assert_eq!(service.ask(&question(None, 1_000)).json(), json!({ "seq": 5, "orders": orders }));
        assert_eq!(service.ask(&question(None, 0)).json(), json!({ "seq": 5, "orders": [] }));
        assert_eq!(service.ask(&question(None, 2)).json()["orders"], json!(orders[..2]));
        assert_eq!(service.ask(&question(Some(&two), 2)).json()["orders"], json!(orders[2..]));
        assert_eq!(service.ask(&question(Some(&three), 2)).json()["orders"], json!([]));

        assert_eq!(service.ask(&question(None, 2).header("Spikegate-Signature", "t=1,v1=0")).status, 401);
        let unsigned = Request::post("/hooks/spikegate/orders").json(&json!({ "sale": "ticket" }));
        assert_eq!(service.ask(&unsigned).status, 401);
        assert_eq!(service.ask(&question(Some("x"), 2)).status, 400);
    });
}

/// Four processes start at once on an empty database, and each is told the whole story at the same time, in batches
/// that begin elsewhere and come in another order.
#[test]
fn four_processes_that_are_told_at_once_keep_one_truth() {
    with_both_databases(|shelf| {
        let services = shelf.services(["demo", "demo", "demo", "demo"]);
        let orders: Vec<String> = (1..=200).map(id).collect();
        let mut log = Vec::new();
        for (seq, order) in orders.iter().enumerate() {
            log.push(held(seq as u64 + 1, order, "ann"));
        }
        for (at, order) in orders.iter().enumerate() {
            let seq = (orders.len() + at) as u64 + 1;
            log.push(if at % 2 == 0 { paid(seq, order, &format!("p-{at}")) } else { released(seq, order, "expired") });
        }
        std::thread::scope(|scope| {
            for (number, service) in services.iter().enumerate() {
                let log = &log;
                scope.spawn(move || {
                    let mut batches: Vec<&[Value]> = log.chunks(30 + 7 * number).collect();
                    batches.rotate_left(number * 2);
                    if number % 2 == 1 {
                        batches.reverse();
                    }
                    let mut connection = Connection::to(service.address());
                    for batch in batches.iter().chain(&batches) {
                        let answer = connection.ask(&delivery(batch));
                        assert_eq!(answer.status, 204, "{answer:?}");
                    }
                });
            }
        });
        let mut connection = Connection::to(services[0].address());
        for (at, order) in orders.iter().enumerate() {
            let shown = connection.ask(&Request::get(&format!("/orders/{order}"))).json();
            assert_eq!(shown["state"], if at % 2 == 0 { "PAID" } else { "RELEASED" }, "{shown}");
            assert_eq!(shown["payment"]["id"], if at % 2 == 0 { json!(format!("p-{at}")) } else { Value::Null });
        }
    });
}

#[test]
fn a_delivery_that_was_kept_but_not_answered_may_come_again() {
    with_both_databases(|shelf| {
        let [mut dies, lives] = shelf.services(["demo", "demo"]);
        for round in 0..5 {
            let orders: Vec<String> = (0..512).map(|number| id(round * 1_000 + number)).collect();
            let events: Vec<Value> = orders.iter().map(|order| held(round as u64 + 1, order, "ann")).collect();
            let mut connection = Connection::to(dies.address());
            connection.send(&delivery(&events).bytes());
            // As soon as it is to be seen it is kept, and the sender has heard nothing.
            eventually("it is kept", || {
                (lives.ask(&Request::get(&format!("/orders/{}", orders[511]))).status == 200).then_some(())
            });
            dies.kill();
            let before = lives.order(&orders[0]);
            lives.keep(&[paid(round as u64 + 10, &orders[1], "p-1")]);
            lives.keep(&events);
            assert_eq!(lives.order(&orders[0]), before);
            assert_eq!(lives.order(&orders[1])["state"], "PAID");
            dies = shelf.service("demo");
        }
    });
}

#[test]
fn only_the_edge_delivers_and_only_what_was_agreed() {
    let shelf = Shelf::sqlite();
    std::fs::remove_file(shelf.secret_file()).unwrap();
    let service = shelf.service("demo");
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let body = json!({ "sale": "ticket", "epoch": EPOCH, "events": [held(1, &id(1), "ann")] }).to_string();
    let refused = |request: &Request, status: u16, name: &str, words: &str| {
        let answer = service.ask(request);
        let problem = answer.json();
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["type"], format!("urn:spikegate:problem:{name}"));
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    };
    // The edge has not made the secret yet.
    refused(&signed(&body, now_s, SECRET), 503, "unavailable", "secret");
    std::fs::write(shelf.secret_file(), format!("  {SECRET}\n")).unwrap();

    let bare = Request::post("/hooks/spikegate").body("application/json", &body);
    refused(&bare, 401, "bad-signature", "exactly one Spikegate-Signature");
    refused(&bare.clone().header("Spikegate-Signature", "v1=1"), 401, "bad-signature", "must be t=");
    refused(&signed(&body, now_s, "another-secret-of-length"), 401, "bad-signature", "does not match");
    refused(&signed(&body, now_s - 310, SECRET), 401, "bad-signature", "5 minutes");
    refused(&signed(&body, now_s + 310, SECRET), 401, "bad-signature", "5 minutes");
    let other = signed(&body, now_s, SECRET).body("application/json", body.replace("ann", "eve"));
    refused(&other, 401, "bad-signature", "does not match");
    refused(&signed("{", now_s, SECRET), 400, "bad-request", "the body: ");
    let mut event = held(1, &id(1), "ann");
    event["order_id"] = json!("xyz");
    refused(&delivery(&[held(1, &id(2), "ann"), event]), 400, "bad-request", "events[1]: order_id: must be 32");
    refused(&signed(&"x".repeat(1024 * 1024 + 1), now_s, SECRET), 413, "too-large", "limit");
    assert_eq!(service.show(&id(1)).status, 503, "no edge can say whether there is such an order");
    assert_eq!(service.show(&id(2)).status, 503, "one bad event keeps the whole batch out");

    // A secret that is replaced counts at once.
    std::fs::write(shelf.secret_file(), "another-secret-of-length").unwrap();
    let answer = service.ask(&signed(&body, now_s, "another-secret-of-length"));
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(service.order(&id(1))["state"], "HELD");
    assert_eq!(service.ask(&Request::get("/hooks/spikegate")).status, 405);
}

#[test]
fn a_database_that_cannot_be_used_is_named_at_the_start() {
    let start = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::process::binary("spikegate-orders"));
        let output = command.args(["--listen", "127.0.0.1:0"]).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(start(&["--database", "mysql://root:geheim@db/x"]).contains("must be sqlite:FILE or postgres://"));
    assert!(!start(&["--database", "mysql://root:geheim@db/x"]).contains("geheim"));
    assert!(start(&["--database", "sqlite::memory:"]).contains("must name a file"));
    assert!(start(&["--database", "sqlite:/proc/orders.db"]).contains("cannot open the database"));
    assert!(start(&["--database", "postgres://localhost:1/x"]).contains("cannot open the database"));
    assert!(start(&["--payment", "demo"]).contains("--database"));
    assert!(start(&["--database", "sqlite:x", "--payment", "stripe"]).contains("demo:decline"));
    assert!(start(&["--database", "sqlite:x", "--control", "127.0.0.1:9180"]).contains("--control must be http://"));
}
