//! The outbox of a sale: how far its log is delivered, which edge delivers it, and which events were refused.
//!
//! One edge at a time delivers a sale's log. It holds a lease and renews it while it works. Events are therefore
//! delivered in the order of the log, and the delivered position only moves forward. An event that the receiver refuses
//! because of its content is set aside by its position in the log until an operator has it retried.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{LedgerError, LogEntry, OrderId};

/// Maximum events per sale that are set aside. Beyond it, a refused event blocks the delivery: so many refusals are not
/// the fault of single events.
pub const SET_ASIDE_MAX: usize = 1_000;

/// Maximum length of the reason of an event that is set aside, in bytes; a longer one is cut.
pub const WHY_MAX: usize = 200;

/// The position of an event in the log: one order of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Number of the entry.
    pub seq: u64,
    /// Index of the order in the entry, from 0; 0 if the entry has no list of orders.
    pub part: u32,
}

/// An edge's request for the lease of a sale's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Name of the edge: 1 to 100 visible ASCII characters, unique among all edges.
    pub edge: Arc<str>,
    /// Duration of the lease. An [`Outbox::take`] in its second half renews it.
    pub lease: Duration,
}

/// The lease of a sale's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Name of the edge that has it.
    pub edge: Arc<str>,
    /// Time left when the ledger answered, by the ledger's clock.
    pub left: Duration,
}

/// How far a sale's log is delivered, at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Number of the newest entry.
    pub version: u64,
    /// All events up to this entry were delivered or set aside.
    pub delivered: u64,
    /// When the first undelivered entry was written, in ms since 1970.
    pub oldest_at_ms: Option<u64>,
    /// The ledger's clock, in ms since 1970.
    pub now_ms: u64,
    /// Events set aside, including those marked for a retry.
    pub set_aside: u64,
}

/// The work for the edge that has the lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Work {
    /// The next entries, oldest first; empty if all were delivered.
    pub entries: Vec<LogEntry>,
    /// Events set aside and marked for a retry, in the order of the log.
    pub again: Vec<EventId>,
}

/// The answer to a [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The present progress.
    pub progress: Progress,
    /// The present lease, of the calling edge or another.
    pub lease: Lease,
    /// The work; `None` if another edge has the lease.
    pub work: Option<Work>,
}

/// An event that the receiver refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEvent {
    /// Position of the event.
    pub event: EventId,
    /// The event's order, if it concerns one.
    pub order: Option<OrderId>,
    /// The receiver's reason.
    pub why: String,
}

/// The result of posted events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The receiver accepted every event up to this entry, or it is set aside; 0 for no progress.
    pub delivered: u64,
    /// An event to set aside, for the first time or again.
    pub refused: Option<RefusedEvent>,
    /// Events that were set aside and that the receiver accepted now.
    pub settled: Vec<EventId>,
}

/// The result of writing a [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The record was written.
    Done,
    /// Another edge has the lease; nothing was written.
    Lost,
    /// [`SET_ASIDE_MAX`] events are set aside already; nothing was written.
    Full,
}

/// An event that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The event and the reason.
    pub refused: RefusedEvent,
    /// When it was set aside, in ms since 1970.
    pub at_ms: u64,
    /// Whether it is marked for a retry.
    pub again: bool,
}

/// The full status of a sale's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// The present progress.
    pub progress: Progress,
    /// The present lease; `None` if no edge has one.
    pub lease: Option<Lease>,
    /// Events set aside, in the order of the log.
    pub set_aside: Vec<SetAside>,
}

/// The outboxes of a ledger's sales. Every operation also takes the sale's epoch, as returned by
/// [`super::Ledger::open`], and fails with [`LedgerError::Changed`] for another one. All are idempotent.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Takes or renews the lease unless another edge has it, and reads the next entries, oldest first, until they have
    /// `lines_max` lines together (see [`LogEntry::lines`]); the last one is read whole. 0 reads none.
    async fn take(&self, sale: &str, epoch: u64, claim: &Claim, lines_max: usize) -> Result<Taken, LedgerError>;

    /// Records the result of posted events, if `edge` still has the lease.
    async fn record(&self, sale: &str, epoch: u64, edge: &str, record: &Record) -> Result<Recorded, LedgerError>;

    /// Releases the lease, if `edge` has it.
    async fn release(&self, sale: &str, epoch: u64, edge: &str) -> Result<(), LedgerError>;

    /// Marks all events that are set aside for a retry; returns their number.
    async fn retry(&self, sale: &str, epoch: u64) -> Result<u64, LedgerError>;

    /// Reads the full status of a sale's delivery.
    async fn delivery(&self, sale: &str, epoch: u64) -> Result<DeliveryStatus, LedgerError>;
}

/// Puts a reason on one line and cuts it to [`WHY_MAX`] bytes at a character boundary.
#[must_use]
pub fn brief(why: &str) -> String {
    let mut brief = String::new();
    for word in why.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !brief.is_empty() {
            brief.push(' ');
        }
        brief.push_str(word);
        if brief.len() > WHY_MAX {
            let end = (0..=WHY_MAX).rev().find(|end| brief.is_char_boundary(*end)).unwrap_or(0);
            brief.truncate(end);
            break;
        }
    }
    brief
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(brief(" a\r\n\tb \u{1b}[2J c"), "a b [2J c");
        assert_eq!(brief(""), "");
        assert_eq!(brief(&"é".repeat(500)), "é".repeat(100));
        assert_eq!(brief(&"word ".repeat(500)).len(), WHY_MAX);
    }
}
