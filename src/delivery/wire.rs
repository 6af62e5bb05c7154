//! The format of deliveries: log entries as JSON events, one for each order and change.

use serde::Serialize;

use crate::ledger::{
    Change, EventId, LogEntry, Order, OrderId, OrderLine, OrderState, PaymentId, ReleaseReason, SaleState,
};
use crate::sale::reply::time;

/// The most events of one POST.
pub const EVENTS_MAX: usize = 512;

/// The most bytes of one POST's body, as long as it has more than one event.
pub const BODY_MAX: usize = 1024 * 1024;

/// One event, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its position in the log.
    pub id: EventId,
    /// Its order, if it has one.
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

/// The events of an entry, in the entry's order.
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
        // No event: what is known of the lost changes follows in `restored` entries.
        Change::Lost => Vec::new(),
        &Change::GivenUp { order: order_id } => vec![event(0, Some(order_id), What::GivenUp { order_id })],
        &Change::State { state } => vec![event(0, None, What::State { state })],
        Change::Stock { change_id, delta } => vec![event(0, None, What::Stock { change_id, delta: *delta })],
    }
}

/// The event for an order in this state; its receiver may have received it before.
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
    // Serialization fails only for maps with keys that are no text and for writers that fail.
    serde_json::to_string(document).unwrap_or_default()
}

/// The body of a POST; without events it only checks whether the receiver works.
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

/// A sale's id contains nothing that JSON escapes.
fn head(sale: &str, epoch: u64) -> String {
    format!("{{\"sale\":\"{sale}\",\"epoch\":\"{epoch:016x}\",\"events\":[")
}

const TAIL: &str = "]}";

/// How many of these events, from the first on, fit into one POST: at least 1 if there are any.
#[must_use]
pub fn fitting(sale: &str, epoch: u64, events: &[Event]) -> usize {
    let mut length = head(sale, epoch).len() + TAIL.len();
    let mut fits = |event: &Event| {
        length += event.json.len() + 1;
        length <= BODY_MAX
    };
    let count = events.iter().take(EVENTS_MAX).take_while(|event| fits(event)).count();
    // An event that is too large is sent all the same: the receiver decides.
    count.max(1).min(events.len())
}

#[cfg(test)]
mod tests;
