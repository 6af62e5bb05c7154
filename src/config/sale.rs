//! `sales`: what is sold, to whom, and when.

use std::path::PathBuf;
use std::time::Duration;

use super::buyer::{admission, buyer};
use super::node::Node;
use super::value::{
    DAY, MILLISECOND, MINUTE, SECOND, duration, file_path, flag, is_url_path, number, quota, text, time_ms,
};
use super::{BuyerSource, Quota};
use crate::auth::admission;
use crate::ledger::TOTAL_MAX;

/// One thing on sale.
#[derive(Debug, Clone, PartialEq)]
pub struct Sale {
    /// `[a-z0-9_-]`, 1 to 64 characters.
    pub id: String,
    /// The exact path of a purchase, not below `/sales/`; no two sales share one; default `/buy/{id}`.
    pub path: String,
    /// The Redis hash, 1 to 200 visible ASCII characters without braces; no two sales share one; default is the id.
    pub key: String,
    /// Tickets of the sale if the edge creates it, 1 to 1000000000; does not change an existing sale.
    pub total: Option<u64>,
    /// Tickets that this edge may have under way at the ledger at once, 1 to 100000; default 150.
    pub local_stock: u32,
    /// Purchases that may wait in this edge for their batch, 1 to 1000000; default 10000.
    pub queue: usize,
    /// The longest wait of a purchase for its outcome, 10 ms to 60 s; then the outcome is reported as unknown; default
    /// 3 s.
    pub deadline: Duration,
    /// How long an unpaid order keeps its tickets, 1 s to 7 days and longer than the deadline; default 5 min.
    pub hold: Duration,
    /// Tickets that one buyer may hold or have paid, 0 to 1000000; 0 means no limit. A limit requires a buyer id.
    pub per_buyer: u32,
    /// Unpaid orders that one buyer may have at once, 0 to 1000000; 0 means no limit. A limit requires a buyer id.
    pub unpaid_per_buyer: u32,
    /// Where the buyer's id comes from.
    pub buyer: BuyerSource,
    /// Quota of each buyer: purchases that are not refused from memory.
    pub buyer_limits: Quota,
    /// Keys of admission tokens; without them no token is needed.
    pub admission: Option<admission::Keys>,
    /// Unix time in milliseconds; nothing is sold before it.
    pub opens_at_ms: Option<u64>,
    /// Unix time in milliseconds, after `opens_at_ms`; nothing is sold from then on.
    pub closes_at_ms: Option<u64>,
    /// Whether `GET` buys, answered in the article's dialect.
    pub seed_dialect: bool,
    /// Where to write the article's log line per purchase; no two sales share one.
    pub stat_log: Option<PathBuf>,
}

pub(super) fn sale(id: &str, node: &Node<'_>) -> Sale {
    if !is_sale_id(id) {
        node.error("a sale's id is 1 to 64 of a-z, 0-9, - and _, since it stands in paths");
    }
    node.mapping(|sale| Sale {
        id: id.to_owned(),
        path: sale.read("path", purchase_path).unwrap_or_else(|| format!("/buy/{id}")),
        key: sale.read("key", redis_key).unwrap_or_else(|| id.to_owned()),
        total: sale.read("total", number(1..=TOTAL_MAX)),
        local_stock: sale.read("local_stock", number(1..=100_000)).unwrap_or(150),
        queue: sale.read("queue", number(1..=1_000_000)).unwrap_or(10_000),
        deadline: sale.read("deadline", duration(10 * MILLISECOND..=MINUTE)).unwrap_or(3 * SECOND),
        hold: sale.read("hold", duration(SECOND..=7 * DAY)).unwrap_or(5 * MINUTE),
        per_buyer: sale.read("per_buyer", number(0..=1_000_000)).unwrap_or(0),
        unpaid_per_buyer: sale.read("unpaid_per_buyer", number(0..=1_000_000)).unwrap_or(0),
        buyer: sale.read("buyer", buyer).unwrap_or(BuyerSource::Anonymous),
        buyer_limits: sale.group("buyer_limits", quota),
        admission: sale.read("admission", admission),
        opens_at_ms: sale.read("opens_at", time_ms),
        closes_at_ms: sale.read("closes_at", time_ms),
        seed_dialect: sale.read("seed_dialect", flag).unwrap_or(false),
        stat_log: sale.read("stat_log", file_path),
    })
}

fn is_sale_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(plain)
}

fn purchase_path(node: &Node<'_>) -> Option<String> {
    text("must be a path such as /buy/ticket, without pattern, query, empty or dot segments", |path| {
        is_url_path(path).then(|| path.to_owned())
    })(node)
}

/// The other keys are `{key}:...`; braces in it would spread them over the slots of a cluster.
fn redis_key(node: &Node<'_>) -> Option<String> {
    text("must be 1 to 200 visible ASCII characters without braces", |key| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
        ((1..=200).contains(&key.len()) && key.bytes().all(plain)).then(|| key.to_owned())
    })(node)
}
