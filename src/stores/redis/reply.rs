//! Parses the replies of scripts into the ledger's types. A reply that does not fit is damage, never a guess.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ::redis::Value;

use crate::ledger::model::Holdings;
use crate::ledger::{
    Cancelled, Change, Confirmed, Decision, Identity, LedgerError, LogEntry, Order, OrderId, OrderLine, OrderState,
    Purchase, RefundReason, ReleaseReason, Reserved, SaleState, Swept, Synced, Terms, View,
};

type Result<T> = std::result::Result<T, LedgerError>;

pub(super) fn damaged(what: &str) -> LedgerError {
    LedgerError::Damaged(what.to_owned())
}

/// A reply, read from the front.
pub(super) struct Reader<'a> {
    values: std::slice::Iter<'a, Value>,
}

impl<'a> Reader<'a> {
    pub(super) fn of(value: &'a Value) -> Result<Self> {
        match value {
            Value::Array(values) => Ok(Self { values: values.iter() }),
            other => Err(damaged(&format!("a list was expected, not {other:?}"))),
        }
    }

    pub(super) fn next(&mut self) -> Result<&'a Value> {
        self.values.next().ok_or_else(|| damaged("a reply is too short"))
    }

    fn int(&mut self) -> Result<i64> {
        match self.next()? {
            Value::Int(number) => Ok(*number),
            other => Err(damaged(&format!("a number was expected, not {other:?}"))),
        }
    }

    pub(super) fn natural(&mut self) -> Result<u64> {
        u64::try_from(self.int()?).map_err(|_| damaged("a number is below 0"))
    }

    /// A time, or none if it is below 0.
    pub(super) fn time(&mut self) -> Result<Option<u64>> {
        Ok(u64::try_from(self.int()?).ok())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.len() == 0
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        text(self.next()?)
    }
}

fn text(value: &Value) -> Result<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| damaged("a text is not UTF-8")),
        Value::SimpleString(text) => Ok(text),
        other => Err(damaged(&format!("a text was expected, not {other:?}"))),
    }
}

pub(super) fn parse<T: FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| damaged(&format!("{what} is \"{text}\"")))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn epoch(text: &str) -> Result<u64> {
    // A sale that is not opened has no epoch; 0 never matches one.
    if text.is_empty() {
        return Ok(0);
    }
    let is_ours = text.len() == 16 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let epoch = u64::from_str_radix(text, 16).ok().filter(|_| is_ours);
    epoch.ok_or_else(|| damaged("epoch is not 16 lower-case hexadecimal digits"))
}

pub(super) fn identity(value: &Value) -> Result<Identity> {
    let mut reader = Reader::of(value)?;
    let epoch = epoch(reader.text()?)?;
    let text = reader.text()?;
    let mut secret = [0; 32];
    // Each digit is checked, because `from_str_radix` also accepts a sign.
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(damaged("secret is not 64 hexadecimal digits"));
    }
    for (byte, at) in secret.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| damaged("secret is not hexadecimal"))?;
    }
    Ok(Identity { epoch, secret })
}

pub(super) fn state_name(state: SaleState) -> &'static str {
    match state {
        SaleState::Open => "open",
        SaleState::Paused => "paused",
        SaleState::Closed => "closed",
    }
}

fn state(name: &str) -> Result<SaleState> {
    [SaleState::Open, SaleState::Paused, SaleState::Closed]
        .into_iter()
        .find(|state| state_name(*state) == name)
        .ok_or_else(|| damaged(&format!("state is \"{name}\"")))
}

/// Keep in step with `view` in `lua/sale.lua`.
fn view(reader: &mut Reader) -> Result<View> {
    Ok(View {
        epoch: epoch(reader.text()?)?,
        version: reader.natural()?,
        now_ms: reader.natural()?,
        total: reader.natural()?,
        sold: reader.natural()?,
        paid: reader.natural()?,
        state: state(reader.text()?)?,
        terms: Terms {
            hold_ms: reader.natural()?,
            per_buyer: u32::try_from(reader.natural()?).unwrap_or(u32::MAX),
            unpaid_per_buyer: u32::try_from(reader.natural()?).unwrap_or(u32::MAX),
            opens_at_ms: reader.time()?,
            closes_at_ms: reader.time()?,
        },
    })
}

