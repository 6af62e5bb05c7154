//! Counters of a group of backends.

use crate::observe::telemetry::{Codes, Waits};

/// Counters of a group of backends.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    /// Requests by status class.
    pub codes: Codes,
    /// Their durations, from the request head to the end of the response; without tunnels.
    pub waits: Waits,
}
