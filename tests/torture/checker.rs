//! Judges a history by the final state of ledger and database. Without I/O; its own tests give it wrong histories.

mod losses;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use spikegate::ledger::{Change, LogEntry, OrderId, OrderState};

pub use self::losses::{LOST, forgive};

use super::history::{Ask, Call, Said};
use crate::harness::books::{Books, Record};

/// Answers that mean "not now". They order nothing, and tell nothing about an earlier request with the same key.
const COME_AGAIN: [&str; 8] = [
    "busy",
    "ledger-unavailable",
    "ledger-lost-data",
    "sale-missing",
    "sale-paused",
    "not connected",
    "unavailable",
    losses::FORGIVEN,
];

/// Answers that deny an order: a key that has one may not get them.
const DENIALS: [&str; 6] =
    ["sold-out", "not-enough-left", "buyer-limit", "unpaid-limit", "sale-closed", "sale-not-open"];

/// Other answers that are allowed.
const WORDS: [&str; 13] = [
    "ok",
    "order-released",
    "outcome-unknown",
    "no answer",
    "gave up",
    "under way",
    "refund-due",
    "order-unknown",
    "already-paid",
    "payment-under-way",
    "below-sold",
    "GIVEN_UP",
    "failed",
];

/// Whether an answer denies that there is an order.
pub fn denies(why: &str) -> bool {
    DENIALS.contains(&why)
}

/// The promises of the sale and of the test.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Tickets that one buyer may have; 0 is no limit.
    pub per_buyer: u64,
    /// How old an edge's memory may be; none if the ledger's clock cannot be compared with ours.
    pub memory: Option<Duration>,
    /// The longest that any answer may take.
    pub answer: Duration,
    /// Whether all was to be sold and paid in the end.
    pub sells_out: bool,
}

/// All that is judged, and by what.
pub struct Case<'a> {
    pub rules: Rules,
    pub calls: &'a [Call],
    pub books: &'a Books,
    /// The orders in the order service's database: order and state. None if there is no order service.
    pub rows: Option<&'a [(String, String)]>,
    /// What the order service did to settle orders: order and state.
    pub settlements: &'a [(String, String)],
    /// When the ledger lost something, in ms since 1970. Its log does not tell what was so just before.
    pub losses_ms: &'a [u64],
}

/// The one promise, and how it was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Promise -> how many times it was put to the test.
    pub checked: BTreeMap<&'static str, usize>,
    pub violations: Vec<Violation>,
    /// What is no violation, and worth to be counted.
    pub notes: BTreeMap<&'static str, usize>,
}

/// How old an edge's memory may be if the rules set no limit.
const MEMORY_OTHERWISE: Duration = Duration::from_secs(3);

impl Verdict {
    pub fn expect(&mut self, promise: &'static str, kept: bool, what: impl FnOnce() -> String) {
        *self.checked.entry(promise).or_default() += 1;
        if !kept {
            self.violations.push(Violation { promise, what: what() });
        }
    }
}

pub const BOOKS: &str = "the books agree";
pub const LIMIT: &str = "no buyer has more than the limit";
pub const KEPT: &str = "an answered order is there, as answered";
pub const HEARD_OF: &str = "an order has an answer, or somebody who got none";
pub const ONE_EACH: &str = "one order for each key, one key for each order";
pub const NEVER_DENIED: &str = "an order that was answered is not denied later";
/// Not a violation: an edge says "sold out" as of its last sync, and the order was made at another edge since.
pub const DENIED_FROM_MEMORY: &str = "orders denied by another edge, which had not heard of them yet";
pub const KNOWN_IN_THE_END: &str = "every unknown outcome becomes known";
pub const PAID_IS_PAID: &str = "an order that was answered as paid is paid by that payment, and by no refused one";
pub const CANCELLED: &str = "an order that was answered as cancelled was released";
pub const RESTOCKED: &str = "every stock change is made once, or not at all";
pub const TRULY_SOLD_OUT: &str = "\"sold out\" is said only when it is so";
pub const IN_TIME: &str = "every request is answered in time";
pub const WORDS_KNOWN: &str = "nothing is said that has no meaning";
pub const DATABASE: &str = "the order service has every order once, as the ledger has it";
pub const SETTLED: &str = "every payment of the order service has one end, the ledger's";
pub const ALL_SOLD: &str = "in the end every ticket is sold and paid";

