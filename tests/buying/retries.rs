//! Retries: the same idempotency key returns the same order, at every edge and after every failure.

use serde_json::{Value, json};

use crate::harness::purchase::{count, order_ids, purchase, purchase_with_key};
use crate::harness::{Edge, Network, Outcome, Redis, Request, buy, crowd, eventually};

fn tickets(total: u64) -> Value {
    json!({ "total": total, "seed_dialect": true, "buyer": { "header": "X-User-Id" } })
}

#[test]
fn the_same_key_has_the_same_answer_byte_for_byte() {
    let redis = Redis::start();
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let edge = setup.ticket(tickets(10)).start();
        let mut connection = edge.connect();
        let first = connection.ask(&purchase_with_key("k1"));
        assert!(Outcome::of(&first).is_order());
        for _ in 0..3 {
            let again = connection.ask(&purchase_with_key("k1"));
            assert_eq!((again.status, again.text()), (201, first.text()));
            assert_eq!(again.header("location"), first.header("location"));
        }
        assert_eq!(edge.sold(), 1);
        assert_eq!(edge.metric("spikegate_purchases_total", "outcome=\"ordered\""), 1);
        assert_eq!(edge.metric("spikegate_purchases_total", "outcome=\"repeated\""), 3);
    }
}

#[test]
fn a_key_may_stand_in_any_of_its_places() {
    let edge = Edge::setup().ticket(tickets(10)).start();
    let ways = [
        purchase_with_key("k1"),
        purchase().header("Idempotency-Key", "k1"),
        purchase().header("idempotency-key", "  \"k1\"  "),
        Request::post("/buy/ticket?idempotency_key=k1"),
        Request::post("/buy/ticket?idempotency_key=%6b1&quantity=1"),
        purchase().json(&json!({ "idempotency_key": "k1" })),
        purchase().body("application/x-www-form-urlencoded", "idempotency_key=k1"),
        purchase_with_key("k1").json(&json!({ "idempotency_key": "k1", "quantity": 1 })),
        Request::get("/buy/ticket?idempotency_key=k1"),
        Request::get("/buy/ticket").header("Idempotency-Key", "k1"),
    ];
    let ids: Vec<String> = ways.iter().map(|way| buy(edge.address(), way).id().to_owned()).collect();
    assert_eq!(ids, vec![ids[0].clone(); ways.len()]);
    assert_eq!(edge.sold(), 1);
}

#[test]
fn the_same_key_at_another_edge_has_the_same_answer() {
    let redis = Redis::start();
    let edges = [(); 2].map(|()| Edge::setup().redis(&redis).ticket(tickets(10)).start());
    let first = edges[0].ask(&purchase_with_key("k1"));
    let there = edges[1].ask(&purchase_with_key("k1"));
    assert!(Outcome::of(&first).is_order());
    assert_eq!((there.status, there.text()), (201, first.text()));
    assert_eq!(redis.sold(), 1);
}

#[test]
fn many_at_a_time_with_one_key_get_one_order() {
    let redis = Redis::start();
    let edges = [(); 2].map(|()| Edge::setup().redis(&redis).ticket(tickets(100)).start());
    let addresses = edges.each_ref().map(Edge::address);

    // Ten keys, each asked forty times at once and at both edges.
    let answers = crowd(40, 400, &addresses, |number| purchase_with_key(&format!("key-{}", number % 10)));

    for key in 0..10 {
        let own: Vec<&str> = answers.iter().skip(key).step_by(10).map(|answer| answer.text()).collect();
        assert_eq!(own, vec![own[0]; 40], "one answer for key {key}");
    }
    assert!(answers.iter().all(|answer| Outcome::of(answer).is_order()));
    assert_eq!(redis.books_agree().len(), 10);
}

#[test]
fn a_key_used_for_something_else_is_refused() {
    let redis = Redis::start();
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let edge = setup.ticket(tickets(10)).start();
        assert!(buy(edge.address(), &purchase_with_key("k1")).is_order());
        let other = Request::post("/buy/ticket?quantity=2").header("Idempotency-Key", "k1");
        let answer = edge.ask(&other);
        assert_eq!((answer.status, answer.problem().as_str()), (422, "key-reused"));
        let other = Request::get("/buy/ticket?quantity=2").header("Idempotency-Key", "k1");
        assert_eq!(buy(edge.address(), &other).name(), "key-reused");
        assert_eq!(edge.sold(), 1);
    }
}

