//! Parses deliveries: at most one update for each order.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::order::{OrderId, OrderState};

/// Maximum size of a body in bytes.
pub const BODY_MAX: usize = 1024 * 1024;

/// Maximum number of events in a body.
pub const EVENTS_MAX: usize = 512;

/// The updates of a delivery. They are sorted by order id: all transactions lock rows in the same order.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The sale's id.
    pub sale: String,
    /// The epoch tells successive sales with the same id apart.
    pub epoch: String,
    /// The update of each order.
    pub updates: BTreeMap<OrderId, OrderUpdate>,
}

/// The newest state of an order in a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderUpdate {
    /// The order.
    pub order_id: OrderId,
    /// Its log entry, 1 or more.
    pub seq: i64,
    /// The buyer's id, unless the purchase was anonymous.
    pub buyer: Option<String>,
    /// How many tickets.
    pub quantity: i64,
    /// The new state.
    pub state: OrderState,
    /// End of the hold in ms since 1970; only in `held` events.
    pub expires_at_ms: Option<i64>,
    /// Why it was released.
    pub reason: Option<String>,
    /// The payment that paid it.
    pub payment: Option<String>,
    /// Time of the order's first event in ms since 1970.
    pub created_at_ms: i64,
    /// Time of the change in ms since 1970.
    pub updated_at_ms: i64,
}

/// The delivery is invalid; the message names the member.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeliveryError(String);

#[derive(Deserialize)]
struct Body<'a> {
    sale: String,
    epoch: String,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Read first: members of unknown kinds are ignored.
#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Deserialize)]
struct Event {
    seq: u64,
    at: Timestamp,
    order_id: OrderId,
    quantity: u32,
    buyer: Option<String>,
    expires_at: Option<Timestamp>,
    reason: Option<String>,
    payment: Option<String>,
}

impl Delivery {
    /// Parses a body.
    ///
    /// # Errors
    ///
    /// The body is invalid; the message names the member.
    pub fn parse(body: &[u8]) -> Result<Self, DeliveryError> {
        let text = std::str::from_utf8(body).map_err(|error| DeliveryError(format!("the body: {error}")))?;
        let Body { sale, epoch, events } = read(text).map_err(|why| DeliveryError(format!("the body: {why}")))?;
        plain("sale", &sale)?;
        plain("epoch", &epoch)?;
        if events.len() > EVENTS_MAX {
            return Err(DeliveryError(format!("events: must be at most {EVENTS_MAX}, are {}", events.len())));
        }
        let mut updates: BTreeMap<OrderId, OrderUpdate> = BTreeMap::new();
        for (at, event) in events.into_iter().enumerate() {
            let Some(update) = update(event.get()).map_err(|why| DeliveryError(format!("events[{at}]: {why}")))? else {
                continue;
            };
            match updates.get_mut(&update.order_id) {
                Some(known) => known.merge(update),
                None => {
                    updates.insert(update.order_id.clone(), update);
                }
            }
        }
        Ok(Self { sale, epoch, updates })
    }
}

impl OrderUpdate {
    /// Keeps the newer update, and fills members that it lacks from the older one.
    fn merge(&mut self, other: Self) {
        let created_at_ms = self.created_at_ms.min(other.created_at_ms);
        let expires_at_ms = self.expires_at_ms.or(other.expires_at_ms);
        if other.seq > self.seq {
            *self = other;
        }
        self.created_at_ms = created_at_ms;
        self.expires_at_ms = expires_at_ms;
    }
}

/// Parses an event. Returns `None` if it concerns no order or has an unknown kind.
fn update(json: &str) -> Result<Option<OrderUpdate>, String> {
    let Kind { kind } = read(json)?;
    // A `given_up` id never had an order; the other kinds concern the sale.
    let state = match kind.as_str() {
        "held" => OrderState::Held,
        "paid" => OrderState::Paid,
        "released" => OrderState::Released,
        _ => return Ok(None),
    };
    let event: Event = read(json)?;
    let required = |name: &str, is_there: bool| if is_there { Ok(()) } else { Err(format!("missing field `{name}`")) };
    match state {
        OrderState::Held => required("expires_at", event.expires_at.is_some())?,
        OrderState::Paid => required("payment", event.payment.is_some())?,
        OrderState::Released => required("reason", event.reason.is_some())?,
    }
    let seq = i64::try_from(event.seq).ok().filter(|seq| *seq > 0);
    let seq = seq.ok_or_else(|| format!("seq: must be 1 to {}, is {}", i64::MAX, event.seq))?;
    if event.quantity == 0 {
        return Err("quantity: must be 1 or more".to_owned());
    }
    for (name, text) in [("buyer", &event.buyer), ("reason", &event.reason), ("payment", &event.payment)] {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(format!("{name}: has a NUL character, which PostgreSQL cannot keep"));
        }
    }
    let at_ms = event.at.as_millisecond();
    Ok(Some(OrderUpdate {
        order_id: event.order_id,
        seq,
        buyer: event.buyer,
        quantity: event.quantity.into(),
        state,
        expires_at_ms: event.expires_at.filter(|_| state == OrderState::Held).map(Timestamp::as_millisecond),
        reason: event.reason.filter(|_| state == OrderState::Released),
        payment: event.payment.filter(|_| state == OrderState::Paid),
        created_at_ms: at_ms,
        updated_at_ms: at_ms,
    }))
}

