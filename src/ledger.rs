//! The ledger: the only place that sells. For every sale and at every instant, total = available + held + paid.
//!
//! There are two stores ([`crate::stores`]): Redis for any number of edges and an embedded database for one edge. Their
//! decisions are defined once, by a state machine without I/O in [`model`]. The embedded ledger runs this machine;
//! tests compare the Redis scripts with it, step by step.

pub mod buyer;
mod log;
pub mod model;
mod order;
mod outbox;
pub mod reconcile;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::log::{Change, LogEntry, OrderLine, SYNC_LINES_MAX, SyncAsk, Synced};
pub use self::order::{
    BadOrderId, BadPaymentId, Cancelled, Confirmed, Order, OrderId, OrderState, PaymentId, RefundReason, ReleaseReason,
};

pub use self::outbox::{
    Claim, DeliveryStatus, EventId, Lease, Outbox, Progress, Record, Recorded, RefusedEvent, SET_ASIDE_MAX, SetAside,
    Taken, WHY_MAX, Work, brief,
};

/// Maximum tickets per purchase. Far above real purchases, and far below an overflow of sums.
pub const QUANTITY_MAX: u32 = 1_000_000;

/// Maximum tickets per sale. Sums stay exact in a Lua number (2^53).
pub const TOTAL_MAX: u64 = 1_000_000_000;

/// Maximum purchases per step. Keeps a Redis script under 2 ms; Redis serves other clients between scripts.
pub const BATCH_MAX: usize = 512;

/// Maximum orders per sweep, for the same reason. The orders of one step are always examined together.
pub const SWEEP_MAX: usize = 512;

/// Identifies a sale. A store that was emptied and refilled by hand has a different sale under the same key.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Distinguishes this sale from an earlier one under the same key. Never 0.
    pub epoch: u64,
    /// Key of the hash that turns idempotency keys into order IDs; the same at every edge.
    pub secret: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keep the secret out of logs: it allows computing order IDs.
        write!(f, "Identity({:016x})", self.epoch)
    }
}

/// The rules of a sale in the edge's configuration. A rule stored in the ledger overrides the edge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms {
    /// How long an unpaid order keeps its tickets, in ms.
    pub hold_ms: u64,
    /// Maximum held and paid tickets per buyer; 0 means no limit.
    pub per_buyer: u32,
    /// Maximum unpaid orders per buyer; 0 means no limit.
    pub unpaid_per_buyer: u32,
    /// Nothing is sold before this time, in ms since 1970.
    pub opens_at_ms: Option<u64>,
    /// Nothing is sold from this time on, in ms since 1970.
    pub closes_at_ms: Option<u64>,
}

/// The state that operators set; opening and closing times are in [`Terms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleState {
    /// Sells within its opening times.
    #[default]
    Open,
    /// Sells nothing until it is resumed.
    Paused,
    /// Sells nothing until it is opened again.
    Closed,
}

/// A sale's counters and rules at one instant of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// See [`Identity::epoch`].
    pub epoch: u64,
    /// Incremented by every change; also the number of the newest log entry.
    pub version: u64,
    /// The ledger's clock, in ms since 1970; never goes back.
    pub now_ms: u64,
    /// All tickets.
    pub total: u64,
    /// Held and paid tickets; at most `total`.
    pub sold: u64,
    /// Paid tickets; at most `sold`.
    pub paid: u64,
    /// The state that operators set.
    pub state: SaleState,
    /// The effective rules: the ledger's own, else the edge's.
    pub terms: Terms,
}

impl View {
    /// Tickets that are neither held nor paid.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.total.saturating_sub(self.sold)
    }
}

/// A purchase for the ledger to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// The ID of the order to make. Makes the purchase idempotent.
    pub id: OrderId,
    /// The buyer ID; `None` is an anonymous buyer, to whom no limit applies.
    pub buyer: Option<Arc<str>>,
    /// 1 to [`QUANTITY_MAX`]. An ID that was used with another quantity is refused.
    pub quantity: u32,
}

/// The ledger's decision about one purchase. Refusals are values; the ledger checks them in the order of the variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The ID has an order, made now or (`again`) earlier with the same content.
    Ordered {
        /// The order's present state.
        order: Order,
        /// Whether the order existed before this step.
        again: bool,
    },
    /// The ID has an order with another quantity.
    KeyReused,
    /// The sale is closed.
    Closed,
    /// The sale is not open yet.
    NotYet,
    /// The sale is paused.
    Paused,
    /// No ticket is available.
    SoldOut,
    /// The buyer would exceed the ticket limit.
    BuyerLimit {
        /// Tickets that the buyer has.
        have: u64,
    },
    /// The buyer must pay or cancel an order first.
    UnpaidLimit {
        /// Unpaid orders that the buyer has.
        have: u64,
    },
    /// Fewer tickets are available than the purchase asks for.
    NotEnough {
        /// Available tickets; at least 1.
        left: u64,
    },
}

