//! Payments and cancellations, with a real edge. Each comes to exactly one end, and the ledger has it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{held, released};
use crate::harness::purchase::purchase;
use crate::harness::{Answer, Edge, OrderService, Request, Shelf, buy, eventually};

fn edge_that_sells(total: u64, hold: &str) -> Edge {
    let sale = json!({ "total": total, "hold": hold, "deadline": "900ms", "buyer": { "header": "X-User-Id" } });
    Edge::setup().ticket(sale).start()
}

fn buy_as(address: SocketAddr, buyer: &str) -> String {
    let outcome = buy(address, &purchase().header("X-User-Id", buyer));
    assert!(outcome.is_order(), "{outcome:?}");
    outcome.id().to_owned()
}

/// An order at the edge whose delivery has come.
fn kept(edge: &Edge, service: &OrderService, seq: u64) -> String {
    let id = buy_as(edge.address(), "ann");
    service.keep(&[held(seq, &id, "ann")]);
    id
}

fn is_problem(answer: &Answer, status: u16, name: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["type"]), (status, &json!(format!("urn:spikegate:problem:{name}"))), "{answer:?}");
}

fn at_ledger(edge: &Edge, id: &str) -> Value {
    let answer = edge.control(&Request::get(&format!("/sales/ticket/orders/{id}")));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Waits until the order's payment has this state, and gives the order.
fn until(service: &OrderService, id: &str, state: &str) -> Value {
    eventually(&format!("the payment is {state}"), || {
        let order = service.order(id);
        (order["payment"]["state"] == state).then_some(order)
    })
}

fn with_both_databases(story: impl Fn(Shelf)) {
    story(Shelf::sqlite());
    story(Shelf::postgres());
}

#[test]
fn a_payment_is_approved_declined_or_told_twice() {
    with_both_databases(|shelf| {
        let edge = edge_that_sells(10, "5m");
        let shelf = shelf.with_control(edge.control_address());
        let [approves, declines, tells_twice] = shelf.services(["demo:approve", "demo:decline", "demo:twice"]);

        let id = kept(&edge, &approves, 1);
        let pay = Request::post(&format!("/orders/{id}/pay")).header("Idempotency-Key", "\"k\"");
        is_problem(&declines.pay(&id), 402, "payment-declined");
        assert_eq!(declines.order(&id)["state"], "HELD");
        assert_eq!(declines.order(&id)["payment"]["state"], "declined");
        let answer = approves.ask(&pay);
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("PAID")), "{answer:?}");
        let order = answer.json();
        assert_eq!(order["payment"]["state"], "paid");
        assert_eq!(at_ledger(&edge, &id)["payment"], order["payment"]["id"], "it went to the ledger under its own id");
        assert_eq!(declines.ask(&pay).json(), order, "the same key hears the same, at any process");
        is_problem(&approves.pay(&id), 409, "already-paid");
        is_problem(&approves.cancel(&id), 409, "already-paid");

        let id = kept(&edge, &approves, 2);
        let answer = tells_twice.pay(&id);
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("PAID")), "{answer:?}");
        assert_eq!(at_ledger(&edge, &id)["payment"], answer.json()["payment"]["id"]);
        assert_eq!(edge.snapshot()["paid"], 2);

        is_problem(&approves.pay(&"0".repeat(32)), 404, "order-unknown");
        is_problem(&approves.cancel(&"0".repeat(32)), 404, "order-unknown");
        is_problem(&approves.show("xyz"), 404, "order-unknown");
        let wrong = Request::post(&format!("/orders/{id}/pay")).header("Idempotency-Key", "");
        is_problem(&approves.ask(&wrong), 400, "bad-request");
    });
}

#[test]
fn an_order_is_paid_and_cancelled_before_its_delivery_comes() {
    let edge = edge_that_sells(10, "5m");
    let service = Shelf::sqlite().with_control(edge.control_address());
    let service = service.service("demo");
    let (one, two) = (buy_as(edge.address(), "ann"), buy_as(edge.address(), "ann"));
    let answer = service.show(&one);
    assert_eq!((answer.status, answer.header("retry-after")), (202, Some("1")), "{answer:?}");
    assert_eq!((&answer.json()["state"], &answer.json()["buyer"]), (&json!("HELD"), &json!("ann")));
    let answer = service.pay(&one);
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("PAID")), "{answer:?}");
    assert_eq!(answer.json()["payment"]["state"], "paid");
    let answer = service.cancel(&two);
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("RELEASED")), "{answer:?}");
    is_problem(&service.pay(&two), 409, "order-released");
    assert_eq!(at_ledger(&edge, &two)["reason"], "cancelled");
    assert_eq!((edge.snapshot()["paid"].clone(), edge.sold()), (json!(1), 1));
}

