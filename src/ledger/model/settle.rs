//! The end of a hold: an order is paid, cancelled or expires.

use super::super::{
    Cancelled, Change, Confirmed, LogEntry, Order, OrderId, OrderLine, OrderState, PaymentId, RefundReason,
    ReleaseReason, SWEEP_MAX, Swept, Terms,
};
use super::SaleModel;

/// The result of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// The counts for the caller.
    pub swept: Swept,
    /// The entries of `due` to remove after `entry` is written.
    ended: Vec<(u64, u64)>,
    /// To be written, then applied; `None` if no order was released.
    pub entry: Option<LogEntry>,
}

impl SaleModel {
    /// Decides a payment and returns the entry that records it, if it changes the order.
    #[must_use]
    pub fn confirm(
        &self,
        now_ms: u64,
        terms: &Terms,
        id: OrderId,
        payment: &PaymentId,
    ) -> (Confirmed, Option<LogEntry>) {
        let Some(order) = self.orders.get(&id) else { return (Confirmed::UnknownOrder, None) };
        let retaken = match order.state {
            OrderState::Held => false,
            OrderState::Released => match self.refuse_to_take_back(terms, order) {
                Some(reason) => return (Confirmed::RefundDue(reason), None),
                None => true,
            },
            OrderState::Paid => {
                let decided = match &order.payment {
                    Some(other) if other != payment => {
                        Confirmed::RefundDue(RefundReason::PaidOtherwise { payment: other.clone() })
                    }
                    _ => Confirmed::Paid { order: order.clone(), retaken: false },
                };
                return (decided, None);
            }
        };
        let line = line(id, order);
        let paid = Order { state: OrderState::Paid, payment: Some(payment.clone()), reason: None, ..order.clone() };
        let change = Change::Paid { line, payment: payment.clone(), retaken };
        (Confirmed::Paid { order: paid, retaken }, Some(self.entry(now_ms, change)))
    }

    /// Why a released order cannot be taken back. The sale need not be open: the buyer bought in time, and available
    /// tickets belong to no other buyer.
    fn refuse_to_take_back(&self, terms: &Terms, order: &Order) -> Option<RefundReason> {
        let (left, quantity) = (self.total.saturating_sub(self.sold), u64::from(order.quantity));
        let have = order.buyer.as_deref().map_or(0, |buyer| self.held_by(buyer).tickets);
        if order.is_tombstone() {
            Some(RefundReason::GivenUp)
        } else if left == 0 {
            Some(RefundReason::SoldOut)
        } else if order.buyer.is_some() && terms.per_buyer > 0 && have + quantity > u64::from(terms.per_buyer) {
            Some(RefundReason::BuyerLimit { have })
        } else if left < quantity {
            Some(RefundReason::NotEnough { left })
        } else {
            None
        }
    }

    /// Decides a cancellation and returns the entry that records it, if it changes anything.
    #[must_use]
    pub fn cancel(&self, now_ms: u64, id: OrderId) -> (Cancelled, Option<LogEntry>) {
        let Some(order) = self.orders.get(&id) else {
            return (Cancelled::GivenUp, Some(self.entry(now_ms, Change::GivenUp { order: id })));
        };
        match order.state {
            OrderState::Held => {
                let reason = ReleaseReason::Cancelled;
                let released = Order { state: OrderState::Released, reason: Some(reason), ..order.clone() };
                let change = Change::Released { reason, orders: vec![line(id, order)] };
                (Cancelled::Released(released), Some(self.entry(now_ms, change)))
            }
            OrderState::Paid => (Cancelled::AlreadyPaid(order.clone()), None),
            OrderState::Released if order.is_tombstone() => (Cancelled::GivenUp, None),
            OrderState::Released => (Cancelled::Released(order.clone()), None),
        }
    }

    /// Finds orders to release, earliest end of hold first. The orders of one step are examined together: a sweep
    /// removes whole entries of `due`.
    #[must_use]
    pub fn sweep(&self, now_ms: u64) -> Sweep {
        let at_ms = self.clock(now_ms);
        let (mut swept, mut ended, mut orders) = (Swept::default(), Vec::new(), Vec::new());
        for (key, ids) in &self.due {
            if key.0 > at_ms || (swept.ended > 0 && swept.ended + ids.len() > SWEEP_MAX) {
                break;
            }
            swept.ended += ids.len();
            ended.push(*key);
            let held = ids.iter().filter_map(|id| {
                let order = self.orders.get(id)?;
                (order.state == OrderState::Held).then(|| line(*id, order))
            });
            orders.extend(held);
        }
        swept.released = orders.len();
        let released = Change::Released { reason: ReleaseReason::Expired, orders };
        let entry = (swept.released > 0).then(|| self.entry(now_ms, released));
        Sweep { swept, ended, entry }
    }

    /// Removes the deadlines that a sweep examined, after its entry was written and applied.
    pub fn end(&mut self, sweep: &Sweep) {
        for key in &sweep.ended {
            self.due.remove(key);
        }
    }
}

fn line(id: OrderId, order: &Order) -> OrderLine {
    OrderLine { order: id, quantity: order.quantity, buyer: order.buyer.clone() }
}