/// The outcome of one step of purchases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// One per purchase, in their order.
    pub decisions: Vec<Decision>,
    /// The sale after the step.
    pub view: View,
    /// The version before the step. A reader that had read the log up to here has, with this answer, read it up to
    /// `view.version`.
    pub version_before: u64,
}

/// The outcome of one sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Holds that had ended. No later sweep examines them again.
    pub ended: usize,
    /// Unpaid orders that were released.
    pub released: usize,
}

/// Why a ledger operation failed. Only after [`LedgerError::Unknown`] the ledger may have made the change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not done: the ledger is unreachable or refused to work.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
    /// The outcome is unknown. A retry with the same IDs is safe and resolves it.
    #[error("the ledger did not answer: {0}")]
    Unknown(String),
    /// Not done: the ledger has no such sale.
    #[error("the ledger has no such sale")]
    Missing,
    /// Not done: the ledger lost changes of this sale. It changes nothing until an operator reconciles the sale.
    #[error("the ledger lost changes: {0}")]
    Fenced(String),
    /// Not done: the sale has another epoch than the caller's. The caller must open it again.
    #[error("the ledger has a different sale under this key than the one this edge opened")]
    Changed,
    /// Not done: the ledger's data of the sale is invalid.
    #[error("the sale's data is damaged: {0}")]
    Damaged(String),
    /// Not done: this ledger derives everything from its log and has nothing to repair.
    #[error("this ledger supports comparison only, not repair")]
    Unsupported,
    /// Not done: the total would fall below the tickets sold.
    #[error("the total cannot be less than the {sold} tickets sold")]
    BelowSold {
        /// Held and paid tickets.
        sold: u64,
    },
    /// Not done: the total would exceed [`TOTAL_MAX`].
    #[error("a sale must have at most {TOTAL_MAX} tickets")]
    AboveMaximum,
    /// Not done: the change ID was used for a different change.
    #[error("this change id was used for a different change")]
    ChangeIdReused,
}

/// A store of sales. Every step is atomic, durable before the answer (as far as the store is configured to be), and
/// idempotent by its IDs.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Opens a sale: creates it with `total` tickets if there is none, adopts one that was created by hand, and does
    /// not change one that is open. Without `total`, an absent sale is [`LedgerError::Missing`].
    async fn open(&self, sale: &str, total: Option<u64>) -> Result<Identity, LedgerError>;

    /// Decides at most [`BATCH_MAX`] purchases in their order. Each decision counts the tickets of the ones before it.
    async fn reserve(
        &self,
        sale: &str,
        epoch: u64,
        terms: &Terms,
        batch: &Arc<Vec<Purchase>>,
    ) -> Result<Reserved, LedgerError>;

    /// Reads several sales in one round trip, each at one instant. The outer error means that no sale was read.
    async fn sync(&self, asks: &[SyncAsk]) -> Result<Vec<Result<Synced, LedgerError>>, LedgerError>;

    /// Reads one sale's counters at one instant.
    async fn snapshot(&self, sale: &str, terms: &Terms) -> Result<View, LedgerError>;

    /// Reads one order.
    async fn order(&self, sale: &str, id: OrderId) -> Result<Option<Order>, LedgerError>;

    /// Records a payment for an order. The first payment wins; a repeat of it gets the same answer. An order whose hold
    /// ended is still payable. If it was released, the payment takes it back if stock and limit allow it.
    async fn confirm(
        &self,
        sale: &str,
        terms: &Terms,
        order: OrderId,
        payment: &PaymentId,
    ) -> Result<Confirmed, LedgerError>;

    /// Releases an unpaid order. An ID without an order is given up: no order can be made under it later.
    async fn cancel(&self, sale: &str, order: OrderId) -> Result<Cancelled, LedgerError>;

    /// Releases orders whose hold has ended, earliest first, at most about [`SWEEP_MAX`]. Returns how many ended holds
    /// it examined, including those of paid and cancelled orders; 0 means that no hold has ended.
    async fn sweep(&self, sale: &str, epoch: u64) -> Result<Swept, LedgerError>;

    /// Opens, pauses or closes a sale. Setting its present state changes nothing.
    async fn set_state(&self, sale: &str, state: SaleState) -> Result<(), LedgerError>;

    /// Adds tickets, or removes unsold ones if `delta` is negative, once per `change_id`.
    async fn add_stock(&self, sale: &str, change_id: &str, delta: i64) -> Result<(), LedgerError>;

    /// Reads at most `limit` log entries after number `after`, oldest first.
    async fn log(&self, sale: &str, after: u64, limit: usize) -> Result<Vec<LogEntry>, LedgerError>;
}
