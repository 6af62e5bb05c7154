//! One order: its ID, its state and the results of paying or cancelling it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Identifies an order. The edge creates it before it first calls the ledger, which makes the purchase idempotent. It
/// cannot be guessed: every client that has it may read the order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderId(pub [u8; 16]);

/// The text does not have 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an order id must be 32 hexadecimal digits")]
pub struct BadOrderId;

impl OrderId {
    /// The ID as 32 lower-case hexadecimal digits in ASCII.
    #[must_use]
    pub fn hex(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OrderId {
    type Err = BadOrderId;

    fn from_str(text: &str) -> Result<Self, BadOrderId> {
        // `from_str_radix` alone would accept a sign.
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadOrderId);
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| BadOrderId)?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl Serialize for OrderId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OrderId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The state of an order. It goes from HELD to PAID or RELEASED. A payment after the release takes the order back to
/// PAID if its tickets are available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum OrderState {
    /// The tickets are reserved until the hold ends.
    Held,
    /// The tickets belong to the buyer.
    Paid,
    /// The tickets are on sale again.
    Released,
}

/// Why an order was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// It was not paid in time.
    Expired,
    /// It was cancelled.
    Cancelled,
    /// The ID was given up before an order existed; no order can be made under it.
    GivenUp,
}

/// The present state of one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Held, paid or released.
    pub state: OrderState,
    /// Number of tickets; 0 if the ID was given up.
    pub quantity: u32,
    /// The buyer ID, unless anonymous.
    pub buyer: Option<Arc<str>>,
    /// The end of the hold, in ms since 1970.
    pub expires_at_ms: u64,
    /// The payment, if paid.
    pub payment: Option<PaymentId>,
    /// The reason, if released.
    pub reason: Option<ReleaseReason>,
}

impl Order {
    /// A new, unpaid order.
    #[must_use]
    pub fn held(quantity: u32, buyer: Option<Arc<str>>, expires_at_ms: u64) -> Self {
        Self { state: OrderState::Held, quantity, buyer, expires_at_ms, payment: None, reason: None }
    }

    /// The record of an ID that was given up. A later purchase with this ID gets this record and makes no order.
    #[must_use]
    pub fn tombstone() -> Self {
        Self {
            state: OrderState::Released,
            quantity: 0,
            buyer: None,
            expires_at_ms: 0,
            payment: None,
            reason: Some(ReleaseReason::GivenUp),
        }
    }

    /// Position in HELD, RELEASED, PAID. An order only moves forward, so the record with the higher rank is the newer.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self.state {
            OrderState::Held => 0,
            OrderState::Released => 1,
            OrderState::Paid => 2,
        }
    }

    /// Whether this is the record of an ID that was given up.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.reason == Some(ReleaseReason::GivenUp)
    }
}

/// The payment provider's ID of a payment: 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `:` and `-`, but not `-` alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PaymentId(Arc<str>);

/// The text is not a payment ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of A-Z, a-z, 0-9, \".\", \"_\", \":\" and \"-\"")]
pub struct BadPaymentId;

impl PaymentId {
    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PaymentId {
    type Err = BadPaymentId;

    fn from_str(text: &str) -> Result<Self, BadPaymentId> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        // In the ledger's records, a single hyphen means "no payment".
        let is_one = (1..=64).contains(&text.len()) && text.bytes().all(plain) && text != "-";
        if is_one { Ok(Self(text.into())) } else { Err(BadPaymentId) }
    }
}

impl TryFrom<String> for PaymentId {
    type Error = BadPaymentId;

    fn try_from(text: String) -> Result<Self, BadPaymentId> {
        text.parse()
    }
}

impl From<PaymentId> for String {
    fn from(id: PaymentId) -> Self {
        id.as_str().to_owned()
    }
}

/// The result of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// This payment paid the order.
    Paid {
        /// The paid order.
        order: Order,
        /// Whether the order was released and this step took it back.
        retaken: bool,
    },
    /// The payment did not pay the order and must be refunded.
    RefundDue(RefundReason),
    /// There is no such order. Its purchase may still be in progress.
    UnknownOrder,
}

/// Why a payment must be refunded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundReason {
    /// Another payment paid the order.
    PaidOtherwise {
        /// The other payment.
        payment: PaymentId,
    },
    /// The order was released and no ticket is available.
    SoldOut,
    /// The order was released and fewer tickets are available than it had.
    NotEnough {
        /// Available tickets; at least 1.
        left: u64,
    },
    /// The order was released and the buyer's newer tickets reach the limit.
    BuyerLimit {
        /// Tickets that the buyer has.
        have: u64,
    },
    /// The ID was given up and never had an order.
    GivenUp,
}

/// The result of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// The order is released, by this step or an earlier one.
    Released(Order),
    /// The ID had no order and can no longer get one.
    GivenUp,
    /// The order is paid and stays paid.
    AlreadyPaid(Order),
}