pub(super) fn reserved(value: &Value, batch: &[Purchase]) -> Result<Reserved> {
    let mut reader = Reader::of(value)?;
    let view = view(&mut reader)?;
    let version_before = reader.natural()?;
    let expires_at_ms = reader.natural()?;
    // The reply names only purchases without a new order.
    let mut decisions: Vec<_> = batch
        .iter()
        .map(|purchase| Decision::Ordered {
            order: Order::held(purchase.quantity, purchase.buyer.clone(), expires_at_ms),
            again: false,
        })
        .collect();
    while !reader.is_empty() {
        let number = reader.natural()?;
        let decision = decision(&mut reader)?;
        let place = usize::try_from(number).ok().and_then(|number| decisions.get_mut(number.wrapping_sub(1)));
        *place.ok_or_else(|| damaged(&format!("reserve.lua replied of purchase {number}")))? = decision;
    }
    Ok(Reserved { decisions, view, version_before })
}

fn decision(reader: &mut Reader) -> Result<Decision> {
    let code = reader.int()?;
    if code == 2 {
        return Ok(Decision::Ordered { order: order(reader.next()?)?, again: true });
    }
    let value = reader.natural()?;
    Ok(match code {
        3 => Decision::KeyReused,
        4 => Decision::Closed,
        5 => Decision::NotYet,
        6 => Decision::Paused,
        7 => Decision::SoldOut,
        8 => Decision::BuyerLimit { have: value },
        9 => Decision::UnpaidLimit { have: value },
        10 => Decision::NotEnough { left: value },
        _ => return Err(damaged(&format!("reserve.lua replied code {code}"))),
    })
}

pub(super) fn confirmed(value: &Value) -> Result<Confirmed> {
    let mut reader = Reader::of(value)?;
    let code = reader.int()?;
    Ok(match code {
        1 | 2 => Confirmed::Paid { order: order(reader.next()?)?, retaken: code == 2 },
        8 => Confirmed::UnknownOrder,
        _ => Confirmed::RefundDue(match code {
            3 => RefundReason::PaidOtherwise { payment: parse(reader.text()?, "a payment's id")? },
            4 => RefundReason::SoldOut,
            5 => RefundReason::BuyerLimit { have: reader.natural()? },
            6 => RefundReason::NotEnough { left: reader.natural()? },
            7 => RefundReason::GivenUp,
            _ => return Err(damaged(&format!("confirm.lua replied code {code}"))),
        }),
    })
}

pub(super) fn cancelled(value: &Value) -> Result<Cancelled> {
    let mut reader = Reader::of(value)?;
    Ok(match reader.int()? {
        1 => Cancelled::Released(order(reader.next()?)?),
        2 => Cancelled::GivenUp,
        3 => Cancelled::AlreadyPaid(order(reader.next()?)?),
        code => return Err(damaged(&format!("cancel.lua replied code {code}"))),
    })
}

/// Number and time of the entry that `confirm.lua` or `cancel.lua` wrote, if it did.
pub(super) fn entry_made(value: &Value) -> Option<(u64, u64)> {
    let Value::Array(values) = value else { return None };
    match values.get(2..4)? {
        [Value::Int(seq), Value::Int(at_ms)] => Some((u64::try_from(*seq).ok()?, u64::try_from(*at_ms).ok()?)),
        _ => None,
    }
}

/// The generation of the sale, and the time to wait.
pub(super) fn authorized(value: &Value) -> Result<(u64, Duration)> {
    let mut reader = Reader::of(value)?;
    Ok((reader.natural()?, Duration::from_millis(reader.natural()?)))
}

/// Orders' records, as HMGET gives them.
pub(super) fn orders(value: &Value) -> Result<Vec<Option<Order>>> {
    let read = |value: &Value| match value {
        Value::Nil => Ok(None),
        value => order(value).map(Some),
    };
    Reader::of(value)?.values.map(read).collect()
}

pub(super) fn swept(value: &Value) -> Result<Swept> {
    let mut reader = Reader::of(value)?;
    let mut count = || usize::try_from(reader.natural()?).map_err(|_| damaged("a count is too large"));
    Ok(Swept { ended: count()?, released: count()? })
}

pub(super) fn synced(value: &Value) -> Result<Synced> {
    let mut reader = Reader::of(value)?;
    Ok(Synced { view: view(&mut reader)?, next_due_ms: reader.time()?, entries: entries(reader.next()?)? })
}

/// "STATE QUANTITY EXPIRES_AT_MS DETAIL BUYER"
pub(super) fn order(value: &Value) -> Result<Order> {
    let record = text(value)?;
    let mut parts = record.splitn(5, ' ');
    let mut part = || parts.next().ok_or_else(|| damaged(&format!("an order record is \"{record}\"")));
    let state = match part()? {
        "HELD" => OrderState::Held,
        "PAID" => OrderState::Paid,
        "RELEASED" => OrderState::Released,
        other => return Err(damaged(&format!("an order's state is \"{other}\""))),
    };
    let quantity = parse(part()?, "an order's quantity")?;
    let expires_at_ms = parse(part()?, "an order's expires_at_ms")?;
    let detail = part()?;
    let (payment, reason) = match state {
        OrderState::Held => (None, None),
        OrderState::Paid => (Some(parse(detail, "an order's payment")?), None),
        OrderState::Released => (None, Some(reason(detail)?)),
    };
    Ok(Order { state, quantity, buyer: buyer(part()?), expires_at_ms, payment, reason })
}