#[test]
fn many_tabs_pay_once() {
    with_both_databases(|shelf| {
        let edge = edge_that_sells(10, "5m");
        let shelf = shelf.with_control(edge.control_address());
        let services = shelf.services(["demo:slow=0.2s", "demo", "demo:twice", "demo:slow=0.1s"]);
        for seq in 1..=5 {
            let id = kept(&edge, &services[0], seq);
            let payments: Vec<Value> = std::thread::scope(|scope| {
                let tabs: Vec<_> = (0..12)
                    .map(|tab| {
                        scope.spawn({
                            let (services, id) = (&services, &id);
                            move || services[tab % 4].pay(id)
                        })
                    })
                    .collect();
                let answers = tabs.into_iter().map(|tab| tab.join().unwrap());
                // One that came when all was over hears so.
                answers
                    .map(|answer| {
                        assert!(answer.status == 200 || answer.problem_name() == "already-paid", "{answer:?}");
                        answer.json()["payment"]["id"].clone()
                    })
                    .collect()
            });
            let first = at_ledger(&edge, &id)["payment"].clone();
            assert!(payments.iter().all(|payment| *payment == first), "{first}: {payments:?}");
        }
        assert_eq!(edge.snapshot()["paid"], 5);
    });
}

#[test]
fn a_slow_payment_goes_on_without_its_buyer() {
    let edge = edge_that_sells(10, "5m");
    let shelf = Shelf::sqlite().with_control(edge.control_address());
    let service = shelf.service("demo:slow=6s");
    let id = kept(&edge, &service, 1);
    let answer = service.pay(&id);
    assert_eq!((answer.status, &answer.json()["payment"]["state"]), (202, &json!("pending")), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    // Money may have been taken, so the order cannot be cancelled now.
    is_problem(&service.cancel(&id), 409, "payment-under-way");
    assert_eq!(until(&service, &id, "paid")["state"], "PAID");
    assert_eq!(at_ledger(&edge, &id)["state"], "PAID");
}

#[test]
fn a_settlement_that_the_edge_missed_is_sent_again() {
    let mut edge = edge_that_sells(10, "5m");
    let shelf = Shelf::sqlite().with_control(edge.control_address());
    let service = shelf.service("demo");
    let (one, two) = (kept(&edge, &service, 1), kept(&edge, &service, 2));
    edge.kill9();
    let (paying, cancelling) = (service.pay(&one), service.cancel(&two));
    assert_eq!((paying.status, &paying.json()["payment"]["state"]), (202, &json!("pending")), "{paying:?}");
    assert_eq!((cancelling.status, &cancelling.json()["state"]), (202, &json!("HELD")), "{cancelling:?}");
    is_problem(&service.pay(&two), 409, "order-released");
    edge.start_again();
    let paid = until(&service, &one, "paid");
    assert_eq!(at_ledger(&edge, &one)["payment"], paid["payment"]["id"]);
    eventually("the other is cancelled", || (service.order(&two)["state"] == "RELEASED").then_some(()));
    assert_eq!(at_ledger(&edge, &two)["reason"], "cancelled");
    assert_eq!(shelf.settlements(), ["paid", "cancelled"]);
}

#[test]
fn what_a_process_left_behind_is_taken_up_by_another() {
    with_both_databases(|shelf| {
        let edge = edge_that_sells(10, "5m");
        let shelf = shelf.with_control(edge.control_address());
        let [mut dies, lives] = shelf.services(["demo:slow=7s", "demo"]);
        let id = kept(&edge, &lives, 1);
        let waits = std::thread::spawn({
            let pay = Request::post(&format!("/orders/{id}/pay"));
            let address = dies.address();
            move || crate::harness::Connection::to(address).try_ask(&pay)
        });
        let payment = until(&lives, &id, "pending")["payment"]["id"].clone();
        dies.kill();
        assert!(waits.join().unwrap().is_err(), "its buyer heard nothing");
        let order = until(&lives, &id, "paid");
        assert_eq!(order["payment"]["id"], payment, "it is the same payment");
        assert_eq!(at_ledger(&edge, &id)["payment"], payment);
    });
}

#[test]
fn a_payment_without_a_ticket_is_refunded() {
    let edge = edge_that_sells(1, "1s");
    let shelf = Shelf::sqlite().with_control(edge.control_address());
    let [slow, quick] = shelf.services(["demo:slow=3s", "demo"]);

    // Ann's provider takes so long that her ticket is Bob's by then.
    let ann = kept(&edge, &slow, 1);
    assert_eq!(slow.pay(&ann).status, 202);
    let bob = eventually("bob gets the ticket", || {
        let outcome = buy(edge.address(), &purchase().header("X-User-Id", "bob"));
        outcome.is_order().then(|| outcome.id().to_owned())
    });
    assert_eq!(quick.pay(&bob).json()["state"], "PAID");
    let order = until(&quick, &ann, "refunded");
    assert_eq!((&order["state"], &order["payment"]["reason"]), (&json!("RELEASED"), &json!("sold-out")));
    is_problem(&quick.pay(&ann), 409, "refund-due");
    assert_eq!(quick.pay(&ann).json()["refund"]["state"], "refunded");

    // Somebody else has taken the money for this one.
    edge.operate("stock", &json!({ "change_id": "more", "delta": 1 }));
    let eve = eventually("eve gets one", || {
        let outcome = buy(edge.address(), &purchase().header("X-User-Id", "eve"));
        outcome.is_order().then(|| outcome.id().to_owned())
    });
    quick.keep(&[held(7, &eve, "eve")]);
    assert_eq!(edge.settle(&eve, "confirm", &json!({ "payment": "by-hand" })).status, 200);
    let answer = quick.pay(&eve);
    is_problem(&answer, 409, "refund-due");
    assert_eq!(answer.json()["refund"]["reason"], "paid-otherwise");
    let order = quick.order(&eve);
    assert_eq!((&order["state"], &order["payment"]["id"]), (&json!("PAID"), &json!("by-hand")));
    assert_eq!(shelf.settlements(), ["refunded", "paid", "refunded"]);
}

#[test]
fn a_late_payment_takes_the_order_back_and_an_older_release_does_not_undo_it() {
    let edge = edge_that_sells(1, "1s");
    let shelf = Shelf::sqlite().with_control(edge.control_address());
    let service = shelf.service("demo:slow=2.5s");
    let id = kept(&edge, &service, 2);
    assert_eq!(service.pay(&id).status, 202);
    eventually("the hold ends", || (at_ledger(&edge, &id)["state"] == "RELEASED").then_some(()));
    let order = until(&service, &id, "paid");
    // The ledger has answered, and what it logged before comes only now.
    service.keep(&[released(3, &id, "expired")]);
    assert_eq!(service.order(&id), order);
    service.keep(&[super::paid(4, &id, order["payment"]["id"].as_str().unwrap())]);
    assert_eq!(service.order(&id), order);
    assert_eq!(order["state"], "PAID");
}

#[test]
fn either_the_payment_or_the_cancellation_wins() {
    with_both_databases(|shelf| {
        let edge = edge_that_sells(100, "5m");
        let shelf = shelf.with_control(edge.control_address());
        let services = shelf.services(["demo", "demo"]);
        let mut paid = 0;
        for seq in 1..=20 {
            let id = kept(&edge, &services[0], seq);
            let (pays, cancels) = std::thread::scope(|scope| {
                let pays = scope.spawn(|| services[0].pay(&id));
                let cancels = scope.spawn(|| services[1].cancel(&id));
                (pays.join().unwrap(), cancels.join().unwrap())
            });
            let state = at_ledger(&edge, &id)["state"].clone();
            if pays.status == 200 {
                paid += 1;
                assert!(
                    ["already-paid", "payment-under-way"].contains(&cancels.problem_name().as_str()),
                    "{cancels:?}"
                );
                assert_eq!(state, "PAID");
            } else {
                is_problem(&pays, 409, "order-released");
                assert_eq!((cancels.status, &cancels.json()["state"]), (200, &json!("RELEASED")), "{cancels:?}");
                assert_eq!(state, "RELEASED");
            }
            assert_eq!(services[0].order(&id)["state"], state);
        }
        assert_eq!(edge.snapshot()["paid"], paid);
    });
}
