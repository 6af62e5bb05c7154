//! The sale as a state machine without I/O or clock; callers pass the time in.
//!
//! A decision changes nothing: it returns the log entry that would. Only [`SaleModel::apply`] changes a sale. A store
//! can therefore write the entry first, and replaying a log rebuilds the sale.

#[cfg(test)]
pub(crate) mod in_memory;
mod settle;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use self::settle::Sweep;
use super::{
    Change, Decision, LedgerError, LogEntry, Order, OrderId, OrderLine, OrderState, Purchase, SaleState, TOTAL_MAX,
    Terms, View,
};

/// One sale.
#[derive(Debug, Clone, Default)]
pub struct SaleModel {
    epoch: u64,
    version: u64,
    clock_ms: u64,
    total: u64,
    sold: u64,
    paid: u64,
    state: SaleState,
    orders: HashMap<OrderId, Order>,
    /// Buyers with tickets.
    buyers: HashMap<Arc<str>, Holdings>,
    /// Orders by the end of their hold and the number of the entry that made them. A sweep checks whether they are
    /// still held.
    due: BTreeMap<(u64, u64), Vec<OrderId>>,
    /// Stock changes by their IDs.
    changes: HashMap<Arc<str>, i64>,
}

/// The tickets and unpaid orders of a buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Held and paid tickets.
    pub tickets: u64,
    /// Held orders.
    pub unpaid: u64,
}

/// The decisions about a batch of purchases, and the log entry that makes them effective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// One per purchase, in their order.
    pub decisions: Vec<Decision>,
    /// To be written, then applied; `None` if no order was made.
    pub entry: Option<LogEntry>,
}

/// The state after the earlier purchases of a batch.
struct Draft<'a> {
    sale: &'a SaleModel,
    available: u64,
    orders: HashMap<OrderId, Order>,
    bought: HashMap<Arc<str>, Holdings>,
}

impl Draft<'_> {
    fn order(&self, id: &OrderId) -> Option<&Order> {
        self.orders.get(id).or_else(|| self.sale.orders.get(id))
    }

    fn has(&self, buyer: &str) -> Holdings {
        let before = self.sale.held_by(buyer);
        let bought = self.bought.get(buyer).copied().unwrap_or_default();
        Holdings { tickets: before.tickets + bought.tickets, unpaid: before.unpaid + bought.unpaid }
    }
}

impl SaleModel {
    /// An empty sale. `epoch` must not be 0.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// The counters at this instant. `now_ms` is the caller's clock in ms since 1970; the sale's clock never goes back.
    #[must_use]
    pub fn view(&self, now_ms: u64, terms: &Terms) -> View {
        View {
            epoch: self.epoch,
            version: self.version,
            now_ms: self.clock(now_ms),
            total: self.total,
            sold: self.sold,
            paid: self.paid,
            state: self.state,
            terms: *terms,
        }
    }

    /// See [`Identity::epoch`](super::Identity::epoch).
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of the newest entry; 0 before the first.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Finds an order.
    #[must_use]
    pub fn order(&self, id: &OrderId) -> Option<&Order> {
        self.orders.get(id)
    }

    /// All orders, unsorted.
    pub fn orders(&self) -> impl Iterator<Item = (&OrderId, &Order)> {
        self.orders.iter()
    }

    /// All buyers with tickets.
    pub fn buyers(&self) -> impl Iterator<Item = (&Arc<str>, Holdings)> {
        self.buyers.iter().map(|(buyer, has)| (buyer, *has))
    }

    /// Whether the stock change with this ID was made.
    #[must_use]
    pub fn has_change(&self, change_id: &str) -> bool {
        self.changes.contains_key(change_id)
    }

    /// The holdings of a buyer; zero for an unknown buyer.
    #[must_use]
    pub fn held_by(&self, buyer: &str) -> Holdings {
        self.buyers.get(buyer).copied().unwrap_or_default()
    }

    /// Orders by the end of their hold, earliest first. Paid and cancelled orders are included until a sweep.
    pub fn due(&self) -> impl Iterator<Item = (u64, OrderId)> {
        self.due.iter().flat_map(|((at_ms, _), orders)| orders.iter().map(|order| (*at_ms, *order)))
    }