/// Puts every promise to the test.
pub fn check(case: &Case) -> Verdict {
    let mut verdict = Verdict::default();
    let faults = case.books.faults();
    verdict.expect(BOOKS, faults.is_empty(), || faults.join("; "));
    limits(case, &mut verdict);
    answers(case, &mut verdict);
    orders(case, &mut verdict);
    keys(case, &mut verdict);
    unknowns(case, &mut verdict);
    payments(case, &mut verdict);
    cancellations(case, &mut verdict);
    stock_changes(case, &mut verdict);
    sold_out(case, &mut verdict);
    order_service(case, &mut verdict);
    if case.rules.sells_out {
        let counters = case.books.counters;
        verdict.expect(ALL_SOLD, counters.paid == counters.total, || format!("{counters:?}"));
    }
    verdict
}

fn limits(case: &Case, verdict: &mut Verdict) {
    if case.rules.per_buyer == 0 {
        return;
    }
    let mut has: HashMap<&str, u64> = HashMap::new();
    let mut holders: HashMap<OrderId, (&str, u64)> = HashMap::new();
    for (at, entry) in case.books.log.iter().enumerate() {
        let mut takes: Vec<(OrderId, Option<&str>, u32)> = Vec::new();
        let mut gives: Vec<OrderId> = Vec::new();
        match &entry.change {
            Change::Held { orders, .. } => {
                takes.extend(orders.iter().map(|line| (line.order, line.buyer.as_deref(), line.quantity)));
            }
            Change::Paid { line, retaken: true, .. } => takes.push((line.order, line.buyer.as_deref(), line.quantity)),
            Change::Released { orders, .. } => gives.extend(orders.iter().map(|line| line.order)),
            // As they stand now, whatever they were before.
            Change::Restored { orders } => {
                gives.extend(orders.iter().map(|(id, _)| *id));
                let with_tickets = orders.iter().filter(|(_, order)| order.state != OrderState::Released);
                takes.extend(with_tickets.map(|(id, order)| (*id, order.buyer.as_deref(), order.quantity)));
            }
            _ => continue,
        }
        for (buyer, quantity) in gives.iter().filter_map(|id| holders.remove(id)) {
            *has.entry(buyer).or_default() -= quantity;
        }
        let mut took: BTreeSet<&str> = BTreeSet::new();
        for (id, buyer, quantity) in takes {
            let Some(buyer) = buyer else { continue };
            holders.insert(id, (buyer, quantity.into()));
            *has.entry(buyer).or_default() += u64::from(quantity);
            took.insert(buyer);
        }
        // Many orders are restored in several steps, with nothing sold between two.
        let is_restored =
            |at: usize| matches!(case.books.log.get(at).map(|entry| &entry.change), Some(Change::Restored { .. }));
        if is_restored(at + 1) {
            continue;
        }
        let looked_at: Vec<&str> =
            if is_restored(at) { has.keys().copied().collect() } else { took.into_iter().collect() };
        for buyer in looked_at {
            let tickets = has[buyer];
            verdict.expect(LIMIT, tickets <= case.rules.per_buyer, || {
                format!("{buyer} has {tickets} after entry {}", entry.seq)
            });
        }
    }
}

/// Each answer by itself.
fn answers(case: &Case, verdict: &mut Verdict) {
    for call in case.calls {
        let (ended, said) = match &call.ended {
            Some((ended, said)) => (ended, said),
            None => {
                verdict.expect(IN_TIME, false, || format!("{call:?} has no end"));
                continue;
            }
        };
        let took = Duration::from_micros(ended.us - call.invoked.us);
        verdict.expect(IN_TIME, took <= case.rules.answer, || format!("{took:?}: {call:?}"));
        let name = said.name();
        let is_known = [&COME_AGAIN[..], &DENIALS, &WORDS].iter().any(|words| words.contains(&name));
        verdict.expect(WORDS_KNOWN, is_known, || format!("{call:?}"));
        if let (Ask::Buy { buyer, quantity, .. }, Said::Ok(receipt)) = (&call.ask, said) {
            let order = case.books.orders.get(&receipt.order);
            let is_the_same = |order: &Record| order.buyer == *buyer && order.quantity == *quantity;
            let agrees = receipt.buyer == *buyer && receipt.quantity == *quantity;
            verdict.expect(KEPT, agrees && order.is_some_and(is_the_same), || format!("{order:?} of {call:?}"));
        }
    }
}

