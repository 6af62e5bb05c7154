//! The ledger: the one place that sells. For every sale and at every instant, total = available + held + paid.
//!
//! Two stores keep it ([`crate::stores`]), Redis for any number of edges and an embedded one for one. What they decide
//! is written down once, as a state machine without I/O, in [`model`]; the embedded ledger runs that very machine, and
//! the Redis scripts are tested against it, step by step.

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

/// The most tickets that one purchase may ask for. Far above any honest purchase, far below where sums could overflow.
pub const QUANTITY_MAX: u32 = 1_000_000;

/// The most tickets that a sale may have. Sums of it stay exact in a Lua number (2^53).
pub const TOTAL_MAX: u64 = 1_000_000_000;

/// The most purchases in one step, so that a Redis script stays under 2 ms and other clients are served in between.
pub const BATCH_MAX: usize = 512;

/// The most orders that one sweep looks at, for the same reason; those of one step are always looked at together.
pub const SWEEP_MAX: usize = 512;

/// What makes a sale itself: a store that was emptied and filled again by hand is another sale under the same name.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Tells this sale from an earlier one of the same name. Never 0.
    pub epoch: u64,
    /// The key of the hash that makes order ids out of Idempotency-Keys; the same at every edge.
    pub secret: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret stays out of logs: with it, order ids can be computed.
        write!(f, "Identity({:016x})", self.epoch)
    }
}

/// The rules of a sale as the edge's configuration has them. Where the ledger has a rule of its own, that one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms {
    /// How long an unpaid order keeps its tickets.
    pub hold_ms: u64,
    /// Tickets that one buyer may hold or have paid; 0 is no limit.
    pub per_buyer: u32,
    /// Unpaid orders that one buyer may have at a time; 0 is no limit.
    pub unpaid_per_buyer: u32,
    /// Nothing is sold before this time, in ms since 1970.
    pub opens_at_ms: Option<u64>,
    /// Nothing is sold from this time on, in ms since 1970.
    pub closes_at_ms: Option<u64>,
}

/// Whether a sale sells, as far as people decided it; times are in [`Terms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleState {
    /// Sells.
    #[default]
    Open,
    /// Sells again after a resume.
    Paused,
    /// Is over; only opening it again changes that.
    Closed,
}

/// A sale's counters and rules at one instant of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Of which sale this is the view; see [`Identity::epoch`].
    pub epoch: u64,
    /// Grows by one with every change; also the sequence number of the newest log entry.
    pub version: u64,
    /// The ledger's clock, in ms since 1970; never goes back.
    pub now_ms: u64,
    /// All tickets.
    pub total: u64,
    /// Held and paid together; at most `total`.
    pub sold: u64,
    /// Paid alone; at most `sold`.
    pub paid: u64,
    /// What people decided.
    pub state: SaleState,
    /// The rules that hold: the ledger's own, else the edge's.
    pub terms: Terms,
}

impl View {
    /// What can still be sold.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.total.saturating_sub(self.sold)
    }
}

/// A purchase as the ledger sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// Its identity.
    pub id: OrderId,
    /// Who buys; `None` is a buyer whom no limit can know.
    pub buyer: Option<Arc<str>>,
    /// 1 to [`QUANTITY_MAX`]. An id that was used with another quantity is refused.
    pub quantity: u32,
}

/// What the ledger says to one purchase. Refusals are values; the order in which they are tried is that of the
/// variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This id has an order: made now, or (`again`) earlier with the same content.
    Ordered {
        /// As it stands.
        order: Order,
        /// Whether it was there before this step.
        again: bool,
    },
    /// This id has an order with another quantity.
    KeyReused,
    /// The sale is closed.
    Closed,
    /// The sale is not open yet.
    NotYet,
    /// The sale is paused.
    Paused,
    /// Nothing is left now.
    SoldOut,
    /// The buyer would have more than the limit.
    BuyerLimit {
        /// What the buyer has.
        have: u64,
    },
    /// The buyer has to pay or cancel an order first.
    UnpaidLimit {
        /// How many unpaid orders the buyer has.
        have: u64,
    },
    /// Less is left than was asked for.
    NotEnough {
        /// What is left; at least 1.
        left: u64,
    },
}

/// The outcome of one step of purchases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// One for each purchase, in their order.
    pub decisions: Vec<Decision>,
    /// The sale after the step.
    pub view: View,
    /// The version before the step: whoever had read the log so far has now read it up to `view.version`,
    /// with the orders made in this step.
    pub version_before: u64,
}

