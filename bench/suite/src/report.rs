//! The results as Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::figure::Figure;
use crate::results::Results;
use crate::row::Row;
use crate::target::{Limit, Target, targets};

impl Results {
    /// One workload's table.
    pub fn table(&self, row: Row) -> String {
        let outcomes: Vec<_> = self.outcomes.iter().filter(|outcome| outcome.0 == row).collect();
        let figures: BTreeSet<Figure> = outcomes
            .iter()
            .filter_map(|(_, _, result)| result.as_ref().ok())
            .flatten()
            .map(|(figure, _)| *figure)
            .collect();
        let mut text = format!("### {}: {}\n\n| |", row.name(), row.title());
        for figure in &figures {
            let _ = write!(text, " {} |", figure.title());
        }
        let _ = writeln!(text, "\n|---|{}", "---:|".repeat(figures.len()));
        for (_, contestant, result) in &outcomes {
            let _ = write!(text, "| {contestant} |");
            match result {
                Ok(sample) => {
                    for figure in &figures {
                        let shown = sample.get(figure).map_or(String::new(), |value| figure.show(*value));
                        let _ = write!(text, " {shown} |");
                    }
                }
                Err(reason) => {
                    // A table cell is one line.
                    let reason = reason.replace('|', "/").split_whitespace().collect::<Vec<_>>().join(" ");
                    let _ = write!(text, " failed: {reason} |");
                }
            }
            text.push('\n');
        }
        text
    }

    /// The targets of those workloads that were run.
    pub fn judgement(&self) -> String {
        let mut text = "| | target | measured | |\n|---|---|---:|---|\n".to_string();
        for target in targets() {
            if self.outcomes.iter().any(|outcome| outcome.0 == target.row) {
                let _ = writeln!(text, "{}", self.judge(&target));
            }
        }
        text
    }

    fn judge(&self, target: &Target) -> String {
        let show = |value: f64| if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        let limit = match target.limit {
            Limit::AtMost(limit) => format!("at most {}", show(limit)),
            Limit::AtLeast(limit) => format!("at least {}", show(limit)),
            Limit::Exactly(limit) => format!("exactly {}", show(limit)),
        };
        let (value, verdict) = match target.value(self) {
            Some(value) => (show(value), if target.is_reached(value) { "reached" } else { "**not reached**" }),
            None => (String::new(), "not measured"),
        };
        format!("| {}, {} | {limit} | {value} | {verdict} |", target.row.name(), target.text)
    }
}
