//! What this edge remembers of a sale: the newest log entries that it read or wrote.
//!
//! The ledger is compared with it after a reconnect, and is restored from it if it lost entries.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::ledger::{Change, LogEntry, Order, OrderId, OrderLine, OrderState};

/// The most lines to remember, about 100 bytes each: more than a second of sales, which is what Redis may lose.
const LINES_MAX: usize = 65_536;

/// The memory of one sale; see the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Number of reconciliations of the sale; none before the ledger reported it.
    generation: Option<u64>,
    /// The newest version that the ledger has acknowledged: with replicas, the one that they have.
    acknowledged_version: u64,
    /// By number. Entries above `acknowledged_version` may be lost, but no client has been told of them.
    tail: BTreeMap<u64, LogEntry>,
    /// Entries of earlier generations, oldest first. Their numbers are no longer comparable, but what they say about
    /// orders stays true.
    earlier: VecDeque<LogEntry>,
    /// Of both.
    lines: usize,
}

impl Memory {
    pub(super) fn generation(&self) -> Option<u64> {
        self.generation
    }

    pub(super) fn acknowledged_version(&self) -> u64 {
        self.acknowledged_version
    }

    /// Number and time of the newest acknowledged entry; 0 if none is remembered.
    pub(super) fn mark(&self) -> (u64, u64) {
        self.tail.range(..=self.acknowledged_version).next_back().map_or((0, 0), |(seq, entry)| (*seq, entry.at_ms))
    }

    pub(super) fn heard(&mut self, version: u64) {
        self.acknowledged_version = self.acknowledged_version.max(version);
    }

    /// An entry with the same number replaces the remembered one.
    pub(super) fn learn(&mut self, entry: LogEntry) {
        self.lines += entry.lines();
        if let Some(before) = self.tail.insert(entry.seq, entry) {
            self.lines -= before.lines();
        }
        while self.lines > LINES_MAX
            && let Some(oldest) = self.earlier.pop_front().or_else(|| self.tail.pop_first().map(|(_, entry)| entry))
        {
            self.lines -= oldest.lines();
        }
    }

    /// After a reconciliation the sale has other numbers. The old entries stay: the ledger may lose orders again before
    /// the log has been read again.
    pub(super) fn begin_anew(&mut self, generation: u64) {
        let acknowledged_version = std::mem::take(&mut self.acknowledged_version);
        for (seq, entry) in std::mem::take(&mut self.tail) {
            if seq <= acknowledged_version {
                self.earlier.push_back(entry);
            } else {
                self.lines -= entry.lines();
            }
        }
        self.generation = Some(generation);
    }

