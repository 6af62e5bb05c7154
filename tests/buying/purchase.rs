//! One buyer's purchase: quantity, buyer and limits.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::purchase::{count, order_ids, purchase, purchase_with_key};
use crate::harness::{Edge, Outcome, Redis, Request, buy, crowd, eventually};

fn by(buyer: &str) -> Request {
    purchase().header("X-User-Id", buyer)
}

fn with_limit(limit: u64, total: u64) -> Value {
    json!({ "total": total, "per_buyer": limit, "buyer": { "header": "X-User-Id" }, "deadline": "30s" })
}

fn members<'a>(outcome: &'a Outcome, names: &[&str]) -> Vec<&'a Value> {
    match outcome {
        Outcome::Ordered { order: body, .. } | Outcome::Refused { body, .. } => {
            names.iter().map(|name| &body[*name]).collect()
        }
    }
}

/// Runs a test with either ledger.
fn with_both_ledgers(story: impl Fn(crate::harness::edge::Setup)) {
    story(Edge::setup());
    let redis = Redis::start();
    story(Edge::setup().redis(&redis));
    redis.books_agree();
}

#[test]
fn an_order_says_what_was_bought_by_whom_and_until_when() {
    with_both_ledgers(|setup| {
        let edge = setup.ticket(json!({ "total": 5, "hold": "1h", "buyer": { "header": "X-User-Id" } })).start();
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let before = now();
        let answer = edge.ask(&Request::post("/buy/ticket?quantity=2").header("X-User-Id", "alice"));
        let Outcome::Ordered { id, order } = Outcome::of(&answer) else { panic!("{answer:?}") };
        assert_eq!(answer.status, 201);
        assert_eq!(
            (&order["sale"], &order["buyer"], &order["quantity"]),
            (&json!("ticket"), &json!("alice"), &json!(2))
        );
        let expires: jiff::Timestamp = order["expires_at"].as_str().unwrap().parse().unwrap();
        assert!((before + 3599..=now() + 3601).contains(&expires.as_second()), "an hour from now: {order}");
        assert_eq!(edge.order(&id), Some(order));

        let Outcome::Ordered { order, .. } = buy(edge.address(), &purchase()) else { panic!("no order") };
        assert_eq!(order["buyer"], Value::Null, "who says no name is nobody");
        assert_eq!(edge.order(&"0".repeat(32)), None);
        let malformed = edge.ask(&Request::get("/sales/ticket/orders/not-an-id"));
        assert_eq!((malformed.status, malformed.problem().as_str()), (400, "bad-request"));
    });
}

#[test]
fn what_is_left_is_shown_to_everyone() {
    with_both_ledgers(|setup| {
        let edge = setup.ticket(json!({ "total": 3 })).start();
        assert_eq!(edge.shown(), json!({ "sale": "ticket", "total": 3, "available": 3, "state": "open" }));
        assert!(buy(edge.address(), &Request::post("/buy/ticket?quantity=2")).is_order());
        eventually("it is seen", || (edge.shown()["available"] == 1).then_some(()));
        assert!(buy(edge.address(), &purchase()).is_order());
        eventually("it is seen", || (edge.shown()["state"] == "sold_out").then_some(()));
        assert_eq!(edge.shown(), json!({ "sale": "ticket", "total": 3, "available": 0, "state": "sold_out" }));
        let unknown = edge.ask(&Request::get("/sales/other"));
        assert_eq!(unknown.status, 404, "{unknown:?}");
    });
}

#[test]
fn a_purchase_of_more_than_is_left_gets_the_number_left() {
    with_both_ledgers(|setup| {
        let edge = setup.ticket(json!({ "total": 5, "seed_dialect": true })).start();
        assert!(buy(edge.address(), &Request::post("/buy/ticket?quantity=3")).is_order());

        let outcome = buy(edge.address(), &Request::post("/buy/ticket?quantity=3"));
        assert_eq!(
            (outcome.name(), members(&outcome, &["status", "left"])),
            ("not-enough-left", vec![&json!(409), &json!(2)])
        );
        let outcome = buy(edge.address(), &Request::get("/buy/ticket?quantity=3"));
        assert_eq!((outcome.name(), members(&outcome, &["left"])), ("not-enough-left", vec![&json!(2)]));

        assert!(buy(edge.address(), &Request::post("/buy/ticket").json(&json!({ "quantity": 2 }))).is_order());
        let outcome = buy(edge.address(), &Request::post("/buy/ticket?quantity=3"));
        assert_eq!((outcome.name(), members(&outcome, &["status"])), ("sold-out", vec![&json!(409)]));
        assert_eq!(edge.sold(), 5);
    });
}

#[test]
fn an_order_larger_than_the_local_stock_is_possible() {
    with_both_ledgers(|setup| {
        let edge = setup.ticket(json!({ "total": 120, "local_stock": 10 })).start();
        let request = |_| Request::post("/buy/ticket?quantity=50");
        let outcomes: Vec<Outcome> = crowd(5, 5, &[edge.address()], request).iter().map(Outcome::of).collect();
        assert_eq!((count(&outcomes, "ordered"), count(&outcomes, "not-enough-left")), (2, 3), "{outcomes:?}");
        assert_eq!(edge.sold(), 100);
    });
}

