//! The gate: an edge's copy of a sale's counters. A refusal costs one memory read. The gate cannot sell.
//!
//! It holds only answers of the ledger: the counters of one version, and the orders in the log. It refuses from memory
//! under four rules:
//!
//! 1. "Sold out" is never permanent. Every newer answer of the ledger replaces the counters, and they are dropped when
//!    the ledger is unreachable.
//! 2. An existing order is never denied. A purchase that may be a retry (it has a key) is refused only if the log is
//!    read up to the known version and does not contain its order.
//! 3. Every sync replaces the counters. Counters that are older than that are not used, and the ledger decides: the
//!    process or its machine was suspended meanwhile.
//! 4. A buyer's count is used only while the log is read up to the known version and shows no change of it.

mod fingerprints;
mod limits;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use self::fingerprints::Fingerprints;
use self::limits::BuyerLimits;
use super::Refusal;
use crate::ledger::{Change, Decision, OrderId, Purchase, Reserved, SaleState, Synced, Terms, View};

/// The gate's decision about a purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The ledger has to decide.
    Ask,
    /// The purchase would be refused unless it is a retry; the log has to be read first.
    Wait,
    /// Refused from memory.
    Refuse(Refusal),
}

/// The properties of a purchase that the gate checks.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// The order ID, if the purchase has a key and may be a retry.
    pub retry_of: Option<OrderId>,
    /// The buyer ID; `None` if anonymous or not verified yet.
    pub buyer: Option<&'a str>,
    /// Number of tickets.
    pub quantity: u32,
}

/// The gate's state of a sale.
#[derive(Debug, Clone)]
enum Knowledge {
    /// The ledger is unreachable, or was not reached yet.
    Nothing,
    /// The ledger has no such sale.
    Missing,
    /// The ledger lost changes of the sale and sells nothing until it is reconciled.
    Fenced(Arc<str>),
    /// Counters from the ledger.
    Known(Known),
}

#[derive(Debug, Clone)]
struct Known {
    view: View,
    /// When the request for this view was sent.
    asked_at: Instant,
    /// The orders in the log so far; learners add more.
    orders: Arc<Fingerprints>,
    /// Whether `orders` has every order of this version.
    log_is_read: bool,
    /// Entries of the log are lost; it can never be read completely.
    log_has_gap: bool,
    /// `opens_at` and `closes_at` on this machine's monotonic clock; its wall clock may be wrong.
    opens_at: Option<Instant>,
    closes_at: Option<Instant>,
}

/// The cached counts of refused buyers, by limit.
struct Remembered<'a> {
    tickets: Option<&'a BuyerLimits>,
    unpaid: Option<&'a BuyerLimits>,
}

impl Known {
    /// Checks the rules in the ledger's order.
    fn refusal(&self, visitor: &Visitor, limits: &Remembered, now: Instant) -> Option<Refusal> {
        let view = &self.view;
        if view.state == SaleState::Closed || self.closes_at.is_some_and(|end| now >= end) {
            return Some(Refusal::Closed);
        }
        if let Some(wait) =
            self.opens_at.and_then(|begin| begin.checked_duration_since(now)).filter(|wait| !wait.is_zero())
        {
            return Some(Refusal::NotYet { wait });
        }
        if view.state == SaleState::Paused {
            return Some(Refusal::Paused);
        }
        let (left, quantity) = (view.available(), u64::from(visitor.quantity));
        if left == 0 {
            return Some(Refusal::SoldOut);
        }
        if let Some(buyer) = visitor.buyer.filter(|_| self.log_is_read) {
            let limit = u64::from(view.terms.per_buyer);
            if limit > 0
                && let Some(have) = limits.tickets.and_then(|limits| limits.have(buyer))
                && have + quantity > limit
            {
                return Some(Refusal::BuyerLimit { limit, have });
            }
            let limit = u64::from(view.terms.unpaid_per_buyer);
            if limit > 0
                && let Some(have) = limits.unpaid.and_then(|limits| limits.have(buyer))
                && have >= limit
            {
                return Some(Refusal::UnpaidLimit { limit, have });
            }
        }
        (left < quantity).then_some(Refusal::NotEnough { left })
    }
}

