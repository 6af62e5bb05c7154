//! The medians of all contestants in all rows.

use crate::contestant::Contestant;
use crate::figure::Sample;
use crate::row::Row;

/// The medians of every contestant at every workload, or why there are none.
#[derive(Default)]
pub struct Results {
    pub outcomes: Vec<(Row, Contestant, Result<Sample, String>)>,
}

impl Results {
    /// The medians, if the contestant did the job in every round.
    pub fn sample(&self, row: Row, contestant: Contestant) -> Option<&Sample> {
        let outcome = self.outcomes.iter().find(|outcome| (outcome.0, outcome.1) == (row, contestant));
        outcome.and_then(|(_, _, result)| result.as_ref().ok())
    }

    pub fn has_failures(&self) -> bool {
        self.outcomes.iter().any(|(_, _, result)| result.is_err())
    }
}
