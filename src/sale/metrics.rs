//! The counters of a sale.

use super::{Outcome, Refusal};
use crate::observe::telemetry::{Counter, Sizes, Waits};

/// The label values of `spikegate_purchases_total`, in the order of [`outcome_index`].
pub(crate) const OUTCOMES: [&str; 21] = [
    "ordered",
    "repeated",
    "sold_out",
    "not_enough_left",
    "buyer_limit",
    "not_open",
    "paused",
    "closed",
    "bad_request",
    "key_reused",
    "busy",
    "unknown",
    "unavailable",
    "missing",
    "unpaid_limit",
    "lost_data",
    "unauthorized",
    "not_admitted",
    "limited",
    "denied",
    "left",
];

const BAD_REQUEST: usize = 8;
const LIMITED: usize = 18;
const DENIED: usize = 19;
const LEFT: usize = 20;

fn outcome_index(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Ordered { again: false, .. } => 0,
        Outcome::Ordered { again: true, .. } => 1,
        Outcome::Refused(refusal) => match refusal {
            Refusal::SoldOut => 2,
            Refusal::NotEnough { .. } => 3,
            Refusal::BuyerLimit { .. } => 4,
            Refusal::NotYet { .. } => 5,
            Refusal::Paused => 6,
            Refusal::Closed => 7,
            Refusal::KeyReused => 9,
            Refusal::Busy => 10,
            Refusal::Unavailable => 12,
            Refusal::Missing => 13,
            Refusal::UnpaidLimit { .. } => 14,
            Refusal::LostData => 15,
            Refusal::TokenMissing | Refusal::TokenInvalid(_) | Refusal::BuyerUnknown => 16,
            Refusal::NotAdmitted(_) => 17,
            Refusal::TooOften => LIMITED,
        },
        Outcome::Unknown { .. } => 11,
    }
}

/// The counters of a sale at this edge, since the process started.
#[derive(Debug, Default)]
pub struct SaleMetrics {
    /// Purchases by outcome, in the order of [`OUTCOMES`].
    pub(crate) outcomes: [Counter; OUTCOMES.len()],
    /// Purchases that the gate refused from memory.
    pub refused_at_gate: Counter,
    /// Buyer tokens whose signature was checked.
    pub tokens_checked: Counter,
    /// Batches sent to the ledger, without retries.
    pub batches: Counter,
    /// Purchases in these batches, without retries.
    pub attempts: Counter,
    /// Batches sent again because their outcome was unknown.
    pub retries: Counter,
    /// Orders that this edge released because they were not paid in time.
    pub expired: Counter,
    /// Purchases per batch.
    pub batch_size: Sizes,
    /// Duration of each call of the ledger for a batch, including calls without an answer.
    pub ledger: Waits,
    /// Time from the arrival of a queued purchase to its outcome.
    pub waits: Waits,
}

impl SaleMetrics {
    /// The label value of an outcome.
    #[must_use]
    pub fn label(outcome: &Outcome) -> &'static str {
        OUTCOMES[outcome_index(outcome)]
    }

    /// Counts the outcome of a purchase.
    pub fn outcome(&self, outcome: &Outcome) {
        self.outcomes[outcome_index(outcome)].add(1);
    }

    /// Counts a request that could not be parsed as a purchase.
    pub fn bad_request(&self) {
        self.outcomes[BAD_REQUEST].add(1);
    }

    /// Counts a purchase that was refused because its client address exceeded a rate.
    pub fn limited(&self) {
        self.outcomes[LIMITED].add(1);
    }

    /// Counts a purchase that was refused because its client address is denied.
    pub fn denied(&self) {
        self.outcomes[DENIED].add(1);
    }

    /// Counts a purchase whose client disconnected before the ledger was asked.
    pub fn left(&self) {
        self.outcomes[LEFT].add(1);
    }
}