fn purchases(calls: &[Call]) -> impl Iterator<Item = (&Call, Option<&str>, &str, u64)> {
    calls.iter().filter_map(|call| match &call.ask {
        Ask::Buy { key, buyer, quantity } => Some((call, key.as_deref(), buyer.as_str(), *quantity)),
        _ => None,
    })
}

/// Every order was either told to somebody, or may be that of a purchase without a key whose answer never came. A
/// purchase with a key is asked again until it hears of its order, so that it cannot be an excuse.
fn orders(case: &Case, verdict: &mut Verdict) {
    let named: BTreeSet<&str> =
        purchases(case.calls).filter_map(|(call, ..)| call.said().and_then(Said::order)).collect();
    let mut unanswered: HashMap<(&str, u64), usize> = HashMap::new();
    for (call, key, buyer, quantity) in purchases(case.calls) {
        if key.is_none() && call.is_unknown() && call.said().and_then(Said::order).is_none() {
            *unanswered.entry((buyer, quantity)).or_default() += 1;
        }
    }
    for (id, order) in &case.books.orders {
        let is_heard_of = named.contains(id.as_str())
            || order.detail == "given_up"
            || unanswered.get_mut(&(order.buyer.as_str(), order.quantity)).is_some_and(|left| {
                let is_one = *left > 0;
                *left -= usize::from(is_one);
                is_one
            });
        verdict.expect(HEARD_OF, is_heard_of, || format!("nobody heard of order {id}: {order:?}"));
    }
}

fn keys(case: &Case, verdict: &mut Verdict) {
    let memory = case.rules.memory.unwrap_or(MEMORY_OTHERWISE);
    let mut by_key: BTreeMap<(&str, &str), Vec<&Call>> = BTreeMap::new();
    let mut key_of: HashMap<&str, Option<&str>> = HashMap::new();
    for (call, key, buyer, _) in purchases(case.calls) {
        if let Some(key) = key {
            by_key.entry((buyer, key)).or_default().push(call);
        }
        if let Some(Said::Ok(receipt)) = call.said() {
            let before = key_of.insert(&receipt.order, key);
            let is_its_own = before.is_none() || (key.is_some() && before == Some(key));
            verdict.expect(ONE_EACH, is_its_own, || format!("{} was told to {before:?}, too: {call:?}", receipt.order));
        }
    }
    for ((_, key), calls) in &by_key {
        let ids: BTreeSet<&str> = calls.iter().filter_map(|call| call.said().and_then(Said::order)).collect();
        verdict.expect(ONE_EACH, ids.len() <= 1, || format!("key {key} has {ids:?}"));
        let answered: Vec<(&str, u64)> = calls
            .iter()
            .filter(|call| call.is_ok())
            .filter_map(|call| Some((call.at.as_str(), call.ended.as_ref()?.0.us)))
            .collect();
        for call in calls {
            let denied = call.said().is_some_and(|said| denies(said.name()));
            // Another edge may still remember how it was before the order was made.
            let remembers_us = |at: &str| if call.at == at { 0 } else { memory.as_micros() as u64 };
            if answered.iter().any(|(at, ended_us)| call.invoked.us > ended_us + remembers_us(at)) {
                verdict.expect(NEVER_DENIED, !denied, || format!("{call:?}"));
            } else if denied && answered.iter().any(|(_, ended_us)| call.invoked.us > *ended_us) {
                *verdict.notes.entry(DENIED_FROM_MEMORY).or_default() += 1;
            }
        }
    }
}

