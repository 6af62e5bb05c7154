//! What a power cut of Redis and of all edges may lose: orders confirmed just before it that were neither on the disk
//! nor delivered. The edges cannot tell those buyers, so the checker gets the time of the power cut.

use std::collections::BTreeSet;

use super::super::history::{Ask, Call, Said};
use super::identity;
use crate::harness::books::Books;

/// Instead of an answer that was lost.
pub const FORGIVEN: &str = "lost";

/// What is noted of them.
pub const LOST: &str = "answers that were lost with the power of Redis and all edges";

/// A file is cut up to two seconds before its end, and `appendfsync everysec` may be two late on a disk that is busy.
pub const MOST_MS: u64 = 4_000;

/// The history without the answers that were lost, so that nothing is expected of them, and how many they are. An
/// answer of the order service is no excuse, for its database has lost nothing.
pub fn forgive(calls: &[Call], books: &Books, cuts_ms: &[u64]) -> (Vec<Call>, usize) {
    let mut calls = calls.to_vec();
    let is_late = |call: &Call| {
        let ended_ms = call.ended.as_ref().map_or(0, |(ended, _)| ended.unix_ms);
        cuts_ms.iter().any(|cut_ms| (cut_ms.saturating_sub(MOST_MS)..=*cut_ms).contains(&ended_ms))
    };
    let is_lost = |call: &Call| call.is_ok() && is_late(call) && !is_there(call, books);
    let lost: Vec<usize> = (0..calls.len()).filter(|at| is_lost(&calls[*at])).collect();
    let asked = |call: &Call| identity(&call.ask).map(|(who, what)| (who.to_owned(), what.to_owned()));
    let whose: BTreeSet<_> = lost.iter().filter_map(|at| asked(&calls[*at])).collect();
    for (at, call) in calls.iter_mut().enumerate() {
        // Who asked once more and then was answered had no reason to ask again.
        let is_earlier = call.is_unknown() && asked(call).is_some_and(|asked| whose.contains(&asked));
        if let Some((_, said)) = call.ended.as_mut().filter(|_| is_earlier || lost.contains(&at)) {
            *said = Said::no(FORGIVEN);
        }
    }
    (calls, lost.len())
}

/// Whether the books have what was answered.
fn is_there(call: &Call, books: &Books) -> bool {
    let order = |id: &str| books.orders.get(id);
    match (&call.ask, call.said()) {
        (Ask::Buy { quantity, .. }, Some(Said::Ok(receipt))) => {
            order(&receipt.order).is_some_and(|order| order.quantity == *quantity)
        }
        (Ask::Pay { order: id, payment }, _) => {
            order(id).is_some_and(|order| order.state == "PAID" && order.detail == *payment)
        }
        (Ask::Cancel { order: id }, _) => order(id).is_some_and(|order| order.state != "HELD"),
        (Ask::Restock { change, .. }, _) => books.has_change(change),
        _ => true,
    }
}
