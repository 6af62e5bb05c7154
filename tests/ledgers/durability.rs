//! Data that Redis loses. The edges notice the loss, stop the sale, and write the lost orders again.

mod failover;
mod power_loss;
mod promises;
mod reconciling;

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::purchase::{order_ids, purchase, purchase_with_key};
use crate::harness::{Edge, Outcome, Request, buy, crowd, eventually};

const LOST: &str = "ledger-lost-data";

/// Refusals that are allowed while Redis does not answer or is compared.
const AWAY: [&str; 4] = ["ledger-unavailable", "outcome-unknown", "busy", LOST];

fn tickets(total: u64) -> Value {
    json!({ "total": total, "deadline": "5s", "local_stock": 20, "hold": "1h" })
}

/// Purchases of one ticket that must all be made; the ids of their orders.
#[track_caller]
fn sell(edge: &Edge, count: usize) -> BTreeSet<String> {
    let outcomes: Vec<Outcome> = crowd(8, count, &[edge.address()], |_| purchase()).iter().map(Outcome::of).collect();
    let ids = order_ids(&outcomes);
    assert_eq!(ids.len(), count, "{outcomes:?}");
    ids
}

/// Buys until it works. No refusal before may say that all is sold or that data were lost.
#[track_caller]
fn sells_on(edge: &Edge) -> String {
    sells_after(edge, &AWAY[..3])
}

/// The same after lost data were repaired, which the edge learns with its next sync.
#[track_caller]
fn sells_again(edge: &Edge) -> String {
    sells_after(edge, &AWAY)
}

#[track_caller]
fn sells_after(edge: &Edge, refusals: &[&str]) -> String {
    eventually("it sells", || {
        let outcome = buy(edge.address(), &purchase());
        assert!(outcome.is_order() || refusals.contains(&outcome.name()), "{outcome:?}");
        outcome.is_order().then(|| outcome.id().to_owned())
    })
}

/// Buys until the refusal is that data were lost. There may be no order before.
#[track_caller]
fn is_fenced(edge: &Edge) {
    eventually("the fence is up", || {
        let outcome = buy(edge.address(), &purchase());
        assert!(AWAY.contains(&outcome.name()), "{outcome:?}");
        let ready = edge.control(&Request::get("/readyz"));
        (outcome.name() == LOST && ready.status == 503 && ready.text().contains("lost data of: ticket")).then_some(())
    });
    assert_eq!(edge.metric("spikegate_sale_fenced", "ticket"), 1);
    assert!(edge.metric("spikegate_purchases_total", "lost_data") >= 1);
    let shown = edge.ask(&Request::get("/sales/ticket"));
    assert_eq!((shown.status, shown.problem().as_str()), (503, LOST), "{shown:?}");
    let seed = edge.ask(&purchase_with_key("another"));
    assert_eq!((seed.status, seed.problem().as_str()), (503, LOST), "{seed:?}");
}

/// `spikegate sale reconcile ticket`: its exit code, and its report.
#[track_caller]
fn reconcile(edge: &Edge, more: &[&str]) -> (i32, Value) {
    let mut arguments = vec!["reconcile", "ticket"];
    arguments.extend(more);
    let Output { status, stdout, stderr } = edge.sale_command(&arguments);
    let report = serde_json::from_slice(&stdout);
    let report = report.unwrap_or_else(|_| json!({ "error": String::from_utf8_lossy(&stderr) }));
    (status.code().unwrap(), report)
}

/// How many differences of a kind a report has.
fn found(report: &Value, kind: &str) -> u64 {
    let differences = report["differences"].as_array().unwrap_or_else(|| panic!("no report: {report}"));
    let of_kind = differences.iter().find(|difference| difference["kind"] == kind);
    of_kind.map_or(0, |difference| difference["count"].as_u64().unwrap())
}