#[test]
fn one_buyers_key_is_not_anothers() {
    let edge = Edge::setup().ticket(tickets(10)).start();
    let by = |buyer: &str, key: &str| buy(edge.address(), &purchase_with_key(key).header("X-User-Id", buyer));
    // Names of one length, and names and keys that are the same text when they are put together.
    let pairs = [("alice", "k1"), ("carol", "k1"), ("alic", "ek1"), ("alicek", "1")];
    let mut outcomes: Vec<Outcome> = pairs.iter().map(|(buyer, key)| by(buyer, key)).collect();
    outcomes.push(buy(edge.address(), &purchase_with_key("k1")));
    outcomes.push(buy(edge.address(), &purchase_with_key("alicek1")));
    assert_eq!(order_ids(&outcomes).len(), 6);
    assert_eq!(by("alice", "k1"), outcomes[0]);
    assert_eq!(edge.sold(), 6);
}

#[test]
fn a_refusal_is_not_remembered() {
    let edge = Edge::setup().ticket(tickets(1)).start();
    assert!(buy(edge.address(), &purchase()).is_order());
    assert_eq!(buy(edge.address(), &purchase_with_key("k1")).name(), "sold-out");
    edge.operate("stock", &json!({ "change_id": "more", "delta": 1 }));
    let bought = eventually("the new ticket is to be had", || {
        let outcome = buy(edge.address(), &purchase_with_key("k1"));
        outcome.is_order().then_some(outcome)
    });
    assert_eq!(buy(edge.address(), &purchase_with_key("k1")), bought);
}

#[test]
fn an_order_is_found_again_after_all_is_sold_at_every_edge_and_after_a_restart() {
    let redis = Redis::start();
    let setup = || Edge::setup().redis(&redis).ticket(tickets(20));
    let mut first = setup().start();
    let second = setup().start();
    let request = |number: usize| purchase_with_key(&format!("key-{number}"));
    let answers = crowd(10, 40, &[first.address(), second.address()], request);
    assert_eq!(redis.books_agree().len(), 20);
    first.kill9();
    first.start_again();
    let fresh = setup().start();

    for edge in [&first, &second, &fresh] {
        let mut connection = edge.connect();
        for (number, answer) in answers.iter().enumerate() {
            let again = connection.ask(&request(number));
            assert_eq!((again.status, again.text()), (answer.status, answer.text()), "key {number}");
        }
    }
    assert_eq!(redis.sold(), 20);
}

#[test]
fn a_purchase_whose_edge_was_killed_before_it_answered_is_found_at_another_edge_even_when_all_is_sold() {
    let redis = Redis::start();
    let network = Network::to(redis.address());
    let mut first = Edge::setup().redis_at(&network.redis_url(), "10s").ticket(tickets_slow(5)).start();
    let second = Edge::setup().redis(&redis).ticket(tickets_slow(5)).start();

    // The ledger makes the order, and its answer does not reach the edge.
    network.hold_replies();
    let mut connection = first.connect();
    connection.send(&purchase_with_key("lost").bytes());
    eventually("the ledger has made the order", || (redis.sold() == 1).then_some(()));

    // The others buy the rest at the other edge.
    let rest: Vec<Outcome> = crowd(4, 8, &[second.address()], |_| purchase()).iter().map(Outcome::of).collect();
    assert_eq!((count(&rest, "ordered"), count(&rest, "sold-out")), (4, 4));
    first.kill9();
    let answer = connection.try_answer();
    assert!(answer.is_err(), "the first edge never answered: {answer:?}");

    let answer = second.ask(&purchase_with_key("lost"));
    assert_eq!(answer.status, 201, "the order that was made is not denied: {answer:?}");
    let found = Outcome::of(&answer);
    assert!(order_ids(&rest).is_disjoint(&order_ids(std::slice::from_ref(&found))));
    assert_eq!(second.ask(&purchase_with_key("lost")).text(), answer.text());
    assert_eq!(buy(second.address(), &purchase_with_key("never seen")).name(), "sold-out");
    assert_eq!(redis.books_agree().len(), 5);
}

fn tickets_slow(total: u64) -> Value {
    json!({ "total": total, "deadline": "20s" })
}
