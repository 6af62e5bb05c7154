//! The gate: what an edge remembers of a sale, so that a refusal costs a memory read. The gate cannot sell.
//!
//! It knows only what the ledger told it: the counters of one version, and which orders the log names. It refuses from
//! memory under four rules:
//!
//! 1. Sold out is never a latch. What is known is replaced by every newer answer of the ledger and dropped when the
//!    ledger cannot be reached.
//! 2. A made order is never denied. A purchase that may be a retry (it has a key) is refused only if the log is read up
//!    to the version that is known, and does not name its order.
//! 3. What is known is replaced by every sync, so what is older than that is no longer used, and the ledger decides:
//!    the process or its machine slept, and the world did not.
//! 4. A buyer's limit is remembered only as long as the log, read up to the known version, shows no change of it.

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

/// What the gate says to a purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The ledger has to decide.
    Ask,
    /// It would be refused, if it is no retry; the log has to be read first.
    Wait,
    /// No.
    Refuse(Refusal),
}

/// What a purchase is to the gate.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// Its order id, if it has a key and may thus be a retry.
    pub retry_of: Option<OrderId>,
    /// Who buys.
    pub buyer: Option<&'a str>,
    /// How many tickets.
    pub quantity: u32,
}

/// What is known of a sale at an instant.
#[derive(Debug, Clone)]
enum Knowledge {
    /// Nothing: the ledger was not reached yet, or not of late.
    Nothing,
    /// The ledger says that it has no such sale.
    Missing,
    /// The ledger has lost changes of the sale, and sells nothing until they are found.
    Fenced(Arc<str>),
    /// The ledger's word.
    Known(Known),
}

#[derive(Debug, Clone)]
struct Known {
    view: View,
    /// When the ledger was asked for it.
    asked_at: Instant,
    /// The orders that the log named so far; more are added as they become known.
    orders: Arc<Fingerprints>,
    /// Whether every order of this version is among them.
    log_is_read: bool,
    /// Entries of the log are gone, so that it can never be read to its end.
    log_has_gap: bool,
    /// `opens_at` and `closes_at` on this machine's monotonic clock, so that its wall clock does not matter.
    opens_at: Option<Instant>,
    closes_at: Option<Instant>,
}

/// Buyers who were refused, by which limit.
struct Remembered<'a> {
    tickets: Option<&'a BuyerLimits>,
    unpaid: Option<&'a BuyerLimits>,
}

impl Known {
    /// The rules in the ledger's order of precedence.
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
    /// How old what it knows may be.
    memory: Duration,
    knowledge: ArcSwap<Knowledge>,
    /// What is newly known of orders goes here. Another table takes its place when all is forgotten: whoever still
    /// judges by an older knowledge has the table that belongs to it.
    orders: ArcSwap<Fingerprints>,
    /// Which sale this is about; 0 before one was opened. What is heard of another is of the past.
    epoch: AtomicU64,
    /// The newest log entry of which `orders` know.
    read_to: AtomicU64,
    log_has_gap: AtomicBool,
    /// Made when the first buyer meets the limit; most sales never need it.
    limits: OnceLock<BuyerLimits>,
    /// The same for the limit of unpaid orders.
    unpaid: OnceLock<BuyerLimits>,
    /// Orders those who learn; visitors never take it.
    learning: Mutex<()>,
}

impl Gate {
    /// One that knows nothing yet. Longer than `memory` after it heard of the ledger for the last time, it refuses
    /// nothing.
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

    /// Decides from memory what can be decided from memory. Takes no lock and allocates nothing.
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

    /// Whether an order is known to be there, so that asking for it again makes none.
    #[must_use]
    pub fn knows(&self, id: OrderId) -> bool {
        match &**self.knowledge.load() {
            Knowledge::Known(known) => known.orders.contains(id),
            Knowledge::Nothing | Knowledge::Missing | Knowledge::Fenced(_) => false,
        }
    }

