//! The books of an embedded ledger: counters and orders from its edge, the log from its file.

use std::collections::BTreeMap;
use std::path::Path;

use spikegate::ledger::{Change, LogEntry};
use tempfile::TempDir;

use crate::harness::books::{Books, Counters, Record};
use crate::harness::{Connection, Edge, Request};

/// Reads them while nothing is sold.
pub fn books(edge: &Edge, folder: &Path) -> Books {
    let sale = edge.snapshot();
    let count = |name: &str| sale[name].as_u64().unwrap();
    let counters =
        Counters { total: count("total"), sold: count("sold"), paid: count("paid"), version: count("version") };
    let log = log(folder);
    Books { counters, orders: orders(edge, &log), deadlines: None, buyers: None, log, fenced: false }
}

/// Copies the file, since the edge has it locked for itself, and reads the copy.
fn log(folder: &Path) -> Vec<LogEntry> {
    let copy = TempDir::with_prefix("spikegate-ledger-").unwrap();
    for name in ["ledger.db", "ledger.db-wal"] {
        let from = folder.join(name);
        if from.exists() {
            std::fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let database = rusqlite::Connection::open(copy.path().join("ledger.db")).unwrap();
    let mut statement = database.prepare("SELECT entry FROM log ORDER BY seq").unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    rows.map(|row| serde_json::from_str(&row.unwrap()).unwrap()).collect()
}

/// Each order of the log, read from the edge.
fn orders(edge: &Edge, log: &[LogEntry]) -> BTreeMap<String, Record> {
    let mut ids = Vec::new();
    for entry in log {
        match &entry.change {
            Change::Held { orders, .. } => ids.extend(orders.iter().map(|line| line.order.to_string())),
            Change::GivenUp { order } => ids.push(order.to_string()),
            _ => {}
        }
    }
    let mut connection = Connection::to(edge.control_address());
    let mut orders = BTreeMap::new();
    for id in ids {
        let answer = connection.ask(&Request::get(&format!("/sales/ticket/orders/{id}")));
        if answer.status != 200 {
            continue;
        }
        let order = answer.json();
        let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
        let expires: Option<jiff::Timestamp> = order["expires_at"].as_str().and_then(|time| time.parse().ok());
        let detail = [text("payment"), text("reason")].concat();
        let record = Record {
            state: text("state"),
            quantity: order["quantity"].as_u64().unwrap(),
            expires_at_ms: expires.map_or(0, |time| time.as_millisecond() as u64),
            detail: if detail.is_empty() { "-".to_owned() } else { detail },
            buyer: text("buyer"),
        };
        orders.insert(id, record);
    }
    orders
}
