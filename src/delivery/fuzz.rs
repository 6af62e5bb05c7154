//! Invariants of every log entry, even one read from a damaged ledger.

use serde_json::Value;

use super::wire;
use crate::ledger::LogEntry;

/// The events are JSON with the number of their entry, and they fit into POSTs.
pub(crate) fn can_be_told(entry: &LogEntry) {
    let events = wire::events(entry);
    let fitting = wire::fitting("ticket", 1, &events);
    assert!(fitting <= events.len() && (fitting > 0 || events.is_empty()));
    let body = wire::body("ticket", 1, &events);
    let body: Value = serde_json::from_str(&body).expect("a body is JSON");
    let told = body["events"].as_array().expect("a list");
    assert_eq!(told.len(), events.len());
    assert!(told.iter().all(|event| event["seq"] == entry.seq), "{body}");
}
