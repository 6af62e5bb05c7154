use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

const AT_MS: u64 = 1_796_126_400_001;
const AT: &str = "2026-12-01T12:00:00.001Z";

fn line(id: u8, buyer: Option<&str>) -> OrderLine {
    OrderLine { order: OrderId([id; 16]), quantity: u32::from(id), buyer: buyer.map(Arc::from) }
}

fn entry(seq: u64, change: Change) -> LogEntry {
    LogEntry { seq, at_ms: AT_MS, change }
}

fn hex(id: u8) -> String {
    OrderId([id; 16]).to_string()
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {body}"))
}

#[test]
fn every_change_has_its_events() {
    let payment: PaymentId = "pay:1".parse().expect("a payment's id");
    let entries = [
        entry(1, Change::Opened { total: 10, sold: 2 }),
        entry(2, Change::Held { expires_at_ms: AT_MS, orders: vec![line(1, Some("ann \"a\"")), line(2, None)] }),
        entry(3, Change::Paid { line: line(1, None), payment, retaken: true }),
        entry(
            4,
            Change::Released { reason: ReleaseReason::Expired, orders: vec![line(3, None), line(4, Some("bob"))] },
        ),
        entry(5, Change::Released { reason: ReleaseReason::Cancelled, orders: vec![line(5, None)] }),
        entry(6, Change::GivenUp { order: OrderId([6; 16]) }),
        entry(7, Change::State { state: SaleState::Paused }),
        entry(8, Change::Stock { change_id: "more".into(), delta: -5 }),
    ];
    let events: Vec<Event> = entries.iter().flat_map(events).collect();
    let expected = json!({ "sale": "ticket", "epoch": "000000000000000a", "events": [
        { "seq": 1, "at": AT, "kind": "opened", "total": 10, "sold": 2 },
        { "seq": 2, "at": AT, "kind": "held", "order_id": hex(1), "quantity": 1, "buyer": "ann \"a\"", "expires_at": AT },
        { "seq": 2, "at": AT, "kind": "held", "order_id": hex(2), "quantity": 2, "buyer": null, "expires_at": AT },
        { "seq": 3, "at": AT, "kind": "paid", "order_id": hex(1), "quantity": 1, "buyer": null, "payment": "pay:1",
          "retaken": true },
        { "seq": 4, "at": AT, "kind": "released", "order_id": hex(3), "quantity": 3, "buyer": null, "reason": "expired" },
        { "seq": 4, "at": AT, "kind": "released", "order_id": hex(4), "quantity": 4, "buyer": "bob", "reason": "expired" },
        { "seq": 5, "at": AT, "kind": "released", "order_id": hex(5), "quantity": 5, "buyer": null,
          "reason": "cancelled" },
        { "seq": 6, "at": AT, "kind": "given_up", "order_id": hex(6) },
        { "seq": 7, "at": AT, "kind": "state", "state": "paused" },
        { "seq": 8, "at": AT, "kind": "stock", "change_id": "more", "delta": -5 },
    ] });
    assert_eq!(parsed(&body("ticket", 10, &events)), expected);
    let ids: Vec<_> = events.iter().map(|event| (event.id.seq, event.id.part)).collect();
    assert_eq!(ids, [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0), (4, 1), (5, 0), (6, 0), (7, 0), (8, 0)]);
    assert_eq!(events[5].order, Some(OrderId([4; 16])));
    assert_eq!(events[8].order, None);
}

#[test]
fn a_batch_without_events_is_a_question() {
    assert_eq!(body("t", 255, &[]), r#"{"sale":"t","epoch":"00000000000000ff","events":[]}"#);
    assert_eq!(fitting("t", 255, &[]), 0);
}

#[test]
fn a_post_has_so_many_events_as_its_two_limits_allow() {
    let many = |count: usize, buyer: &str| -> Vec<Event> {
        let orders = (0..count).map(|_| line(1, Some(buyer))).collect();
        events(&entry(1, Change::Held { expires_at_ms: AT_MS, orders }))
    };
    assert_eq!(fitting("t", 1, &many(3, "ann")), 3);
    assert_eq!(fitting("t", 1, &many(EVENTS_MAX + 1, "ann")), EVENTS_MAX);

    let long = many(200, &"x".repeat(10_000));
    let fits = fitting("t", 1, &long);
    assert!(body("t", 1, &long[..fits]).len() <= BODY_MAX);
    assert!(body("t", 1, &long[..fits + 1]).len() > BODY_MAX, "and no fewer than that");

    let too_long = many(2, &"x".repeat(BODY_MAX));
    assert_eq!(fitting("t", 1, &too_long), 1, "it is tried alone");
}
