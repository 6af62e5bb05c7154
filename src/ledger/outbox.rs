//! The outbox of a sale: how far its log has been delivered, which edge delivers it, and what could not be delivered.
//!
//! One edge at a time has a sale's delivery, by a lease that it renews while it works; so the order of the log is the
//! order of delivery. How far the log was delivered only ever moves forward. An event that its receiver refuses for
//! what it says is set aside by its place in the log, where it stays until somebody has it delivered after all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{LedgerError, LogEntry, OrderId};

/// The most events of one sale that are set aside. When there are so many, the next that is refused holds up the others
/// instead, for then it is not the events that are at fault.
pub const SET_ASIDE_MAX: usize = 1_000;

/// The longest reason, in bytes, for which an event is set aside; a longer one is cut.
pub const WHY_MAX: usize = 200;

/// Where an event stands in the log: one of the orders of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The entry's number.
    pub seq: u64,
    /// The order's place in the entry, from 0; 0 if the entry is not of several.
    pub part: u32,
}

/// An edge that wants a sale's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The edge: 1 to 100 visible ASCII characters, others than those of any other edge.
    pub edge: Arc<str>,
    /// For how long, unless it renews it. It is renewed by every [`Outbox::take`] that finds half of it gone.
    pub lease: Duration,
}

/// The edge that has a sale's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub edge: Arc<str>,
    /// For how long from when the ledger was asked, by the ledger's clock.
    pub left: Duration,
}

/// How far a sale's log was delivered, at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The number of the newest entry.
    pub version: u64,
    /// All entries up to this one were delivered, or what is not is set aside.
    pub delivered: u64,
    /// When the first entry that is not delivered was written, in ms since 1970.
    pub oldest_at_ms: Option<u64>,
    /// The ledger's clock, in ms since 1970.
    pub now_ms: u64,
    /// Events set aside, those that are to be tried again among them.
    pub set_aside: u64,
}

/// What there is to do for the edge that has the delivery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Work {
    /// The entries that come next, oldest first; none if all were delivered.
    pub entries: Vec<LogEntry>,
    /// Events set aside that are to be tried again, in the order of the log.
    pub again: Vec<EventId>,
}

/// The answer to an edge that wants a sale's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// How far it is.
    pub progress: Progress,
    /// Who has it now: the edge that asked, or another.
    pub lease: Lease,
    /// What there is to do; none if another edge has it.
    pub work: Option<Work>,
}

/// An event that its receiver refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEvent {
    /// Which.
    pub event: EventId,
    /// The order that it is of, if it is of one.
    pub order: Option<OrderId>,
    /// What the receiver said.
    pub why: String,
}

/// What became of events that were posted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Every event up to this entry is kept by the receiver or set aside; 0 for nothing new.
    pub delivered: u64,
    /// One event that is to be set aside, or is again.
    pub refused: Option<RefusedEvent>,
    /// Events that were set aside and are kept by the receiver now.
    pub settled: Vec<EventId>,
}

/// What became of a [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is written.
    Done,
    /// Another edge has the delivery; nothing was written.
    Lost,
    /// There are [`SET_ASIDE_MAX`] events set aside already; nothing was written.
    Full,
}

/// An event that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What was refused, and why.
    pub refused: RefusedEvent,
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// Whether it is to be tried again.
    pub again: bool,
}

/// All that is known of a sale's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// How far it is.
    pub progress: Progress,
    /// Who has it; none if nobody does.
    pub lease: Option<Lease>,
    /// What is set aside, in the order of the log.
    pub set_aside: Vec<SetAside>,
}

/// The outboxes of a ledger's sales. Every operation names the sale by its epoch too, as [`super::Ledger::open`] gave
/// it, and is [`LedgerError::Changed`] for another one. All are idempotent.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Takes or keeps a sale's delivery unless another edge has it, and reads what there is to do: entries, oldest
    /// first, until they have `lines_max` lines together (see [`LogEntry::lines`]), the last one whole; 0 for none.
    async fn take(&self, sale: &str, epoch: u64, claim: &Claim, lines_max: usize) -> Result<Taken, LedgerError>;

    /// Writes down what became of events, if `edge` still has the delivery.
    async fn record(&self, sale: &str, epoch: u64, edge: &str, record: &Record) -> Result<Recorded, LedgerError>;

    /// Gives a sale's delivery back, if `edge` has it.
    async fn release(&self, sale: &str, epoch: u64, edge: &str) -> Result<(), LedgerError>;

    /// Has all events that are set aside tried again; says how many.
    async fn retry(&self, sale: &str, epoch: u64) -> Result<u64, LedgerError>;

    /// Reads all that is known of a sale's delivery.
    async fn delivery(&self, sale: &str, epoch: u64) -> Result<DeliveryStatus, LedgerError>;
}

/// A reason, cut to [`WHY_MAX`] bytes between two characters, on one line.
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