#[test]
fn a_buyer_gets_no_more_than_the_limit() {
    with_both_ledgers(|setup| {
        let edge = setup.ticket(with_limit(3, 100)).start();
        assert!(buy(edge.address(), &by("alice")).is_order());
        let two_more = Request::post("/buy/ticket?quantity=2").header("X-User-Id", "alice");
        assert!(buy(edge.address(), &two_more).is_order());
        for _ in 0..3 {
            let outcome = buy(edge.address(), &by("alice"));
            assert_eq!(outcome.name(), "buyer-limit");
            assert_eq!(members(&outcome, &["status", "limit", "have"]), [&json!(409), &json!(3), &json!(3)]);
        }
        let four = Request::post("/buy/ticket?quantity=4").header("X-User-Id", "bob");
        let outcome = buy(edge.address(), &four);
        assert_eq!((outcome.name(), members(&outcome, &["have"])), ("buyer-limit", vec![&json!(0)]));
        assert!(buy(edge.address(), &by("bob")).is_order(), "one buyer's limit is not another's");
        assert_eq!(edge.sold(), 4);
    });
}

#[test]
fn the_limit_holds_for_concurrent_purchases_at_two_edges() {
    let redis = Redis::start();
    let edge = || Edge::setup().redis_at(&redis.url(), "10s").ticket(with_limit(3, 1000)).start();
    let edges = [edge(), edge()];
    let addresses: [SocketAddr; 2] = edges.each_ref().map(Edge::address);

    // Twenty buyers want fifty tickets each, all at once and at both edges.
    let request = |number: usize| by(&format!("buyer-{}", number % 20));
    let outcomes: Vec<Outcome> = crowd(40, 1000, &addresses, request).iter().map(Outcome::of).collect();

    assert_eq!((count(&outcomes, "ordered"), count(&outcomes, "buyer-limit")), (60, 940));
    for buyer in 0..20 {
        let own: Vec<Outcome> = outcomes.iter().skip(buyer).step_by(20).cloned().collect();
        assert_eq!(count(&own, "ordered"), 3, "buyer {buyer}");
    }
    assert_eq!(redis.books_agree(), order_ids(&outcomes));
}

#[test]
fn the_limit_holds_for_concurrent_purchases_with_the_embedded_ledger() {
    let edge = Edge::setup().ticket(with_limit(2, 100)).start();
    let request = |number: usize| by(&format!("buyer-{}", number % 5));
    let outcomes: Vec<Outcome> = crowd(40, 500, &[edge.address()], request).iter().map(Outcome::of).collect();
    assert_eq!((count(&outcomes, "ordered"), count(&outcomes, "buyer-limit")), (10, 490));
    assert_eq!(edge.sold(), 10);
}

#[test]
fn a_limit_needs_a_buyer() {
    let edge = Edge::setup().ticket(with_limit(3, 100)).start();
    let outcome = buy(edge.address(), &purchase());
    assert_eq!(outcome.name(), "bad-request", "whoever says no name cannot be counted");
    assert_eq!(edge.sold(), 0);
}

#[test]
fn the_buyer_is_read_from_where_the_settings_say() {
    let sale = |buyer: Value| json!({ "total": 100, "buyer": buyer });
    let buyer_of = |edge: &Edge, request: &Request| match buy(edge.address(), request) {
        Outcome::Ordered { order, .. } => order["buyer"].clone(),
        refused @ Outcome::Refused { .. } => panic!("{refused:?}"),
    };

    let edge = Edge::setup().ticket(sale(json!({ "query": "user" }))).start();
    assert_eq!(buyer_of(&edge, &Request::post("/buy/ticket?user=alice%20b")), "alice b");
    assert_eq!(buyer_of(&edge, &by("alice")), Value::Null, "the header means nothing here");
    let form = Request::post("/buy/ticket?user=carol").body("application/x-www-form-urlencoded", "quantity=1");
    assert_eq!(buyer_of(&edge, &form), "carol");

    let edge = Edge::setup().ticket(sale(json!({ "body": "user_id" }))).start();
    assert_eq!(buyer_of(&edge, &purchase().json(&json!({ "user_id": "bob" }))), "bob");
    assert_eq!(buyer_of(&edge, &purchase().body("application/x-www-form-urlencoded", "user_id=b+%C3%BC")), "b ü");
    assert_eq!(
        buyer_of(&edge, &Request::post("/buy/ticket?user_id=alice")),
        Value::Null,
        "the query means nothing here"
    );

    let edge = Edge::setup().ticket(json!({ "total": 100 })).start();
    assert_eq!(buyer_of(&edge, &by("alice")), Value::Null, "nobody is told apart");
}

#[test]
fn get_buys_only_with_the_seed_dialect() {
    let edge = Edge::setup().ticket(json!({ "total": 5 })).start();
    let answer = edge.ask(&Request::get("/buy/ticket"));
    assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"));
    assert_eq!(answer.header("allow"), Some("POST"));
    assert_eq!(edge.sold(), 0);

    let edge = Edge::setup().ticket(json!({ "total": 5, "seed_dialect": true })).start();
    let key = purchase_with_key("one").header("X-Unused", "1");
    assert_eq!(edge.ask(&key).status, 201, "POST keeps its own way of answering");
    assert!(buy(edge.address(), &Request::get("/buy/ticket")).is_order());
    let answer = edge.ask(&Request::new("DELETE", "/buy/ticket"));
    assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"));
    assert_eq!(edge.sold(), 2);
}