/// "TICKETS UNPAID"
pub(super) fn holdings(value: &Value) -> Result<Holdings> {
    let record = text(value)?;
    let (tickets, unpaid) = record.split_once(' ').ok_or_else(|| damaged(&format!("a buyer has \"{record}\"")))?;
    Ok(Holdings { tickets: parse(tickets, "a buyer's tickets")?, unpaid: parse(unpaid, "a buyer's unpaid orders")? })
}

pub(super) fn reason_name(reason: ReleaseReason) -> &'static str {
    match reason {
        ReleaseReason::Expired => "expired",
        ReleaseReason::Cancelled => "cancelled",
        ReleaseReason::GivenUp => "given_up",
    }
}

fn reason(name: &str) -> Result<ReleaseReason> {
    Ok(match name {
        "expired" => ReleaseReason::Expired,
        "cancelled" => ReleaseReason::Cancelled,
        "given_up" => ReleaseReason::GivenUp,
        other => return Err(damaged(&format!("the reason of a release is \"{other}\""))),
    })
}

fn buyer(name: &str) -> Option<Arc<str>> {
    (!name.is_empty()).then(|| name.into())
}

/// Log entries as XRANGE gives them: `[["7-0", ["at_ms", "...", "kind", "held", ...]], ...]`.
pub(super) fn entries(value: &Value) -> Result<Vec<LogEntry>> {
    Reader::of(value)?.values.map(entry).collect()
}

fn entry(value: &Value) -> Result<LogEntry> {
    let mut reader = Reader::of(value)?;
    let id = reader.text()?;
    let seq = parse(id.split('-').next().unwrap_or_default(), "a log entry's id")?;
    let mut fields = Reader::of(reader.next()?)?;
    // The fields have the order in which the scripts write them.
    let mut field = |name: &str| {
        let (key, value) = (fields.text()?, fields.text()?);
        if key == name { Ok(value) } else { Err(damaged(&format!("log entry {id} has {key} in the place of {name}"))) }
    };
    let at_ms = parse(field("at_ms")?, "at_ms")?;
    let change = match field("kind")? {
        "opened" => Change::Opened { total: parse(field("total")?, "total")?, sold: parse(field("sold")?, "sold")? },
        "held" => {
            let expires_at_ms = parse(field("expires_at_ms")?, "expires_at_ms")?;
            Change::Held { expires_at_ms, orders: lines(&mut fields)? }
        }
        "paid" => Change::Paid {
            line: OrderLine {
                order: parse(field("order")?, "order")?,
                quantity: parse(field("quantity")?, "quantity")?,
                buyer: buyer(field("buyer")?),
            },
            payment: parse(field("payment")?, "payment")?,
            retaken: field("retaken")? == "1",
        },
        "released" => {
            let reason = reason(field("reason")?)?;
            Change::Released { reason, orders: lines(&mut fields)? }
        }
        "given_up" => Change::GivenUp { order: parse(field("order")?, "order")? },
        "state" => Change::State { state: state(field("state")?)? },
        "stock" => Change::Stock { change_id: field("change_id")?.into(), delta: parse(field("delta")?, "delta")? },
        "restored" => {
            let _count = field("orders")?;
            let mut orders = Vec::with_capacity(fields.values.len() / 2);
            while !fields.is_empty() {
                orders.push((parse::<OrderId>(fields.text()?, "order")?, order(fields.next()?)?));
            }
            Change::Restored { orders }
        }
        "lost" => Change::Lost,
        other => return Err(damaged(&format!("log entry {id} is of kind {other}"))),
    };
    Ok(LogEntry { seq, at_ms, change })
}

/// The remaining fields of an entry: `ID`, `QUANTITY BUYER`, ...
fn lines(fields: &mut Reader) -> Result<Vec<OrderLine>> {
    let mut lines = Vec::with_capacity(fields.values.len() / 2);
    while !fields.is_empty() {
        let order = parse::<OrderId>(fields.text()?, "order")?;
        let (quantity, name) =
            fields.text()?.split_once(' ').ok_or_else(|| damaged(&format!("the line of order {order}")))?;
        lines.push(OrderLine { order, quantity: parse(quantity, "quantity")?, buyer: buyer(name) });
    }
    Ok(lines)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
