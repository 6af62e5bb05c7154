//! Delivery, the side of the edge: every change of a sale reaches the order service, whichever process fails.

mod edges;
mod troubles;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::edge::Setup;
use crate::harness::purchase::{order_ids, purchase};
use crate::harness::receiver::SECRET;
use crate::harness::{Backend, Edge, Outcome, Receiver, Redis, Request, becomes, buy, crowd, eventually};

/// The lease is twice this and 2 s.
const TIMEOUT: &str = "500ms";
const LEASE: Duration = Duration::from_secs(3);

/// Timeout of a POST in tests where no event may be delivered twice. Ample on a busy machine.
const AMPLE: &str = "20s";

/// An edge that delivers to these receivers.
fn told(setup: Setup, receivers: &[&Receiver]) -> Setup {
    std::fs::write(setup.folder().join("secret"), SECRET).unwrap();
    let servers: Vec<Value> = receivers.iter().map(|receiver| json!({ "address": receiver.address() })).collect();
    setup
        .upstream("orders", json!({ "servers": servers }))
        .set("delivery", json!({ "upstream": "orders", "secret_file": "secret", "timeout": TIMEOUT }))
}

fn tickets(total: u64) -> Value {
    json!({ "total": total, "seed_dialect": true, "buyer": { "header": "X-User-Id" } })
}

fn in_redis(redis: &Redis, receiver: &Receiver) -> Edge {
    told(Edge::setup().redis(redis), &[receiver]).ticket(tickets(100_000)).start()
}

fn embedded(receiver: &Receiver) -> Edge {
    told(Edge::setup(), &[receiver]).ticket(tickets(100_000)).start()
}

/// Runs a test with either ledger, with [`AMPLE`] time for a POST.
fn with_both_ledgers(story: impl Fn(&dyn Fn(&Receiver) -> Edge)) {
    let start = |setup: Setup, receiver: &Receiver| {
        told(setup, &[receiver]).delivers_within(AMPLE).ticket(tickets(100_000)).start()
    };
    story(&|receiver| start(Edge::setup(), receiver));
    let redis = Redis::start();
    story(&|receiver| start(Edge::setup().redis(&redis), receiver));
}

/// Buys `count` tickets, each with an order, and gives the orders' ids.
#[track_caller]
fn buy_many(edge: &Edge, count: usize) -> BTreeSet<String> {
    let answers =
        crowd(8, count, &[edge.address()], |number| purchase().header("X-User-Id", &format!("buyer {number}")));
    let ids = order_ids(&answers.iter().map(Outcome::of).collect::<Vec<_>>());
    assert_eq!(ids.len(), count);
    ids
}

