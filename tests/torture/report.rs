//! The report: faults that happened, requests that were sent, promises that were checked.

use std::collections::BTreeMap;
use std::fmt;

use super::checker::Verdict;
use super::history::{Ask, Call};
use super::operator::Operator;
use super::schedule::Schedule;

pub struct Report<'a> {
    pub name: &'a str,
    pub seed: u64,
    pub schedule: &'a Schedule,
    /// Fault -> how often.
    pub injected: &'a BTreeMap<String, usize>,
    pub calls: &'a [Call],
    pub snapshots: usize,
    pub operator: &'a Operator,
    pub verdict: &'a Verdict,
}

impl Report<'_> {
    /// Request and answer -> how often.
    fn outcomes(&self) -> BTreeMap<(&'static str, String), usize> {
        let mut outcomes = BTreeMap::new();
        for call in self.calls {
            let ask = match &call.ask {
                Ask::Buy { key: Some(_), .. } => "buy with a key",
                Ask::Buy { .. } => "buy",
                Ask::Pay { .. } => "pay",
                Ask::Settle { .. } => "pay at the order service",
                Ask::Cancel { .. } => "cancel",
                Ask::Restock { .. } => "change the stock",
            };
            let said = match call.said() {
                None => "under way".to_owned(),
                Some(said) if said.is_ok() => "ok".to_owned(),
                Some(said) if said.is_unknown() => format!("unknown: {}", said.name()),
                Some(said) => format!("no: {}", said.name()),
            };
            *outcomes.entry((ask, said)).or_default() += 1;
        }
        outcomes
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, seed {}, {:?}", self.name, self.seed, self.schedule.time)?;
        writeln!(f, "faults:")?;
        for (fault, times) in self.injected {
            writeln!(f, "  {times:6}  {fault}")?;
        }
        if self.operator.reconciled > 0 {
            writeln!(f, "reconciled: {} times, and found", self.operator.reconciled)?;
            for (kind, count) in &self.operator.found {
                writeln!(f, "  {count:6}  {kind}")?;
            }
        }
        writeln!(f, "calls: {}", self.calls.len())?;
        for ((ask, said), times) in self.outcomes() {
            writeln!(f, "  {times:6}  {ask}: {said}")?;
        }
        writeln!(f, "checked:")?;
        writeln!(f, "  {:6}  snapshots in the middle of it all", self.snapshots)?;
        for (promise, times) in &self.verdict.checked {
            writeln!(f, "  {times:6}  {promise}")?;
        }
        for (note, times) in &self.verdict.notes {
            writeln!(f, "noted: {times} {note}")?;
        }
        let violations = &self.verdict.violations;
        writeln!(f, "violations: {}", violations.len())?;
        for violation in violations.iter().take(20) {
            writeln!(f, "  {violation}")?;
        }
        writeln!(
            f,
            "again: make torture SCHEDULE={} SEED={} SECONDS={}",
            self.name.split(' ').next().unwrap_or_default(),
            self.seed,
            self.schedule.time.as_secs()
        )
    }
}
