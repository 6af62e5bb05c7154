//! How a purchase ends. A refusal is a value and no error.

use std::time::Duration;

use crate::auth::{admission, jwt};
use crate::ledger::{Order, OrderId};

/// Why a purchase was not made. Every one of these is certain of its own request; an earlier one with the same key may
/// have made an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The Idempotency-Key has an order with other content.
    KeyReused,
    /// The sale is closed.
    Closed,
    /// The sale is not open yet.
    NotYet {
        /// How long to wait.
        wait: Duration,
    },
    /// The sale is paused.
    Paused,
    /// Nothing is left now.
    SoldOut,
    /// The buyer would have more than the limit.
    BuyerLimit {
        /// The limit.
        limit: u64,
        /// What the buyer has.
        have: u64,
    },
    /// The buyer has to pay or cancel an order first.
    UnpaidLimit {
        /// The limit.
        limit: u64,
        /// How many unpaid orders the buyer has.
        have: u64,
    },
    /// It lacks the token that has to prove who buys.
    TokenMissing,
    /// It has one that proves nobody.
    TokenInvalid(jwt::TokenError),
    /// None of our own proxies says who buys.
    BuyerUnknown,
    /// It lacks an admission token that admits it now.
    NotAdmitted(admission::AdmissionRefusal),
    /// The buyer asks more often, or for more at a time, than one may.
    TooOften,
    /// Less is left than was asked for.
    NotEnough {
        /// What is left.
        left: u64,
    },
    /// Too many wait already.
    Busy,
    /// The ledger cannot be reached.
    Unavailable,
    /// The ledger has no such sale.
    Missing,
    /// The ledger has lost changes of the sale; nothing is sold until it is reconciled.
    LostData,
}

/// How a purchase ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is an order.
    Ordered {
        /// Its id.
        id: OrderId,
        /// As it stands.
        order: Order,
        /// Whether it was made by an earlier request.
        again: bool,
    },
    /// There is none.
    Refused(Refusal),
    /// Nobody knows yet. Asking again with the same key, or for the order, finds out.
    Unknown {
        /// The order that there may be.
        id: OrderId,
    },
}

impl Outcome {
    /// Whether it is by the fault of the edge or its ledger that there is no order, or that nobody knows.
    pub(super) fn is_fault(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Refused(refusal) => {
                matches!(refusal, Refusal::Busy | Refusal::Unavailable | Refusal::Missing | Refusal::LostData)
            }
            Self::Ordered { .. } => false,
        }
    }
}