    /// The counters as last heard; `None` while nothing is known.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        match &**self.knowledge.load() {
            Knowledge::Known(known) => Some(known.view.clone()),
            Knowledge::Nothing | Knowledge::Missing | Knowledge::Fenced(_) => None,
        }
    }

    /// The terms that hold at the ledger; `None` while nothing is known.
    #[must_use]
    pub fn terms(&self) -> Option<Terms> {
        match &**self.knowledge.load() {
            Knowledge::Known(known) => Some(known.view.terms),
            Knowledge::Nothing | Knowledge::Missing | Knowledge::Fenced(_) => None,
        }
    }

    /// Whether the ledger was heard of late, even if it said that it has no such sale.
    #[must_use]
    pub fn hears(&self) -> bool {
        !matches!(**self.knowledge.load(), Knowledge::Nothing)
    }

    /// Whether the ledger said that it has no such sale.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(**self.knowledge.load(), Knowledge::Missing)
    }

    /// Why the ledger has fenced the sale, if it has; see [`LedgerError::Fenced`](crate::ledger::LedgerError::Fenced).
    #[must_use]
    pub fn fence(&self) -> Option<Arc<str>> {
        match &**self.knowledge.load() {
            Knowledge::Fenced(why) => Some(Arc::clone(why)),
            _ => None,
        }
    }

    /// The newest log entry that was read; what a sync has to ask from.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        self.read_to.load(Ordering::Relaxed)
    }

    /// Takes over what a step of purchases brought. `under_way` is when it was sent and when its answer came; at some
    /// instant in between the ledger read its clock.
    pub fn learn_step(&self, batch: &[Purchase], reserved: &Reserved, under_way: Range<Instant>) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_of_another_sale(&reserved.view) || self.forget_if_gone_back(&reserved.view) {
            return;
        }
        let (read_to, orders) = (self.read_to(), self.orders.load());
        for (purchase, decision) in batch.iter().zip(&reserved.decisions) {
            match (decision, &purchase.buyer) {
                (Decision::Ordered { .. }, _) => orders.insert(purchase.id),
                // The log may show a later change already; then this is old news.
                (Decision::BuyerLimit { have }, Some(buyer)) if reserved.view.version >= read_to => {
                    self.limits.get_or_init(BuyerLimits::default).remember(buyer, *have);
                }
                (Decision::UnpaidLimit { have }, Some(buyer)) if reserved.view.version >= read_to => {
                    self.unpaid.get_or_init(BuyerLimits::default).remember(buyer, *have);
                }
                _ => {}
            }
        }
        // With the log read up to the step, its own orders are all that it added.
        if read_to >= reserved.version_before {
            self.read_to.fetch_max(reserved.view.version, Ordering::Relaxed);
        }
        self.learn(&reserved.view, under_way);
    }

    /// Takes over what a sync brought that was asked from log entry `asked_from` on; `under_way` as in
    /// [`Gate::learn_step`]. Says whether the log has more to read.
    pub fn learn_sync(&self, asked_from: u64, synced: &Synced, under_way: Range<Instant>) -> bool {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_of_another_sale(&synced.view) || self.forget_if_gone_back(&synced.view) {
            return false;
        }
        if asked_from > self.read_to() {
            // All was forgotten while it was under way, and what it goes on from is no longer known here.
            return false;
        }
        let orders = self.orders.load();
        for entry in &synced.entries {
            match &entry.change {
                Change::Held { orders: lines, .. } => lines.iter().for_each(|line| orders.insert(line.order)),
                Change::GivenUp { order } => orders.insert(*order),
                // What a buyer has becomes less, or fewer of it are unpaid.
                Change::Paid { line, .. } => self.forget_limits(line.buyer.as_deref()),
                Change::Released { orders: lines, .. } => {
                    lines.iter().for_each(|line| self.forget_limits(line.buyer.as_deref()));
                }
                // None of these changes what a buyer has, so what is remembered of limits stays true.
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
            log::error!("the log has a gap after entry {asked_from}; the ledger decides retries");
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

    /// A ledger that has lost changes makes others in their place, under the same numbers; then the log has to be read
    /// again from its beginning before anything is refused to a retry.
    fn forget_if_gone_back(&self, view: &View) -> bool {
        let gone_back = self.has_gone_back(view);
        if gone_back {
            log::warn!("the ledger has version {} after {}; reading its log again", view.version, self.read_to());
            self.forget_all(Knowledge::Nothing);
        }
        gone_back
    }

    /// A ledger that was set back to an earlier time has a smaller version at a later hour. An answer that was merely
    /// overtaken by a newer one is of an earlier hour too.
    fn has_gone_back(&self, view: &View) -> bool {
        match &**self.knowledge.load() {
            Knowledge::Known(known) => view.version < known.view.version && view.now_ms > known.view.now_ms,
            Knowledge::Nothing | Knowledge::Missing | Knowledge::Fenced(_) => view.version < self.read_to(),
        }
    }

    fn learn(&self, view: &View, under_way: Range<Instant>) {
        let read_to = self.read_to();
        if let Knowledge::Known(known) = &**self.knowledge.load() {
            // Newest wins; an equal version at a later hour may tell of a hash that was edited by hand.
            if (known.view.version, known.view.now_ms) > (view.version, view.now_ms) {
                let log_has_gap = self.log_has_gap.load(Ordering::Relaxed);
                let known = Known { log_is_read: read_to >= known.view.version, log_has_gap, ..known.clone() };
                self.knowledge.store(Arc::new(Knowledge::Known(known)));
                return;
            }
        }
        // Both err towards asking the ledger: a sale is never opened late here, and never closed early.
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

    /// The ledger has fenced the sale. Its log may be another when the fence is taken down, so it is read anew then.
    pub fn learn_fence(&self, why: &str) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_all(Knowledge::Fenced(why.into()));
    }

    /// The ledger has another sale under the same name, of this epoch.
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

    /// The ledger cannot be reached: nothing that it said of its counters counts any more. Its orders do not change.
    pub fn forget(&self) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Knowledge::Known(_) = &**self.knowledge.load() {
            self.knowledge.store(Arc::new(Knowledge::Nothing));
        }
    }

    /// What the ledger holds of the sale makes no sense: nothing is known of it, not even that it is not there.
    pub fn distrust(&self) {
        let _turn = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        self.knowledge.store(Arc::new(Knowledge::Nothing));
    }
}

#[cfg(test)]
mod tests;