/// One sale's gate.
pub struct Gate {
    /// Maximum age of the counters.
    memory: Duration,
    knowledge: ArcSwap<Knowledge>,
    /// Learners add new orders here. A reset installs a new table; concurrent readers keep the table of their state.
    orders: ArcSwap<Fingerprints>,
    /// The epoch of the opened sale; 0 before that. Answers with another epoch are outdated.
    epoch: AtomicU64,
    /// The newest log entry that is included in `orders`.
    read_to: AtomicU64,
    log_has_gap: AtomicBool,
    /// Allocated when a buyer first meets the ticket limit; most sales never need it.
    limits: OnceLock<BuyerLimits>,
    /// The same for the limit of unpaid orders.
    unpaid: OnceLock<BuyerLimits>,
    /// Serialises learners; `judge` never takes it.
    learning: Mutex<()>,
}

impl Gate {
    /// An empty gate. It refuses nothing from counters that are older than `memory`.
    #[must_use]
    pub fn new(memory: Duration) -> Self {
        Self {
            memory,
            knowledge: ArcSwap::from_pointee(Knowledge::Nothing),
            orders: ArcSwap::default(),
            epoch: AtomicU64::new(0),
            read_to: AtomicU64::new(0),
            log_has_gap: AtomicBool::new(false),
            limits: OnceLock::new(),
            unpaid: OnceLock::new(),
            learning: Mutex::new(()),
        }
    }

    /// Decides from memory if possible. Takes no lock and allocates nothing.
    #[must_use]
    pub fn judge(&self, visitor: &Visitor, now: Instant) -> Verdict {
        let knowledge = self.knowledge.load();
        let known = match &**knowledge {
            Knowledge::Nothing => return Verdict::Refuse(Refusal::Unavailable),
            Knowledge::Missing => return Verdict::Refuse(Refusal::Missing),
            Knowledge::Fenced(_) => return Verdict::Refuse(Refusal::LostData),
            Knowledge::Known(known) => known,
        };
        if now.saturating_duration_since(known.asked_at) > self.memory {
            return Verdict::Ask;
        }
        let limits = Remembered { tickets: self.limits.get(), unpaid: self.unpaid.get() };
        let Some(refusal) = known.refusal(visitor, &limits, now) else { return Verdict::Ask };
        match visitor.retry_of {
            Some(_) if known.log_has_gap => Verdict::Ask,
            Some(_) if !known.log_is_read => Verdict::Wait,
            Some(id) if known.orders.contains(id) => Verdict::Ask,
            _ => Verdict::Refuse(refusal),
        }
    }

    /// Whether the log has this order. A purchase with its ID is then a retry and makes no new order.
    #[must_use]
    pub fn knows(&self, id: OrderId) -> bool {
        match &**self.knowledge.load() {
            Knowledge::Known(known) => known.orders.contains(id),
            Knowledge::Nothing | Knowledge::Missing | Knowledge::Fenced(_) => false,
        }
    }