/// Parses JSON. Only after an error is it parsed again with path tracking, which is slower.
fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| {
        match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(json)) {
            Err(error) if error.inner().is_data() && error.path().iter().len() > 0 => {
                format!("{}: {}", error.path(), error.inner())
            }
            _ => error.to_string(),
        }
    })
}

fn plain(name: &str, text: &str) -> Result<(), DeliveryError> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(DeliveryError(format!("{name}: must be 1 to 64 visible ASCII characters"))) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: &str = "2026-11-22T20:00:00.000Z";

    fn body(events: Value) -> Vec<u8> {
        json!({ "sale": "ticket", "epoch": "0123456789abcdef", "events": events }).to_string().into_bytes()
    }

    fn id(number: u8) -> String {
        format!("{number:032x}")
    }

    fn held(seq: u64, order: u8) -> Value {
        json!({ "seq": seq, "at": AT, "kind": "held", "order_id": id(order), "quantity": 2, "buyer": "ann",
                "expires_at": "2026-11-22T20:05:00.000Z" })
    }

    #[test]
    fn the_newest_of_an_order_counts_wherever_it_stands_and_the_end_of_its_hold_is_kept() {
        let released = json!({ "seq": 7, "at": AT, "kind": "released", "order_id": id(1), "quantity": 2,
                               "buyer": null, "reason": "expired" });
        let both = [json!([held(5, 1), released]), json!([released, held(5, 1)])];
        for events in both {
            let delivery = Delivery::parse(&body(events)).expect("well-formed");
            let update = &delivery.updates[&OrderId::parse(&id(1)).expect("an id")];
            assert_eq!(
                (update.seq, update.state, update.reason.as_deref()),
                (7, OrderState::Released, Some("expired"))
            );
            assert_eq!(update.expires_at_ms, Some(1_795_377_900_000));
        }
    }

    #[test]
    fn what_is_not_about_an_order_and_what_is_not_known_is_passed_over() {
        let events = json!([
            { "seq": 1, "at": AT, "kind": "opened", "total": 10, "sold": 0 },
            { "seq": 2, "at": AT, "kind": "given_up", "order_id": id(3) },
            { "seq": "soon", "kind": "moved", "order_id": 5, "quantity": {} },
            { "seq": 3, "at": AT, "kind": "held", "order_id": id(1), "quantity": 1, "buyer": null, "expires_at": AT, "seat": "12a" },
        ]);
        assert_eq!(Delivery::parse(&body(events)).expect("well-formed").updates.len(), 1);
        assert!(Delivery::parse(&body(json!([]))).expect("well-formed").updates.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |member: &str, value: Value| {
            let mut event = held(5, 1);
            if value.is_null() {
                event.as_object_mut().expect("an object").remove(member);
            } else {
                event[member] = value;
            }
            Delivery::parse(&body(json!([held(4, 2), event]))).expect_err(member).to_string()
        };
        for member in ["seq", "at", "kind", "order_id", "quantity", "expires_at"] {
            let message = wrong(member, Value::Null);
            assert!(message.starts_with(&format!("events[1]: missing field `{member}`")), "{message}");
        }
        assert!(wrong("seq", json!(-1)).starts_with("events[1]: seq: invalid value: integer `-1`"));
        assert!(wrong("seq", json!(0)).starts_with("events[1]: seq: must be 1 to"));
        assert!(wrong("seq", json!(u64::MAX)).starts_with("events[1]: seq: must be 1 to"));
        assert!(wrong("order_id", json!("xyz")).starts_with("events[1]: order_id: must be 32 hexadecimal digits"));
        assert!(wrong("quantity", json!("2")).starts_with("events[1]: quantity: invalid type"));
        assert_eq!(wrong("quantity", json!(0)), "events[1]: quantity: must be 1 or more");
        assert!(wrong("buyer", json!("a\0b")).starts_with("events[1]: buyer: has a NUL"));
        let of = |body: &[u8]| Delivery::parse(body).expect_err("malformed").to_string();
        assert!(of(b"{").starts_with("the body: EOF"));
        assert!(of(b"[]").starts_with("the body: "));
        assert!(of(br#"{"sale":"ticket","events":[]}"#).contains("`epoch`"));
        assert!(of(br#"{"sale":"","epoch":"1","events":[]}"#).starts_with("sale: must be"));
        let many: Vec<Value> = (0..513).map(|seq| held(seq + 1, 1)).collect();
        assert_eq!(of(&body(many.into())), "events: must be at most 512, are 513");
    }
}