/// What makes two requests the same one, asked twice; none for one that cannot be asked again.
pub fn identity(ask: &Ask) -> Option<(&str, &str)> {
    match ask {
        Ask::Buy { key, buyer, .. } => Some((buyer, key.as_deref()?)),
        Ask::Pay { order, payment } => Some((order, payment)),
        Ask::Settle { order, key } => Some((order, key)),
        Ask::Cancel { order } => Some((order, "cancel")),
        Ask::Restock { change, .. } => Some((change, "restock")),
    }
}

/// Whether the answer is final for a request and for every earlier one of the same identity.
pub fn is_definite(said: &Said) -> bool {
    !said.is_unknown() && !COME_AGAIN.contains(&said.name())
}

/// The last definite answer of each identity.
fn last_answers(calls: &[Call]) -> BTreeMap<(&str, &str), (&Call, &Said)> {
    let mut last: BTreeMap<_, (&Call, &Said)> = BTreeMap::new();
    for call in calls {
        let (Some(identity), Some(said)) = (identity(&call.ask), call.said()) else { continue };
        let is_newer = |(before, _): &(&Call, &Said)| before.invoked < call.invoked;
        if is_definite(said) && last.get(&identity).is_none_or(is_newer) {
            last.insert(identity, (call, said));
        }
    }
    last
}

fn unknowns(case: &Case, verdict: &mut Verdict) {
    let last = last_answers(case.calls);
    for call in case.calls.iter().filter(|call| call.is_unknown()) {
        let Some(identity) = identity(&call.ask) else { continue };
        let is_known = last.get(&identity).is_some_and(|(later, _)| later.invoked > call.invoked);
        verdict.expect(KNOWN_IN_THE_END, is_known, || format!("{call:?}"));
    }
}

fn payments(case: &Case, verdict: &mut Verdict) {
    let last = last_answers(case.calls);
    for (call, said) in last.values() {
        let (order, payment) = match &call.ask {
            Ask::Pay { order, payment } => (order, Some(payment)),
            // The order service makes the payment's id; that it is the ledger's is another promise.
            Ask::Settle { order, .. } => (order, None),
            _ => continue,
        };
        let record = case.books.orders.get(order);
        let is_paid = record
            .is_some_and(|record| record.state == "PAID" && payment.is_none_or(|payment| record.detail == *payment));
        verdict.expect(PAID_IS_PAID, is_paid == said.is_ok(), || format!("{record:?}, {call:?}"));
    }
}

fn cancellations(case: &Case, verdict: &mut Verdict) {
    let mut released: BTreeSet<String> = BTreeSet::new();
    for entry in &case.books.log {
        match &entry.change {
            Change::Released { orders, .. } => released.extend(orders.iter().map(|line| line.order.to_string())),
            Change::GivenUp { order } => drop(released.insert(order.to_string())),
            // It may have been paid again after that, and the release be among what was lost.
            Change::Restored { orders } => {
                let further = orders.iter().filter(|(_, order)| order.state != OrderState::Held);
                released.extend(further.map(|(id, _)| id.to_string()));
            }
            _ => {}
        }
    }
    for call in case.calls.iter().filter(|call| call.is_ok()) {
        if let Ask::Cancel { order } = &call.ask {
            verdict.expect(CANCELLED, released.contains(order), || format!("{call:?}"));
        }
    }
}

fn stock_changes(case: &Case, verdict: &mut Verdict) {
    let mut made: HashMap<&str, Vec<i64>> = HashMap::new();
    for entry in &case.books.log {
        if let Change::Stock { change_id, delta } = &entry.change {
            made.entry(change_id).or_default().push(*delta);
        }
    }
    for (call, said) in last_answers(case.calls).values() {
        if let Ask::Restock { change, delta } = &call.ask {
            let expected: &[i64] = if said.is_ok() { &[*delta] } else { &[] };
            let made = made.get(change.as_str()).map_or(&[][..], Vec::as_slice);
            verdict.expect(RESTOCKED, made == expected, || format!("made {made:?}: {call:?}"));
        }
    }
}