    /// The latest counters; `None` while the ledger is unreachable, or the sale is missing or fenced.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        match &**self.knowledge.load() {
            Knowledge::Known(known) => Some(known.view.clone()),
            Knowledge::Nothing | Knowledge::Missing | Knowledge::Fenced(_) => None,
        }
    }

    /// The latest terms of the ledger; `None` as for [`Gate::view`].
    #[must_use]
    pub fn terms(&self) -> Option<Terms> {
        match &**self.knowledge.load() {
            Knowledge::Known(known) => Some(known.view.terms),
            Knowledge::Nothing | Knowledge::Missing | Knowledge::Fenced(_) => None,
        }
    }

    /// Whether the ledger is reachable, even if the sale is missing or fenced there.
    #[must_use]
    pub fn hears(&self) -> bool {
        !matches!(**self.knowledge.load(), Knowledge::Nothing)
    }

    /// Whether the ledger has no such sale.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(**self.knowledge.load(), Knowledge::Missing)
    }

    /// The reason why the ledger fenced the sale, if it did; see
    /// [`LedgerError::Fenced`](crate::ledger::LedgerError::Fenced).
    #[must_use]
    pub fn fence(&self) -> Option<Arc<str>> {
        match &**self.knowledge.load() {
            Knowledge::Fenced(why) => Some(Arc::clone(why)),
            _ => None,
        }
    }

    /// The newest log entry that was read. The next sync asks for the entries after it.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        self.read_to.load(Ordering::Relaxed)
    }

    /// Applies the answer to a batch. `under_way` is from when it was sent to when the answer came; the ledger read its
    /// clock in between.
    pub fn learn_step(&self, batch: &[Purchase], reserved: &Reserved, under_way: Range<Instant>) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_of_another_sale(&reserved.view) || self.forget_if_gone_back(&reserved.view) {
            return;
        }
        let (read_to, orders) = (self.read_to(), self.orders.load());
        for (purchase, decision) in batch.iter().zip(&reserved.decisions) {
            match (decision, &purchase.buyer) {
                (Decision::Ordered { .. }, _) => orders.insert(purchase.id),
                // If the log is read further, it may show a later change of this count.
                (Decision::BuyerLimit { have }, Some(buyer)) if reserved.view.version >= read_to => {
                    self.limits.get_or_init(BuyerLimits::default).remember(buyer, *have);
                }
                (Decision::UnpaidLimit { have }, Some(buyer)) if reserved.view.version >= read_to => {
                    self.unpaid.get_or_init(BuyerLimits::default).remember(buyer, *have);
                }
                _ => {}
            }
        }
        // If the log was read up to this step, the step's own orders are the only new ones.
        if read_to >= reserved.version_before {
            self.read_to.fetch_max(reserved.view.version, Ordering::Relaxed);
        }
        self.learn(&reserved.view, under_way);
    }

    /// Applies a sync that asked for the log after entry `asked_from`; `under_way` as in [`Gate::learn_step`]. Returns
    /// whether the log has more entries.
    pub fn learn_sync(&self, asked_from: u64, synced: &Synced, under_way: Range<Instant>) -> bool {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_of_another_sale(&synced.view) || self.forget_if_gone_back(&synced.view) {
            return false;
        }
        if asked_from > self.read_to() {
            // The gate was reset meanwhile; these entries continue a log that it no longer has.
            return false;
        }
        let orders = self.orders.load();
        for entry in &synced.entries {
            match &entry.change {
                Change::Held { orders: lines, .. } => lines.iter().for_each(|line| orders.insert(line.order)),
                Change::GivenUp { order } => orders.insert(*order),
                // The buyer has fewer tickets or fewer unpaid orders.
                Change::Paid { line, .. } => self.forget_limits(line.buyer.as_deref()),
                Change::Released { orders: lines, .. } => {
                    lines.iter().for_each(|line| self.forget_limits(line.buyer.as_deref()));
                }
                // These do not change a buyer's count.
                Change::Opened { .. } | Change::State { .. } | Change::Stock { .. } | Change::Lost => {}
                Change::Restored { orders: restored } => {
                    for (id, order) in restored {
                        orders.insert(*id);
                        self.forget_limits(order.buyer.as_deref());
                    }
                }
            }
        }
        let read_to = asked_from + synced.entries.len() as u64;
        let is_stuck = synced.entries.is_empty() && asked_from < synced.view.version;
        let follows = synced.entries.iter().zip(asked_from + 1..).all(|(entry, seq)| entry.seq == seq);
        if follows && !is_stuck {
            self.read_to.fetch_max(read_to, Ordering::Relaxed);
        } else if !self.log_has_gap.swap(true, Ordering::Relaxed) {
            log::error!("the log has a gap after entry {asked_from}: the gate forwards all retries to the ledger");
        }
        self.learn(&synced.view, under_way);
        self.read_to() > asked_from && self.read_to() < synced.view.version
    }

    fn forget_limits(&self, buyer: Option<&str>) {
        let Some(buyer) = buyer else { return };
        for limits in [&self.limits, &self.unpaid].into_iter().filter_map(OnceLock::get) {
            limits.forget(buyer);
        }
    }

    fn is_of_another_sale(&self, view: &View) -> bool {
        view.epoch != self.epoch.load(Ordering::Relaxed)
    }

    /// A ledger that lost changes reuses their numbers: the log must be read again before a retry is refused.
    fn forget_if_gone_back(&self, view: &View) -> bool {
        let gone_back = self.has_gone_back(view);
        if gone_back {
            log::warn!(
                "the ledger went back from version {} to {}: reading its log again",
                self.read_to(),
                view.version
            );
            self.forget_all(Knowledge::Nothing);
        }
        gone_back
    }

    /// A restored older ledger has a smaller version at a later time. An answer that a newer one overtook has a smaller
    /// version and an earlier time.
    fn has_gone_back(&self, view: &View) -> bool {
        match &**self.knowledge.load() {
            Knowledge::Known(known) => view.version < known.view.version && view.now_ms > known.view.now_ms,
            Knowledge::Nothing | Knowledge::Missing | Knowledge::Fenced(_) => view.version < self.read_to(),
        }
    }

    fn learn(&self, view: &View, under_way: Range<Instant>) {
        let read_to = self.read_to();
        if let Knowledge::Known(known) = &**self.knowledge.load() {
            // The newest answer wins. The same version at a later time may show a hash that was edited by hand.
            if (known.view.version, known.view.now_ms) > (view.version, view.now_ms) {
                let log_has_gap = self.log_has_gap.load(Ordering::Relaxed);
                let known = Known { log_is_read: read_to >= known.view.version, log_has_gap, ..known.clone() };
                self.knowledge.store(Arc::new(Knowledge::Known(known)));
                return;
            }
        }
        // Both err towards asking the ledger: the gate never opens a sale late and never closes it early.
        let reckon = |at_ms: Option<u64>, from| {
            at_ms.map(|at_ms| from + Duration::from_millis(at_ms.saturating_sub(view.now_ms)))
        };
        self.knowledge.store(Arc::new(Knowledge::Known(Known {
            view: view.clone(),
            asked_at: under_way.start,
            orders: self.orders.load_full(),
            log_is_read: read_to >= view.version,
            log_has_gap: self.log_has_gap.load(Ordering::Relaxed),
            opens_at: reckon(view.terms.opens_at_ms, under_way.start),
            closes_at: reckon(view.terms.closes_at_ms, under_way.end),
        })));
    }

    /// The ledger has no such sale.
    pub fn learn_missing(&self) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_all(Knowledge::Missing);
    }

    /// The ledger fenced the sale. Reconciliation may change its log, so the gate reads it again afterwards.
    pub fn learn_fence(&self, why: &str) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_all(Knowledge::Fenced(why.into()));
    }

    /// The ledger has a different sale under the same key, with this epoch.
    pub fn learn_new_sale(&self, epoch: u64) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        self.epoch.store(epoch, Ordering::Relaxed);
        self.forget_all(Knowledge::Nothing);
    }

    fn forget_all(&self, instead: Knowledge) {
        self.knowledge.store(Arc::new(instead));
        self.orders.store(Arc::default());
        self.read_to.store(0, Ordering::Relaxed);
        self.log_has_gap.store(false, Ordering::Relaxed);
        for limits in [&self.limits, &self.unpaid].into_iter().filter_map(OnceLock::get) {
            limits.clear();
        }
    }

    /// The ledger is unreachable: drops the counters. Orders stay, because the log only grows.
    pub fn forget(&self) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Knowledge::Known(_) = &**self.knowledge.load() {
            self.knowledge.store(Arc::new(Knowledge::Nothing));
        }
    }

    /// The ledger's data of the sale is damaged: drops the state, including "missing".
    pub fn distrust(&self) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        self.knowledge.store(Arc::new(Knowledge::Nothing));
    }
}

#[cfg(test)]
mod tests;
