//! An edge with the embedded ledger is killed during a sale. No confirmed order is lost, and the rest can still be
//! sold.

use std::collections::BTreeSet;
use std::io;
use std::thread::scope;

use serde_json::{Value, json};

use crate::harness::crowd::try_crowd;
use crate::harness::purchase::{count, order_ids, purchase, purchase_with_key};
use crate::harness::{Answer, Edge, Outcome, Redis, buy, crowd, eventually};

fn tickets(total: u64) -> Value {
    json!({ "total": total, "local_stock": 20, "deadline": "20s" })
}

/// The answers that arrived; a client whose edge was killed has none.
fn arrived(answers: Vec<io::Result<Answer>>) -> Vec<Outcome> {
    answers.iter().flatten().map(Outcome::of).collect()
}

#[test]
fn an_edge_that_is_killed_three_times_in_mid_sale_loses_no_order() {
    const TOTAL: u64 = 8000;
    /// Far more than are answered before the kill, and fewer than are left.
    const REQUESTS: usize = 2500;
    let mut edge = Edge::setup().ticket(tickets(TOTAL)).start();
    let mut confirmed = BTreeSet::new();
    let mut sold_before = 0;

    for round in 0..3 {
        let address = edge.address();
        let outcomes = scope(|scope| {
            let sale = scope.spawn(move || try_crowd(20, REQUESTS, &[address], |_| purchase()));
            eventually("the sale is on", || (edge.sold() >= sold_before + 50).then_some(()));
            edge.kill9();
            arrived(sale.join().unwrap())
        });
        assert_eq!(count(&outcomes, "ordered"), outcomes.len(), "there was stock for all");
        assert!(outcomes.len() < REQUESTS, "the sale of round {round} was over before the edge was killed");
        confirmed.extend(order_ids(&outcomes));
        edge.start_again();

        let snapshot = edge.snapshot();
        assert_eq!(snapshot["total"], TOTAL);
        sold_before = snapshot["sold"].as_u64().unwrap();
        // At most one batch was written and not answered when it was killed.
        let most = confirmed.len() as u64 + (round + 1) * 20;
        assert!((confirmed.len() as u64..=most).contains(&sold_before), "{} confirmed, {snapshot}", confirmed.len());
        for id in &confirmed {
            let order =
                edge.order(id).unwrap_or_else(|| panic!("order {id} was answered in round {round} and is lost"));
            assert_eq!((&order["state"], &order["quantity"]), (&json!("HELD"), &json!(1)));
        }
    }

    let rest = crowd(20, TOTAL as usize, &[edge.address()], |_| purchase());
    let rest: Vec<Outcome> = rest.iter().map(Outcome::of).collect();
    assert_eq!(count(&rest, "ordered") as u64, TOTAL - sold_before, "all that was left, and no more");
    assert_eq!(count(&rest, "sold-out") as u64, sold_before);
    assert!(order_ids(&rest).is_disjoint(&confirmed));
    assert_eq!(edge.sold(), TOTAL);
}

#[test]
fn after_a_kill_the_same_keys_have_the_same_orders_and_nobody_has_two() {
    const KEYS: usize = 300;
    let mut edge = Edge::setup().ticket(tickets(KEYS as u64)).start();
    let address = edge.address();
    let key = |number: usize| purchase_with_key(&format!("buyer-{number}"));

    let before = scope(|scope| {
        let sale = scope.spawn(|| try_crowd(20, KEYS, &[address], key));
        eventually("the sale is on", || (edge.sold() >= 50).then_some(()));
        edge.kill9();
        sale.join().unwrap()
    });
    edge.start_again();

    let after = crowd(20, KEYS, &[address], key);
    for (before, after) in before.iter().zip(&after) {
        if let Ok(before) = before {
            assert_eq!((before.status, before.text()), (after.status, after.text()));
        }
    }
    let after: Vec<Outcome> = after.iter().map(Outcome::of).collect();
    assert_eq!(order_ids(&after).len(), KEYS, "one order each");
    assert_eq!(edge.sold(), KEYS as u64);
    assert_eq!(buy(address, &purchase()).name(), "sold-out");
}

#[test]
fn changes_by_operators_survive_a_kill() {
    let mut edge = Edge::setup().ticket(tickets(10)).start();
    let lot = json!({ "change_id": "lot-2", "delta": 7 });
    edge.operate("stock", &lot);
    edge.operate("pause", &json!({}));
    edge.kill9();
    edge.start_again();

    let snapshot = edge.snapshot();
    assert_eq!((&snapshot["total"], &snapshot["state"]), (&json!(17), &json!("paused")));
    assert_eq!(edge.operate("stock", &lot)["total"], 17, "and the change is still known by its id");
    assert_eq!(buy(edge.address(), &purchase()).name(), "sale-paused");
    edge.operate("resume", &json!({}));
    eventually("it sells", || buy(edge.address(), &purchase()).is_order().then_some(()));
}

#[test]
fn an_edge_that_is_killed_beside_another_strands_no_ticket() {
    let redis = Redis::start();
    let edge = || Edge::setup().redis(&redis).ticket(tickets(500)).start();
    let (mut doomed, other) = (edge(), edge());
    let addresses = [doomed.address(), other.address()];

    let outcomes = scope(|scope| {
        let sale = scope.spawn(move || try_crowd(20, 400, &addresses, |_| purchase()));
        eventually("the sale is on", || (redis.sold() >= 50).then_some(()));
        doomed.kill9();
        arrived(sale.join().unwrap())
    });
    let confirmed = order_ids(&outcomes);
    let left = 500 - redis.sold();
    let rest: Vec<Outcome> = crowd(20, 500, &[other.address()], |_| purchase()).iter().map(Outcome::of).collect();

    assert_eq!(count(&rest, "ordered") as u64, left, "everything that the dead edge did not sell");
    assert_eq!(redis.sold(), 500);
    let books = redis.books_agree();
    assert!(confirmed.is_subset(&books) && order_ids(&rest).is_subset(&books));
    let unanswered = books.len() - confirmed.len() - order_ids(&rest).len();
    assert!(unanswered <= 20, "at most what was under way: {unanswered}");
}
