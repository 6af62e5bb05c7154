//! The log of a sale: every change, in the order in which they were made.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Order, OrderId, PaymentId, ReleaseReason, SaleState, Terms, View};

/// One sync brings entries until they have so many lines together (see [`LogEntry::lines`]), so that a Redis script
/// stays short. The last one is brought whole.
pub const SYNC_LINES_MAX: usize = 500;

/// One order in an entry that tells of many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// Its id.
    pub order: OrderId,
    /// Its tickets.
    pub quantity: u32,
    /// Its buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer: Option<Arc<str>>,
}

/// One change of a sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Change {
    /// The sale came under the ledger's care.
    Opened {
        /// Its tickets.
        total: u64,
        /// Those sold before, by whatever wrote the stock hash.
        sold: u64,
    },
    /// Orders were made, all in one step.
    Held {
        /// When their hold ends.
        expires_at_ms: u64,
        /// They; at least one.
        orders: Vec<OrderLine>,
    },
    /// An order was paid.
    Paid {
        /// It.
        #[serde(flatten)]
        line: OrderLine,
        /// By this payment.
        payment: PaymentId,
        /// Whether it had been released, and was taken back.
        retaken: bool,
    },
    /// Orders were released, all in one step.
    Released {
        /// Why.
        reason: ReleaseReason,
        /// They; at least one.
        orders: Vec<OrderLine>,
    },
    /// An id without an order was given up.
    #[serde(rename = "given_up")]
    GivenUp {
        /// It.
        order: OrderId,
    },
    /// People decided whether it sells.
    State {
        /// What they decided.
        state: SaleState,
    },
    /// Tickets were added or taken away.
    Stock {
        /// The change's id; applied once.
        change_id: Arc<str>,
        /// How many.
        delta: i64,
    },
    /// Orders of which the ledger knew less than others, written by a reconciliation; each as it stands from now on.
    Restored {
        /// They; at least one.
        orders: Vec<(OrderId, Order)>,
    },
    /// An entry of this number was lost. A reconciliation keeps the place, so that no number is ever used twice.
    Lost,
}

/// One entry of a sale's log; written in the same atomic step as the change itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// 1, 2, 3, ... without gaps.
    pub seq: u64,
    /// The ledger's clock, in ms since 1970.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub change: Change,
}

impl LogEntry {
    /// How much there is to read in it: its orders, and itself.
    #[must_use]
    pub fn lines(&self) -> usize {
        match &self.change {
            Change::Held { orders, .. } | Change::Released { orders, .. } => 1 + orders.len(),
            Change::Restored { orders } => 1 + orders.len(),
            _ => 1,
        }
    }
}

/// What one sync asks of one sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncAsk {
    /// The sale's name in the ledger.
    pub sale: Arc<str>,
    /// As [`Ledger::open`](super::Ledger::open) gave it.
    pub epoch: u64,
    /// The edge's rules.
    pub terms: Terms,
    /// The newest log entry that the asker has read; 0 for none.
    pub read_to: u64,
}

/// A sale's counters, and what its log says since the asker last read it; read at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The counters.
    pub view: View,
    /// When the first hold ends that nobody has looked at since it ended; its order may be paid by now.
    pub next_due_ms: Option<u64>,
    /// Those after `read_to`, oldest first and without gaps, up to [`SYNC_LINES_MAX`]; at least one, if there is one.
    pub entries: Vec<LogEntry>,
}