/// The outcome of one sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Holds that had ended; none of them is looked at again.
    pub ended: usize,
    /// Orders that were released, since they were not paid.
    pub released: usize,
}

/// Why the ledger did not do what it was asked. Whether anything may have happened is the first thing a caller must
/// know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It was not done: the ledger could not be asked, or said that it cannot.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
    /// Nobody knows whether it was done. Asking again with the same ids is safe, and finds out.
    #[error("the ledger did not answer: {0}")]
    Unknown(String),
    /// It was not done: the ledger has no such sale.
    #[error("the ledger has no such sale")]
    Missing,
    /// It was not done: the ledger has lost changes of this sale, and does nothing with it until it is reconciled.
    #[error("the ledger lost changes: {0}")]
    Fenced(String),
    /// It was not done: the sale is not the one that the asker opened; it has to be opened again.
    #[error("the ledger has a different sale under this key than the one this edge opened")]
    Changed,
    /// It was not done: what the ledger holds of the sale makes no sense.
    #[error("the sale's data is damaged: {0}")]
    Damaged(String),
    /// It was not done: this ledger has nothing beside its log that could be lost or put right by itself.
    #[error("this ledger supports comparison only, not repair")]
    Unsupported,
    /// It was not done: fewer tickets would be left than are sold.
    #[error("the total cannot be less than the {sold} tickets sold")]
    BelowSold {
        /// Held and paid.
        sold: u64,
    },
    /// It was not done: the sale would have more than [`TOTAL_MAX`] tickets.
    #[error("a sale must have at most {TOTAL_MAX} tickets")]
    AboveMaximum,
    /// It was not done: this id stands for another change.
    #[error("this change id was used for a different change")]
    ChangeIdReused,
}

/// A store of sales. Every step is atomic, durable before it is answered (as far as the store is set up to be), and
/// idempotent by the ids that it carries.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Takes a sale into care: makes it with `total` tickets if there is none, adopts one that was made by hand,
    /// and changes nothing of one that is in care. Without `total`, a sale that is not there is
    /// [`LedgerError::Missing`].
    async fn open(&self, sale: &str, total: Option<u64>) -> Result<Identity, LedgerError>;

    /// Decides purchases in their order, each on what the ones before it left; at most [`BATCH_MAX`].
    async fn reserve(
        &self,
        sale: &str,
        epoch: u64,
        terms: &Terms,
        batch: &Arc<Vec<Purchase>>,
    ) -> Result<Reserved, LedgerError>;

    /// Reads several sales, each at one instant, in one round trip. The outer error means that nothing was read.
    async fn sync(&self, asks: &[SyncAsk]) -> Result<Vec<Result<Synced, LedgerError>>, LedgerError>;

    /// Reads one sale's counters at one instant.
    async fn snapshot(&self, sale: &str, terms: &Terms) -> Result<View, LedgerError>;

    /// Reads one order.
    async fn order(&self, sale: &str, id: OrderId) -> Result<Option<Order>, LedgerError>;

    /// Takes a payment for an order. The first payment wins; the same payment asked again hears the same. Whether the
    /// hold has ended does not matter, only whether the order was released: then it is taken back if stock and limit
    /// allow it.
    async fn confirm(
        &self,
        sale: &str,
        terms: &Terms,
        order: OrderId,
        payment: &PaymentId,
    ) -> Result<Confirmed, LedgerError>;

    /// Releases an order that is not paid. An id without an order is given up: no order can be made under it any more.
    async fn cancel(&self, sale: &str, order: OrderId) -> Result<Cancelled, LedgerError>;

    /// Releases orders whose hold has ended, earliest first, at most about [`SWEEP_MAX`]. Says how many holds it looked
    /// at, those of paid and cancelled orders among them; 0 means that none has ended.
    async fn sweep(&self, sale: &str, epoch: u64) -> Result<Swept, LedgerError>;

    /// Opens, pauses or closes a sale. Setting the state that it has changes nothing.
    async fn set_state(&self, sale: &str, state: SaleState) -> Result<(), LedgerError>;

    /// Adds tickets (or takes unsold ones away, with a negative `delta`), once for each `change_id`.
    async fn add_stock(&self, sale: &str, change_id: &str, delta: i64) -> Result<(), LedgerError>;

    /// Reads the log after `seq`, oldest first, at most `limit` entries.
    async fn log(&self, sale: &str, after: u64, limit: usize) -> Result<Vec<LogEntry>, LedgerError>;
}
