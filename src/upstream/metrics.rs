//! What is counted of a group of backends.

use crate::observe::telemetry::{Codes, Waits};

/// What is counted of a group of backends.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    /// Requests by what their clients were answered.
    pub codes: Codes,
    /// How long they took, from their head to the end of the answer; not those that became a tunnel.
    pub waits: Waits,
}