/// `GET /sales/ticket/delivery`.
#[track_caller]
fn status(edge: &Edge) -> Value {
    let answer = edge.control(&Request::get("/sales/ticket/delivery"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Waits until all is delivered.
#[track_caller]
fn all_is_delivered(edge: &Edge) -> Value {
    eventually("all is delivered", || {
        let status = status(edge);
        (status["lag_entries"] == 0).then_some(status)
    })
}

fn gauge(edge: &Edge, name: &str) -> u64 {
    edge.metric(&format!("spikegate_delivery_{name}"), "ticket")
}

/// The orders that the receiver knows of.
fn known(receiver: &Receiver) -> BTreeSet<String> {
    receiver.orders().into_keys().collect()
}

#[test]
fn every_kind_of_change_arrives_once_and_in_order() {
    with_both_ledgers(|start| {
        let receiver = Receiver::start();
        let edge = start(&receiver);
        let ann = buy(edge.address(), &purchase().header("X-User-Id", "ann \"a\""));
        let bob = buy(edge.address(), &purchase());
        edge.operate(&format!("orders/{}/confirm", ann.id()), &json!({ "payment": "pay:1" }));
        edge.operate(&format!("orders/{}/cancel", bob.id()), &json!({}));
        edge.operate(&format!("orders/{}/confirm", bob.id()), &json!({ "payment": "pay:2" }));
        let never = "0123456789abcdef0123456789abcdef";
        edge.operate(&format!("orders/{never}/cancel"), &json!({}));
        edge.operate("pause", &json!({}));
        edge.operate("stock", &json!({ "change_id": "more", "delta": 5 }));

        let status = all_is_delivered(&edge);
        let events = receiver.events();
        assert_eq!(status["version"], 9, "{status}");
        assert_eq!(status["oldest_at"], Value::Null, "{status}");
        assert_eq!(status["set_aside"], json!([]), "{status}");
        assert!(status["owner"].as_str().is_some_and(|owner| !owner.is_empty()), "{status}");
        let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7, 8, 9], "{events:?}");

        let at = |event: &Value| event["at"].as_str().unwrap().to_owned();
        let (id, id2) = (ann.id(), bob.id());
        let expires = |seq: usize| events[seq - 1]["expires_at"].clone();
        let expected = [
            json!({ "seq": 1, "kind": "opened", "total": 100_000, "sold": 0 }),
            json!({ "seq": 2, "kind": "held", "order_id": id, "quantity": 1, "buyer": "ann \"a\"", "expires_at": expires(2) }),
            json!({ "seq": 3, "kind": "held", "order_id": id2, "quantity": 1, "buyer": null, "expires_at": expires(3) }),
            json!({ "seq": 4, "kind": "paid", "order_id": id, "quantity": 1, "buyer": "ann \"a\"", "payment": "pay:1",
                    "retaken": false }),
            json!({ "seq": 5, "kind": "released", "order_id": id2, "quantity": 1, "buyer": null, "reason": "cancelled" }),
            json!({ "seq": 6, "kind": "paid", "order_id": id2, "quantity": 1, "buyer": null, "payment": "pay:2",
                    "retaken": true }),
            json!({ "seq": 7, "kind": "given_up", "order_id": never }),
            json!({ "seq": 8, "kind": "state", "state": "paused" }),
            json!({ "seq": 9, "kind": "stock", "change_id": "more", "delta": 5 }),
        ];
        for (event, mut expected) in events.iter().zip(expected) {
            assert!(at(event).ends_with('Z'), "{event}");
            expected["at"] = event["at"].clone();
            assert_eq!(*event, expected);
        }
        assert_eq!(expires(2), edge.order(id).unwrap()["expires_at"]);
        let batches = receiver.batches();
        assert!(batches.iter().all(|batch| batch.sale == "ticket"), "{batches:?}");
        assert!(batches.iter().all(|batch| status["epoch"] == *batch.epoch && batch.epoch.len() == 16), "{batches:?}");
        let orders = receiver.orders();
        assert_eq!(orders[id], ["held", "paid"]);
        assert_eq!(orders[id2], ["held", "released", "paid"]);
    });
}

#[test]
fn a_hold_that_ends_arrives_too() {
    let receiver = Receiver::start();
    let sale = json!({ "total": 10, "hold": "1s", "deadline": "900ms" });
    let edge = told(Edge::setup(), &[&receiver]).ticket(sale).start();
    let order = buy(edge.address(), &purchase());
    let kinds = eventually("the release arrives", || {
        let kinds = receiver.orders().remove(order.id())?;
        (kinds.len() == 2).then_some(kinds)
    });
    assert_eq!(kinds, ["held", "released"]);
    let events = receiver.events();
    assert_eq!(events.last().unwrap()["reason"], "expired", "{events:?}");
}

#[test]
fn thousands_of_orders_arrive_in_few_posts() {
    with_both_ledgers(|start| {
        let receiver = Receiver::start();
        let edge = start(&receiver);
        let ids = buy_many(&edge, 3_000);
        all_is_delivered(&edge);
        assert_eq!(known(&receiver), ids);
        let events = receiver.events();
        assert_eq!(events.iter().filter(|event| event["kind"] == "held").count(), ids.len(), "each came once");
        assert!(receiver.posts() < 300, "{} posts", receiver.posts());
        edge.wait_for_metric("spikegate_delivery_events_total", "ticket", events.len() as u64);
        edge.wait_for_metric("spikegate_delivery_posts_total", "kept", receiver.posts() as u64);
        for name in ["lag_entries", "oldest_seconds", "set_aside"] {
            becomes(name, 0, || gauge(&edge, name));
        }
    });
}

#[test]
fn without_delivery_the_edge_keeps_the_log_and_makes_no_secret() {
    let edge = Edge::setup().ticket(tickets(10)).start();
    buy(edge.address(), &purchase());
    for (request, name) in [
        (Request::get("/sales/ticket/delivery"), "no-delivery"),
        (Request::post("/sales/ticket/delivery/retry"), "no-delivery"),
        (Request::get("/sales/other/delivery"), "sale-unknown"),
    ] {
        let answer = edge.control(&request);
        assert_eq!((answer.status, answer.problem().as_str()), (404, name), "{answer:?}");
    }
    assert!(!edge.folder().join("data/delivery.secret").exists());
}

#[test]
fn an_edge_that_begins_to_deliver_delivers_what_was_before_and_makes_its_secret() {
    let setup = Edge::setup().ticket(tickets(10));
    let mut edge = setup.clone().start();
    buy(edge.address(), &purchase());
    edge.signal("TERM");
    edge.wait();

    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let own = std::sync::Arc::clone(&heard);
    let backend = Backend::start(move |request| {
        let body = request.body(request.header("content-length").unwrap().parse().unwrap());
        let signature = request.header("spikegate-signature").unwrap().to_owned();
        own.lock().unwrap().push((request.line.clone(), signature, body));
        request.answer("");
        crate::harness::backend::After::Close
    });
    let edge = setup
        .upstream("orders", json!({ "servers": [{ "address": backend.address() }] }))
        .set("delivery", json!({ "upstream": "orders", "path": "/told" }))
        .start();
    all_is_delivered(&edge);
    let secret = std::fs::read_to_string(edge.folder().join("data/delivery.secret")).unwrap();
    let secret = spikegate::auth::secret::Secret::of(&secret).unwrap();
    let heard = heard.lock().unwrap();
    let mut events = Vec::new();
    for (line, signature, body) in &*heard {
        let time = signature.strip_prefix("t=").unwrap().split(',').next().unwrap().parse().unwrap();
        assert_eq!(*signature, spikegate::delivery::sign(&secret, time, body));
        let delivery: Value = serde_json::from_slice(body).unwrap();
        if line == "POST /told/orders HTTP/1.1" {
            // Whoever begins to deliver asks what is known already, and does without an answer.
            assert_eq!((&delivery["sale"], &delivery["limit"]), (&json!("ticket"), &json!(0)));
            continue;
        }
        assert_eq!(line, "POST /told HTTP/1.1");
        events.extend(delivery["events"].as_array().unwrap().clone());
    }
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["opened", "held"]);
    assert!(!edge.log().contains(std::str::from_utf8(secret.bytes()).unwrap()), "the secret is not logged");
}

#[test]
fn a_sale_made_anew_is_delivered_from_its_own_beginning() {
    let redis = Redis::start();
    redis.open_by_hand(10);
    let receiver = Receiver::start();
    let edge = told(Edge::setup().redis(&redis), &[&receiver]).ticket(json!({})).start();
    buy(edge.address(), &purchase());
    let old = all_is_delivered(&edge)["epoch"].clone();
    redis.command::<()>("DEL ticket_hash_key");
    redis.open_by_hand(20);
    let new = eventually("the new sale is delivered", || {
        let answer = edge.control(&Request::get("/sales/ticket/delivery"));
        let status = (answer.status == 200).then(|| answer.json())?;
        (status["epoch"] != old && status["delivered"] == 1).then_some(status)
    });
    let last = receiver.batches().pop().unwrap();
    assert_eq!(new["epoch"], *last.epoch);
    assert_eq!((&last.events[0]["seq"], &last.events[0]["total"]), (&json!(1), &json!(20)));
}

/// The events of each order at any of several receivers.
fn orders_of(receivers: &[&Receiver]) -> HashMap<String, Vec<String>> {
    receivers.iter().flat_map(|receiver| receiver.orders()).collect()
}
