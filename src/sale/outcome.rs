//! The outcomes of a purchase. A refusal is a value, not an error.

use std::time::Duration;

use crate::auth::{admission, jwt};
use crate::ledger::{Order, OrderId};

/// Why a purchase was refused. A refusal is certain for this request; an earlier request with the same key may have
/// made an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The Idempotency-Key was used for an order with other content.
    KeyReused,
    /// The sale is closed.
    Closed,
    /// The sale is not open yet.
    NotYet {
        /// Time until it opens.
        wait: Duration,
    },
    /// The sale is paused.
    Paused,
    /// No ticket is available. Held tickets may become available again.
    SoldOut,
    /// The buyer would exceed the ticket limit.
    BuyerLimit {
        /// The limit.
        limit: u64,
        /// Tickets that the buyer has.
        have: u64,
    },
    /// The buyer must pay or cancel an order first.
    UnpaidLimit {
        /// The limit.
        limit: u64,
        /// Unpaid orders that the buyer has.
        have: u64,
    },
    /// The request has no buyer token.
    TokenMissing,
    /// The buyer token is not valid.
    TokenInvalid(jwt::TokenError),
    /// No trusted proxy supplied the buyer ID.
    BuyerUnknown,
    /// The request has no admission token that is valid now.
    NotAdmitted(admission::AdmissionRefusal),
    /// The buyer exceeded the rate or the number of concurrent purchases.
    TooOften,
    /// Fewer tickets are available than the purchase asks for.
    NotEnough {
        /// Available tickets; at least 1.
        left: u64,
    },
    /// The queue is full, or the purchase did not reach the ledger before its deadline.
    Busy,
    /// The ledger cannot be reached.
    Unavailable,
    /// The ledger has no such sale.
    Missing,
    /// The ledger lost changes of the sale. Nothing is sold until an operator reconciles it.
    LostData,
}

/// The outcome of a purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The order exists.
    Ordered {
        /// The order's ID.
        id: OrderId,
        /// The order's present state.
        order: Order,
        /// Whether an earlier request made it.
        again: bool,
    },
    /// No order was made.
    Refused(Refusal),
    /// The outcome is unknown. A retry with the same key, or reading the order, resolves it.
    Unknown {
        /// The order that may exist.
        id: OrderId,
    },
}

impl Outcome {
    /// Whether a fault of the edge or the ledger caused this outcome.
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