    /// The earliest end of a hold that no sweep has examined, in ms since 1970.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.keys().next().map(|(at_ms, _)| *at_ms)
    }

    /// The first entry of a sale's log.
    #[must_use]
    pub fn open(&self, now_ms: u64, total: u64) -> LogEntry {
        self.entry(now_ms, Change::Opened { total, sold: 0 })
    }

    /// Decides purchases in their order. Each decision counts the tickets of the ones before it.
    #[must_use]
    pub fn reserve(&self, now_ms: u64, terms: &Terms, batch: &[Purchase]) -> Reservation {
        let at_ms = self.clock(now_ms);
        let mut draft = Draft {
            sale: self,
            available: self.total.saturating_sub(self.sold),
            orders: HashMap::with_capacity(batch.len()),
            bought: HashMap::new(),
        };
        let expires_at_ms = at_ms.saturating_add(terms.hold_ms);
        let mut decisions = Vec::with_capacity(batch.len());
        let mut orders = Vec::with_capacity(batch.len());
        for purchase in batch {
            if let Some(refused_or_known) = self.refuse_or_repeat(at_ms, terms, &draft, purchase) {
                decisions.push(refused_or_known);
                continue;
            }
            // No refusal applies: make the order.
            let Purchase { id, buyer, quantity } = purchase;
            draft.available -= u64::from(*quantity);
            if let Some(buyer) = buyer {
                let bought = draft.bought.entry(Arc::clone(buyer)).or_default();
                bought.tickets += u64::from(*quantity);
                bought.unpaid += 1;
            }
            let order = Order::held(*quantity, buyer.clone(), expires_at_ms);
            draft.orders.insert(*id, order.clone());
            orders.push(OrderLine { order: *id, quantity: *quantity, buyer: buyer.clone() });
            decisions.push(Decision::Ordered { order, again: false });
        }
        let entry = (!orders.is_empty()).then(|| self.entry(now_ms, Change::Held { expires_at_ms, orders }));
        Reservation { decisions, entry }
    }

    /// Checks the rules in their order; `None` if the order is to be made.
    fn refuse_or_repeat(&self, at_ms: u64, terms: &Terms, draft: &Draft, purchase: &Purchase) -> Option<Decision> {
        if let Some(order) = draft.order(&purchase.id) {
            return Some(if order.quantity == purchase.quantity || order.is_tombstone() {
                Decision::Ordered { order: order.clone(), again: true }
            } else {
                Decision::KeyReused
            });
        }
        if self.state == SaleState::Closed || terms.closes_at_ms.is_some_and(|end| at_ms >= end) {
            return Some(Decision::Closed);
        }
        if terms.opens_at_ms.is_some_and(|begin| at_ms < begin) {
            return Some(Decision::NotYet);
        }
        if self.state == SaleState::Paused {
            return Some(Decision::Paused);
        }
        if draft.available == 0 {
            return Some(Decision::SoldOut);
        }
        if let Some(buyer) = &purchase.buyer {
            let Holdings { tickets, unpaid } = draft.has(buyer);
            if terms.per_buyer > 0 && tickets + u64::from(purchase.quantity) > u64::from(terms.per_buyer) {
                return Some(Decision::BuyerLimit { have: tickets });
            }
            if terms.unpaid_per_buyer > 0 && unpaid >= u64::from(terms.unpaid_per_buyer) {
                return Some(Decision::UnpaidLimit { have: unpaid });
            }
        }
        if draft.available < u64::from(purchase.quantity) {
            return Some(Decision::NotEnough { left: draft.available });
        }
        None
    }

    /// The entry that sets the state; `None` if the sale has it already.
    #[must_use]
    pub fn set_state(&self, now_ms: u64, state: SaleState) -> Option<LogEntry> {
        (self.state != state).then(|| self.entry(now_ms, Change::State { state }))
    }

    /// The entry that changes the stock; `None` if the same change was made before.
    ///
    /// # Errors
    /// [`LedgerError::ChangeIdReused`], [`LedgerError::BelowSold`] and [`LedgerError::AboveMaximum`].
    pub fn add_stock(&self, now_ms: u64, change_id: &str, delta: i64) -> Result<Option<LogEntry>, LedgerError> {
        if let Some(made) = self.changes.get(change_id) {
            return if *made == delta { Ok(None) } else { Err(LedgerError::ChangeIdReused) };
        }
        match self.total.checked_add_signed(delta) {
            Some(total) if total > TOTAL_MAX => Err(LedgerError::AboveMaximum),
            Some(total) if total >= self.sold => {
                Ok(Some(self.entry(now_ms, Change::Stock { change_id: change_id.into(), delta })))
            }
            _ => Err(LedgerError::BelowSold { sold: self.sold }),
        }
    }

    /// Applies one entry. Entries must come in order and without gaps.
    pub fn apply(&mut self, entry: &LogEntry) {
        debug_assert_eq!(entry.seq, self.version + 1, "entries are applied in their order, without gaps");
        self.version = entry.seq;
        self.clock_ms = self.clock(entry.at_ms);
        match &entry.change {
            Change::Opened { total, sold } => {
                self.total = *total;
                self.sold = *sold;
            }
            Change::Held { expires_at_ms, orders } => {
                for OrderLine { order, quantity, buyer } in orders {
                    self.take(buyer.as_ref(), *quantity);
                    self.hold(buyer.as_ref(), 1);
                    self.orders.insert(*order, Order::held(*quantity, buyer.clone(), *expires_at_ms));
                }
                self.due.insert((*expires_at_ms, entry.seq), orders.iter().map(|line| line.order).collect());
            }
            Change::Paid { line: OrderLine { order, quantity, buyer }, payment, retaken } => {
                if *retaken {
                    self.take(buyer.as_ref(), *quantity);
                } else {
                    self.hold(buyer.as_ref(), -1);
                }
                self.paid += u64::from(*quantity);
                if let Some(order) = self.orders.get_mut(order) {
                    order.state = OrderState::Paid;
                    order.payment = Some(payment.clone());
                    order.reason = None;
                }
            }
            Change::Released { reason, orders } => {
                for OrderLine { order, quantity, buyer } in orders {
                    self.hold(buyer.as_ref(), -1);
                    self.give_back(buyer.as_ref(), *quantity);
                    if let Some(order) = self.orders.get_mut(order) {
                        order.state = OrderState::Released;
                        order.reason = Some(*reason);
                    }
                }
            }
            Change::GivenUp { order } => {
                self.orders.insert(*order, Order::tombstone());
            }
            Change::State { state } => self.state = *state,
            Change::Stock { change_id, delta } => {
                self.total = self.total.saturating_add_signed(*delta);
                self.changes.insert(Arc::clone(change_id), *delta);
            }
            Change::Restored { orders } => orders.iter().for_each(|(id, order)| self.restate(entry.seq, *id, order)),
            Change::Lost => {}
        }
    }

    /// Replaces an order in any state by this one.
    fn restate(&mut self, seq: u64, id: OrderId, order: &Order) {
        let before = self.orders.insert(id, order.clone());
        if let Some(before) = before.as_ref().filter(|before| before.state != OrderState::Released) {
            self.give_back(before.buyer.as_ref(), before.quantity);
            if before.state == OrderState::Held {
                self.hold(before.buyer.as_ref(), -1);
            } else {
                self.paid = self.paid.saturating_sub(u64::from(before.quantity));
            }
        }
        match order.state {
            OrderState::Released => return,
            OrderState::Paid => self.paid += u64::from(order.quantity),
            OrderState::Held => self.hold(order.buyer.as_ref(), 1),
        }
        self.take(order.buyer.as_ref(), order.quantity);
        if order.state == OrderState::Held && before.is_none_or(|before| before.state != OrderState::Held) {
            self.due.entry((order.expires_at_ms, seq)).or_default().push(id);
        }
    }

    fn take(&mut self, buyer: Option<&Arc<str>>, quantity: u32) {
        // A damaged log may start with any number. If the sum wrapped around to 0, tickets would be sold again.
        self.sold = self.sold.saturating_add(u64::from(quantity));
        if let Some(buyer) = buyer {
            self.buyers.entry(Arc::clone(buyer)).or_default().tickets += u64::from(quantity);
        }
    }

    fn give_back(&mut self, buyer: Option<&Arc<str>>, quantity: u32) {
        self.sold = self.sold.saturating_sub(u64::from(quantity));
        self.change_holdings(buyer, |has| has.tickets = has.tickets.saturating_sub(u64::from(quantity)));
    }

    /// Changes the number of unpaid orders by `orders`.
    fn hold(&mut self, buyer: Option<&Arc<str>>, orders: i64) {
        self.change_holdings(buyer, |has| has.unpaid = has.unpaid.saturating_add_signed(orders));
    }

    /// Changes a buyer's holdings and removes a buyer without any.
    fn change_holdings(&mut self, buyer: Option<&Arc<str>>, change: impl FnOnce(&mut Holdings)) {
        if let Some(buyer) = buyer {
            let has = self.buyers.entry(Arc::clone(buyer)).or_default();
            change(has);
            if *has == Holdings::default() {
                self.buyers.remove(buyer);
            }
        }
    }

    fn entry(&self, now_ms: u64, change: Change) -> LogEntry {
        LogEntry { seq: self.version + 1, at_ms: self.clock(now_ms), change }
    }

    fn clock(&self, now_ms: u64) -> u64 {
        now_ms.max(self.clock_ms)
    }
}
