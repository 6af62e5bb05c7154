//! What an order service reads: log entries as events in JSON, one for each order and change.

use serde::Serialize;

use crate::ledger::{
    Change, EventId, LogEntry, Order, OrderId, OrderLine, OrderState, PaymentId, ReleaseReason, SaleState,
};
use crate::sale::reply::time;

/// The most events of one POST.
pub const EVENTS_MAX: usize = 512;

/// The most bytes of one POST's body, as long as it has more than one event.
pub const BODY_MAX: usize = 1024 * 1024;

/// One event, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it stands in the log.
    pub id: EventId,
    /// The order that it is of, if it is of one.
    pub order: Option<OrderId>,
    json: String,
}

#[derive(Serialize)]
struct Document<'a> {
    seq: u64,
    at: &'a str,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What<'a> {
    Opened { total: u64, sold: u64 },
    Held { order_id: OrderId, quantity: u32, buyer: Option<&'a str>, expires_at: &'a str },
    Paid { order_id: OrderId, quantity: u32, buyer: Option<&'a str>, payment: &'a PaymentId, retaken: bool },
    Released { order_id: OrderId, quantity: u32, buyer: Option<&'a str>, reason: ReleaseReason },
    GivenUp { order_id: OrderId },
    State { state: SaleState },
    Stock { change_id: &'a str, delta: i64 },
}

/// The events of an entry, in its order.
#[must_use]
pub fn events(entry: &LogEntry) -> Vec<Event> {
    let at = time(entry.at_ms);
    let event = |part: usize, order: Option<OrderId>, what: What<'_>| Event {
        // An entry has at most a few hundred orders.
        id: EventId { seq: entry.seq, part: part as u32 },
        order,
        json: json(&Document { seq: entry.seq, at: &at, what }),
    };
    match &entry.change {
        &Change::Opened { total, sold } => vec![event(0, None, What::Opened { total, sold })],
        Change::Held { expires_at_ms, orders } => {
            let expires_at = time(*expires_at_ms);
            let held = |(part, line): (usize, &OrderLine)| {
                let &OrderLine { order: order_id, quantity, ref buyer } = line;
                let what = What::Held { order_id, quantity, buyer: buyer.as_deref(), expires_at: &expires_at };
                event(part, Some(order_id), what)
            };
            orders.iter().enumerate().map(held).collect()
        }
        Change::Paid { line: OrderLine { order, quantity, buyer }, payment, retaken } => {
            let (order_id, quantity, buyer) = (*order, *quantity, buyer.as_deref());
            vec![event(0, Some(order_id), What::Paid { order_id, quantity, buyer, payment, retaken: *retaken })]
        }
        Change::Released { reason, orders } => {
            let released = |(part, line): (usize, &OrderLine)| {
                let &OrderLine { order: order_id, quantity, ref buyer } = line;
                event(
                    part,
                    Some(order_id),
                    What::Released { order_id, quantity, buyer: buyer.as_deref(), reason: *reason },
                )
            };
            orders.iter().enumerate().map(released).collect()
        }
        Change::Restored { orders } => {
            let restored = |(part, (id, order)): (usize, &(OrderId, Order))| {
                let expires_at = time(order.expires_at_ms);
                event(part, Some(*id), standing(*id, order, &expires_at))
            };
            orders.iter().enumerate().map(restored).collect()
        }
        // There is nothing to tell; what it was is told by `restored` entries, as far as it is known.
        Change::Lost => Vec::new(),
        &Change::GivenUp { order: order_id } => vec![event(0, Some(order_id), What::GivenUp { order_id })],
        &Change::State { state } => vec![event(0, None, What::State { state })],
        Change::Stock { change_id, delta } => vec![event(0, None, What::Stock { change_id, delta: *delta })],
    }
}

/// What an order that stands like this is told as; its receiver may have heard so before.
fn standing<'a>(order_id: OrderId, order: &'a Order, expires_at: &'a str) -> What<'a> {
    let (quantity, buyer) = (order.quantity, order.buyer.as_deref());
    match (order.state, &order.payment, order.reason) {
        (OrderState::Paid, Some(payment), _) => What::Paid { order_id, quantity, buyer, payment, retaken: false },
        (OrderState::Released, _, Some(ReleaseReason::GivenUp)) => What::GivenUp { order_id },
        (OrderState::Released, _, reason) => {
            What::Released { order_id, quantity, buyer, reason: reason.unwrap_or(ReleaseReason::Expired) }
        }
        _ => What::Held { order_id, quantity, buyer, expires_at },
    }
}

fn json(document: &Document<'_>) -> String {
    // Only maps with keys that are no text, and writers that fail, make it an error.
    serde_json::to_string(document).unwrap_or_default()
}

/// The body of a POST; without events it only asks whether the receiver is well.
#[must_use]
pub fn body(sale: &str, epoch: u64, events: &[Event]) -> String {
    let mut body = head(sale, epoch);
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(&event.json);
    }
    body.push_str(TAIL);
    body
}

/// A sale's id has nothing that JSON would escape.
fn head(sale: &str, epoch: u64) -> String {
    format!("{{\"sale\":\"{sale}\",\"epoch\":\"{epoch:016x}\",\"events\":[")
}

const TAIL: &str = "]}";

/// How many of these events, from the first on, go into one POST: 1 or more, if there are any.
#[must_use]
pub fn fitting(sale: &str, epoch: u64, events: &[Event]) -> usize {
    let mut length = head(sale, epoch).len() + TAIL.len();
    let mut fits = |event: &Event| {
        length += event.json.len() + 1;
        length <= BODY_MAX
    };
    let count = events.iter().take(EVENTS_MAX).take_while(|event| fits(event)).count();
    // An event too large for any POST is tried all the same; whoever takes it is not to be stopped by us.
    count.max(1).min(events.len())
}

#[cfg(test)]
mod tests;
