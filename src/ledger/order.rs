//! One order: its identity, where it stands, and what can still become of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One purchase's identity, made before the ledger is first asked, so that asking twice buys once.
/// Unguessable, since whoever has it may read the order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderId(pub [u8; 16]);

/// Not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an order id must be 32 hexadecimal digits")]
pub struct BadOrderId;

impl OrderId {
    /// Its text: 32 lower-case hexadecimal digits in ASCII.
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
        // `from_str_radix` alone would also take a sign.
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

/// Where an order stands. It moves one way, HELD to PAID or RELEASED, but for a payment that comes after the release:
/// that takes the order back if its tickets can be had again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum OrderState {
    /// Its tickets wait for payment until the hold ends.
    Held,
    /// Its tickets are the buyer's.
    Paid,
    /// Its tickets went back on sale.
    Released,
}

/// Why an order has no tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// It was not paid in time.
    Expired,
    /// It was cancelled.
    Cancelled,
    /// Its id was given up before there was an order, and there never will be one.
    GivenUp,
}

/// One order as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Where it stands.
    pub state: OrderState,
    /// How many tickets; 0 if the id was given up.
    pub quantity: u32,
    /// Whose it is.
    pub buyer: Option<Arc<str>>,
    /// When an unpaid one gives its tickets back, in ms since 1970.
    pub expires_at_ms: u64,
    /// The payment that paid it.
    pub payment: Option<PaymentId>,
    /// Why it was released.
    pub reason: Option<ReleaseReason>,
}

impl Order {
    /// A new order.
    #[must_use]
    pub fn held(quantity: u32, buyer: Option<Arc<str>>, expires_at_ms: u64) -> Self {
        Self { state: OrderState::Held, quantity, buyer, expires_at_ms, payment: None, reason: None }
    }

    /// The mark of an id that was given up: whatever still comes under it finds that it has been decided.
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

    /// How far it has come. An order only goes forward, so of two accounts of it the further one is the newer.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self.state {
            OrderState::Held => 0,
            OrderState::Released => 1,
            OrderState::Paid => 2,
        }
    }

    /// Whether this is what is left of an id that was given up.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.reason == Some(ReleaseReason::GivenUp)
    }
}

/// A payment as whoever took it calls it: 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `:` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PaymentId(Arc<str>);

/// Not a payment's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of A-Z, a-z, 0-9, \".\", \"_\", \":\" and \"-\"")]
pub struct BadPaymentId;

impl PaymentId {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PaymentId {
    type Err = BadPaymentId;

    fn from_str(text: &str) -> Result<Self, BadPaymentId> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        // A hyphen alone stands for no payment in the ledger's records.
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

/// What came of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// The order is paid by it.
    Paid {
        /// As it stands.
        order: Order,
        /// Whether this step took it back from its release.
        retaken: bool,
    },
    /// The order is not paid by it; the money belongs to the buyer.
    RefundDue(RefundReason),
    /// There is no such order. It may still come, if its purchase is under way.
    UnknownOrder,
}

/// Why a payment has to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundReason {
    /// Another payment has paid the order.
    PaidOtherwise {
        /// That one.
        payment: PaymentId,
    },
    /// The order was released, and nothing is left to take it back from.
    SoldOut,
    /// The order was released, and fewer tickets are left than it had.
    NotEnough {
        /// What is left; at least 1.
        left: u64,
    },
    /// The order was released, and its buyer has others since then.
    BuyerLimit {
        /// What the buyer has.
        have: u64,
    },
    /// The id was given up; there never was an order.
    GivenUp,
}

/// What came of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// The order is released, by this step or before.
    Released(Order),
    /// There was no order under this id, and now there will never be one.
    GivenUp,
    /// The order is paid, and stays so.
    AlreadyPaid(Order),
}
