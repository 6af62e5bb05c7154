//! The words of an order: its id, its state, and how a buyer sees it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

/// An order's id: 32 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct OrderId(String);

/// The text is not an order id.
#[derive(Debug, thiserror::Error)]
#[error("must be 32 hexadecimal digits in lower case")]
pub struct InvalidOrderId;

impl OrderId {
    /// Parses an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 32 && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    /// The 32 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OrderId {
    type Error = InvalidOrderId;

    fn try_from(text: String) -> Result<Self, InvalidOrderId> {
        Self::parse(&text).ok_or(InvalidOrderId)
    }
}

/// The state of an order in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum OrderState {
    /// Its tickets are reserved for the buyer.
    Held,
    /// Its tickets are on sale again.
    Released,
    /// Paid; final.
    Paid,
}

/// An order as its buyer sees it.
#[derive(Debug, Clone, Serialize)]
pub struct Order {
    /// Its id.
    pub order_id: OrderId,
    /// The sale's id.
    pub sale: String,
    /// The buyer's id, unless the purchase was anonymous.
    pub buyer: Option<String>,
    /// How many tickets.
    pub quantity: i64,
    /// Its state.
    pub state: OrderState,
    /// End of the hold in ms since 1970; unknown until the `held` event was delivered.
    #[serde(rename = "expires_at", serialize_with = "optional_time")]
    pub expires_at_ms: Option<i64>,
    /// Why it was released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The payment that paid it, otherwise the newest attempt.
    pub payment: Option<Payment>,
    /// Last change in ms since 1970.
    #[serde(rename = "updated_at", serialize_with = "optional_time")]
    pub updated_at_ms: Option<i64>,
}

/// A payment as the buyer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// Its id.
    pub id: String,
    /// pending, paid, declined, refund_due or refunded.
    pub state: String,
    /// Why the money is refunded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Writes ms since 1970 as RFC 3339 with milliseconds; `null` if there is no time.
pub(crate) fn optional_time<S: Serializer>(time_ms: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    match time_ms.and_then(|time_ms| Timestamp::from_millisecond(time_ms).ok()) {
        Some(time) => serializer.serialize_str(&format!("{time:.3}")),
        None => serializer.serialize_none(),
    }
}
