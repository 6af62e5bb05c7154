//! Figures of one run, and their medians.

use std::collections::BTreeMap;

/// What can be measured, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    Rate,
    Edge,
    Redis,
    Busy,
    P50,
    P99,
    P999,
    AfterPurchase,
    AfterProxied,
    Sold,
    Refused,
    Attempts,
    Wall,
}

impl Figure {
    /// The head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rate => "requests/s",
            Self::Edge => "CPU us, server",
            Self::Redis => "CPU us, Redis",
            Self::Busy => "core, %",
            Self::P50 => "p50 us",
            Self::P99 => "p99 us",
            Self::P999 => "p99.9 us",
            Self::AfterPurchase => "KiB after a purchase",
            Self::AfterProxied => "KiB after a proxied request",
            Self::Sold => "sold",
            Self::Refused => "refused",
            Self::Attempts => "attempts at the ledger",
            Self::Wall => "wall s",
        }
    }

    pub fn show(self, value: f64) -> String {
        match self {
            Self::Edge | Self::Redis | Self::AfterPurchase | Self::AfterProxied | Self::Wall => format!("{value:.2}"),
            _ => thousands(value),
        }
    }
}

/// The figures of one run, or the medians of several.
pub type Sample = BTreeMap<Figure, f64>;

/// The median of each figure.
pub fn medians<F: Copy + Ord>(samples: &[BTreeMap<F, f64>]) -> BTreeMap<F, f64> {
    let mut values: BTreeMap<F, Vec<f64>> = BTreeMap::new();
    for (figure, value) in samples.iter().flatten() {
        values.entry(*figure).or_default().push(*value);
    }
    values.into_iter().map(|(figure, values)| (figure, median(values))).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    f64::midpoint(values[low], values[high])
}

/// A whole number, its digits in groups of three.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
