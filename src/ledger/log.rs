//! The log of a sale: every change, in order.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Order, OrderId, PaymentId, ReleaseReason, SaleState, Terms, View};

/// One sync reads entries until they have this many lines together (see [`LogEntry::lines`]); the last entry is read
/// whole. The limit keeps a Redis script short.
pub const SYNC_LINES_MAX: usize = 500;

/// One order in an entry with several orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// The order's ID.
    pub order: OrderId,
    /// Number of tickets.
    pub quantity: u32,
    /// The buyer ID, unless anonymous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer: Option<Arc<str>>,
}

/// One change of a sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Change {
    /// An edge opened the sale for the first time.
    Opened {
        /// All tickets.
        total: u64,
        /// Tickets that were already sold according to a stock hash created by hand.
        sold: u64,
    },
    /// Orders were made, all in one step.
    Held {
        /// The end of their hold, in ms since 1970.
        expires_at_ms: u64,
        /// The new orders; at least one.
        orders: Vec<OrderLine>,
    },
    /// An order was paid.
    Paid {
        /// The order.
        #[serde(flatten)]
        line: OrderLine,
        /// The payment that paid it.
        payment: PaymentId,
        /// Whether the order was released before and is taken back.
        retaken: bool,
    },
    /// Orders were released, all in one step.
    Released {
        /// Why they were released.
        reason: ReleaseReason,
        /// The released orders; at least one.
        orders: Vec<OrderLine>,
    },
    /// An ID without an order was given up.
    #[serde(rename = "given_up")]
    GivenUp {
        /// The ID.
        order: OrderId,
    },
    /// An operator opened, paused or closed the sale.
    State {
        /// The new state.
        state: SaleState,
    },
    /// Tickets were added or removed.
    Stock {
        /// The change's ID; applied once.
        change_id: Arc<str>,
        /// Number of tickets; negative if removed.
        delta: i64,
    },
    /// A reconciliation wrote orders that the ledger had lost or that had later changes elsewhere.
    Restored {
        /// The orders with their new state; at least one.
        orders: Vec<(OrderId, Order)>,
    },
    /// The entry with this number was lost. A reconciliation fills its place: no number is ever used twice.
    Lost,
}

/// One entry of a sale's log, written in the same atomic step as the change itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// 1, 2, 3, ... without gaps.
    pub seq: u64,
    /// The ledger's clock, in ms since 1970.
    pub at_ms: u64,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
}

impl LogEntry {
    /// The size of the entry: one line for itself and one per order.
    #[must_use]
    pub fn lines(&self) -> usize {
        match &self.change {
            Change::Held { orders, .. } | Change::Released { orders, .. } => 1 + orders.len(),
            Change::Restored { orders } => 1 + orders.len(),
            _ => 1,
        }
    }
}

/// The request of one sync for one sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncAsk {
    /// The sale's key in the ledger.
    pub sale: Arc<str>,
    /// See [`Identity::epoch`](super::Identity::epoch).
    pub epoch: u64,
    /// The edge's rules.
    pub terms: Terms,
    /// The newest log entry that the caller has read; 0 for none.
    pub read_to: u64,
}

/// A sale's counters and its new log entries, read at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The counters.
    pub view: View,
    /// The earliest end of a hold that no sweep has examined, in ms since 1970. Its order may be paid by now.
    pub next_due_ms: Option<u64>,
    /// The entries after `read_to`, oldest first and without gaps, up to [`SYNC_LINES_MAX`]; at least one if any
    /// exists.
    pub entries: Vec<LogEntry>,
}
