//! Reads `sales`: what is sold, to whom, and when.

use super::buyer::{admission, buyer};
use super::node::Node;
use super::read::quota;
use super::value::{DAY, MILLISECOND, MINUTE, SECOND, duration, file_path, flag, is_url_path, number, text, time_ms};
use super::{BuyerSource, Sale};
use crate::ledger::TOTAL_MAX;

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

/// The keys beside it are `{key}:...`: braces in it would scatter them over a cluster.
fn redis_key(node: &Node<'_>) -> Option<String> {
    text("must be 1 to 200 visible ASCII characters without braces", |key| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
        ((1..=200).contains(&key.len()) && key.bytes().all(plain)).then(|| key.to_owned())
    })(node)
}