    /// The acknowledged entries, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &LogEntry> {
        self.earlier.iter().chain(self.tail.range(..=self.acknowledged_version).map(|(_, entry)| entry))
    }

    /// Every order of these entries in its latest state, and the entry that set it; 0 for an entry of an earlier
    /// generation.
    pub(super) fn orders(&self) -> HashMap<OrderId, (Order, u64)> {
        let mut orders = HashMap::<OrderId, (Order, u64)>::new();
        let earlier = self.earlier.len();
        for (at, entry) in self.entries().enumerate() {
            let seq = if at < earlier { 0 } else { entry.seq };
            let line_stands = |line: &OrderLine| Order::held(line.quantity, line.buyer.clone(), 0);
            // A log that is read again starts with states that have long been passed.
            let mut stands = |id: OrderId, now: Order| match orders.entry(id) {
                Entry::Occupied(mut known) => {
                    let (order, last) = known.get_mut();
                    if order.rank() <= now.rank() {
                        let expires_at_ms = if now.expires_at_ms > 0 { now.expires_at_ms } else { order.expires_at_ms };
                        (*order, *last) = (Order { expires_at_ms, ..now }, seq);
                    }
                }
                Entry::Vacant(place) => drop(place.insert((now, seq))),
            };
            match &entry.change {
                Change::Held { expires_at_ms, orders: lines } => lines.iter().for_each(|line| {
                    stands(line.order, Order { expires_at_ms: *expires_at_ms, ..line_stands(line) });
                }),
                Change::Paid { line, payment, .. } => {
                    let payment = Some(payment.clone());
                    stands(line.order, Order { state: OrderState::Paid, payment, ..line_stands(line) });
                }
                Change::Released { reason, orders: lines } => lines.iter().for_each(|line| {
                    let reason = Some(*reason);
                    stands(line.order, Order { state: OrderState::Released, reason, ..line_stands(line) });
                }),
                Change::GivenUp { order } => stands(*order, Order::tombstone()),
                Change::Restored { orders: restored } => {
                    restored.iter().for_each(|(id, order)| stands(*id, order.clone()));
                }
                Change::Opened { .. } | Change::State { .. } | Change::Stock { .. } | Change::Lost => {}
            }
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::ReleaseReason;

    fn line(id: u8) -> OrderLine {
        OrderLine { order: OrderId([id; 16]), quantity: 2, buyer: Some("ann".into()) }
    }

    fn entry(seq: u64, change: Change) -> LogEntry {
        LogEntry { seq, at_ms: 1_000 + seq, change }
    }

    #[test]
    fn what_nobody_answered_for_is_no_mark_and_no_order() {
        let mut memory = Memory::default();
        assert_eq!((memory.acknowledged_version(), memory.mark()), (0, (0, 0)));
        memory.learn(entry(5, Change::Held { expires_at_ms: 9, orders: vec![line(1)] }));
        assert_eq!(memory.mark(), (0, 0));
        assert!(memory.orders().is_empty());
        memory.heard(6);
        memory.heard(5);
        assert_eq!((memory.acknowledged_version(), memory.mark()), (6, (5, 1_005)));
        assert_eq!(memory.orders()[&OrderId([1; 16])], (Order::held(2, Some("ann".into()), 9), 5));
        memory.begin_anew(1);
        assert_eq!((memory.generation(), memory.acknowledged_version(), memory.mark()), (Some(1), 0, (0, 0)));
    }

    #[test]
    fn what_was_known_before_a_reconciliation_stays_known() {
        let mut memory = Memory::default();
        let held = Change::Held { expires_at_ms: 9, orders: vec![line(1)] };
        let payment: crate::ledger::PaymentId = "p".parse().expect("a payment's id");
        memory.learn(entry(5, held.clone()));
        memory.learn(entry(6, Change::Paid { line: line(1), payment, retaken: false }));
        memory.learn(entry(7, Change::Held { expires_at_ms: 9, orders: vec![line(2)] }));
        memory.heard(6);
        memory.begin_anew(1);
        let is_paid = |memory: &Memory| {
            let orders = memory.orders();
            let (order, seq) = &orders[&OrderId([1; 16])];
            assert_eq!((orders.len(), order.state, order.expires_at_ms, *seq), (1, OrderState::Paid, 9, 0));
        };
        is_paid(&memory);
        // The log is read again and has not reached this point yet.
        memory.learn(entry(2, held));
        memory.heard(2);
        is_paid(&memory);
        assert_eq!((memory.mark(), memory.lines), ((2, 1_002), 5));
        // The oldest entries are dropped when there is no room.
        memory.learn(entry(3, Change::Held { expires_at_ms: 9, orders: vec![line(3); LINES_MAX - 3] }));
        memory.heard(3);
        assert_eq!((memory.earlier.len(), memory.mark().0), (0, 3));
    }

    #[test]
    fn the_last_word_about_an_order_counts() {
        let mut memory = Memory::default();
        memory.learn(entry(1, Change::Held { expires_at_ms: 9, orders: vec![line(1), line(2)] }));
        let released = Change::Released { reason: ReleaseReason::Expired, orders: vec![line(1), line(2)] };
        memory.learn(entry(2, released));
        let payment = "p".parse().expect("a payment's id");
        memory.learn(entry(3, Change::Paid { line: line(1), payment, retaken: true }));
        memory.learn(entry(4, Change::GivenUp { order: OrderId([3; 16]) }));
        memory.heard(4);
        let orders = memory.orders();
        let (paid, seq) = &orders[&OrderId([1; 16])];
        assert_eq!((paid.state, paid.reason, paid.expires_at_ms, *seq), (OrderState::Paid, None, 9, 3));
        assert_eq!(orders[&OrderId([2; 16])].0.state, OrderState::Released);
        assert!(orders[&OrderId([3; 16])].0.is_tombstone());
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut memory = Memory::default();
        for seq in 1..=1_000 {
            memory.learn(entry(seq, Change::Held { expires_at_ms: 9, orders: vec![line(1); 99] }));
        }
        memory.heard(1_000);
        assert_eq!((memory.lines, memory.entries().count(), memory.mark()), (65_500, 655, (1_000, 2_000)));
    }
}