/// What was left after each entry of the log: when, and how much. What was lost before others were put in its place is
/// not known any more, and may have been everything.
fn left(books: &Books) -> Vec<(u64, u64)> {
    let (mut total, mut before) = (0_u64, 0_u64);
    // Order -> the tickets that it has.
    let mut sold: HashMap<OrderId, u64> = HashMap::new();
    let mut sum = 0_u64;
    let mut left = Vec::with_capacity(books.log.len());
    let is_repair = |entry: &LogEntry| matches!(entry.change, Change::Restored { .. } | Change::Lost);
    for (at, entry) in books.log.iter().enumerate() {
        if is_repair(entry)
            && let Some(last) = at.checked_sub(1).map(|at| &books.log[at]).filter(|last| !is_repair(last))
        {
            left.push((last.at_ms, 0));
        }
        let mut has = |id: OrderId, tickets: u32| {
            sum = sum + u64::from(tickets) - sold.insert(id, tickets.into()).unwrap_or(0);
        };
        match &entry.change {
            Change::Opened { total: all, sold } => (total, before) = (*all, *sold),
            Change::Held { orders, .. } => orders.iter().for_each(|line| has(line.order, line.quantity)),
            Change::Released { orders, .. } => orders.iter().for_each(|line| has(line.order, 0)),
            Change::Paid { line, .. } => has(line.order, line.quantity),
            Change::Restored { orders } => orders.iter().for_each(|(id, order)| {
                has(*id, if order.state == OrderState::Released { 0 } else { order.quantity });
            }),
            Change::Stock { delta, .. } => total = total.saturating_add_signed(*delta),
            _ => {}
        }
        left.push((entry.at_ms, total.saturating_sub(before + sum)));
    }
    left
}

/// Between what an edge may remember and the answer, there must have been a moment in which less was left than was
/// asked for.
fn sold_out(case: &Case, verdict: &mut Verdict) {
    /// Between the ledger's clock and ours.
    const CLOCKS_MS: u64 = 50;
    let Some(memory) = case.rules.memory else { return };
    let left = left(case.books);
    for (call, _, _, quantity) in purchases(case.calls) {
        let Some((ended, Said::No { why, .. })) = &call.ended else { continue };
        let too_much = match why.as_str() {
            "sold-out" => 1,
            "not-enough-left" => quantity,
            _ => continue,
        };
        let from = call.invoked.unix_ms.saturating_sub(memory.as_millis() as u64 + CLOCKS_MS);
        let to = ended.unix_ms + CLOCKS_MS;
        if case.losses_ms.iter().any(|loss_ms| from <= *loss_ms && to + losses::MOST_MS >= *loss_ms) {
            continue;
        }
        // What was left as the time began counts, too.
        let first = left.partition_point(|(at_ms, _)| *at_ms <= from).saturating_sub(1);
        let least = left[first..].iter().take_while(|(at_ms, _)| *at_ms <= to).map(|(_, left)| *left).min();
        verdict.expect(TRULY_SOLD_OUT, least.is_none_or(|least| least < too_much), || {
            format!("at least {least:?} were left all the time: {call:?}")
        });
    }
}

fn order_service(case: &Case, verdict: &mut Verdict) {
    let Some(rows) = case.rows else { return };
    let kept: BTreeMap<&str, &str> = rows.iter().map(|(order, state)| (order.as_str(), state.as_str())).collect();
    verdict.expect(DATABASE, kept.len() == rows.len(), || "an order has two rows".to_owned());
    // A tombstone is of no order, and the order service keeps none.
    let orders = || case.books.orders.iter().filter(|(_, order)| order.detail != "given_up");
    for (id, order) in orders() {
        let row = kept.get(id.as_str());
        verdict.expect(DATABASE, row == Some(&order.state.as_str()), || format!("{row:?} for {id}, {order:?}"));
    }
    let of_ledger: BTreeSet<&str> = orders().map(|(id, _)| id.as_str()).collect();
    for id in kept.keys() {
        verdict.expect(DATABASE, of_ledger.contains(id), || format!("order {id} is in the database alone"));
    }

    for (id, state) in case.settlements {
        let is_paid = case.books.orders.get(id).is_some_and(|order| order.state == "PAID");
        let is_one = match state.as_str() {
            "paid" => is_paid,
            "declined" | "refunded" | "cancelled" | "refused" => true,
            _ => false,
        };
        verdict.expect(SETTLED, is_one, || format!("{state}, of order {id}: {:?}", case.books.orders.get(id)));
    }
}

#[cfg(test)]
mod tests;
