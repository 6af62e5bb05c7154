//! Reads `sales`: what is sold, to whom, and when.

use http::HeaderName;

use super::node::Node;
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

fn buyer(node: &Node<'_>) -> Option<BuyerSource> {
    node.mapping(|buyer| {
        if buyer.alternatives(&["header", "query", "body"], "two places could name two buyers") == 0 {
            buyer.error_here("must have one of header, query and body; left out, nobody is told apart");
        }
        let header = buyer.read("header", header_name).map(BuyerSource::Header);
        let query = buyer.read("query", member_name).map(BuyerSource::Query);
        let body = buyer.read("body", member_name).map(BuyerSource::Body);
        header.or(query).or(body)
    })
}

fn header_name(node: &Node<'_>) -> Option<String> {
    let name = text("must be the name of a header", |name| name.parse::<HeaderName>().ok())(node)?;
    let why_not = match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" => {
            "belongs to one connection, not to a buyer"
        }
        "host" | "content-length" | "content-type" | "content-encoding" | "expect" | "accept" | "user-agent" => {
            "says something of the request, not of its buyer"
        }
        "idempotency-key" => "names one purchase, not its buyer",
        "authorization" | "proxy-authorization" | "cookie" => {
            "holds credentials, and the buyer's id is kept in the ledger and its log"
        }
        _ => return Some(name.as_str().to_owned()),
    };
    node.error(format!("{name} {why_not}"));
    None
}

/// The name of a query parameter or of a member of a JSON body.
fn member_name(node: &Node<'_>) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name = text("must be a name of 1 to 64 letters, digits, -, _ and .", |name| {
        ((1..=64).contains(&name.len()) && name.bytes().all(plain)).then(|| name.to_owned())
    })(node)?;
    let why_not = match name.as_str() {
        "quantity" => "says how many, not who",
        "idempotency_key" => "names one purchase, not its buyer",
        _ => return Some(name),
    };
    node.error(format!("{name} {why_not}"));
    None
}
