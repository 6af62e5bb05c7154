//! The order service: how orders reach it, and how they are paid and cancelled.

mod payments;
mod receiving;
mod sending;
mod shop;

use serde_json::{Value, json};

const AT: &str = "2026-11-22T20:00:00.000Z";
const END: &str = "2026-11-22T20:05:00.000Z";

/// The order ID with this number.
fn id(number: usize) -> String {
    format!("{number:032x}")
}

fn held(seq: u64, order: &str, buyer: &str) -> Value {
    json!({ "seq": seq, "at": AT, "kind": "held", "order_id": order, "quantity": 1, "buyer": buyer, "expires_at": END })
}

fn paid(seq: u64, order: &str, payment: &str) -> Value {
    json!({ "seq": seq, "at": AT, "kind": "paid", "order_id": order, "quantity": 1, "buyer": "ann", "payment": payment,
            "retaken": false })
}

fn released(seq: u64, order: &str, reason: &str) -> Value {
    json!({ "seq": seq, "at": AT, "kind": "released", "order_id": order, "quantity": 1, "buyer": "ann", "reason": reason })
}
