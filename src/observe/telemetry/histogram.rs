//! Histograms in Prometheus' form: cumulative counts per bound.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{STRIPES, stripe};

/// Bounds of waits, in microseconds: from the time of an answer from memory to the longest wait of a client, in the
/// steps of Prometheus' default buckets (0.005 to 10 seconds), with as many below them.
const WAITS_US: [u64; BOUNDS] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Bounds of sizes.
const SIZES: [u64; BOUNDS] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 384, 512];

const BOUNDS: usize = 16;

/// One thread's part, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    /// The number of values up to each bound and above the previous one; the last has no bound.
    counts: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

/// A histogram. Adding a value is two additions to memory that only this thread writes to.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [u64; BOUNDS],
    stripes: Box<[Stripe; STRIPES]>,
}

/// The counts of the buckets, and the sum of all values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// The upper bounds; the last bucket has none.
    pub bounds: &'static [u64],
    /// The number of values in each bucket alone.
    pub counts: [u64; BOUNDS + 1],
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    fn new(bounds: &'static [u64; BOUNDS]) -> Self {
        Self { bounds, stripes: Box::default() }
    }

    fn add(&self, value: u64) {
        let Stripe { counts, sum } = &self.stripes[stripe()];
        counts[self.bounds.partition_point(|bound| *bound < value)].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Concurrent additions may or may not be included.
    fn buckets(&self) -> Buckets {
        let mut buckets = Buckets { bounds: self.bounds, counts: [0; BOUNDS + 1], sum: 0 };
        for stripe in &*self.stripes {
            for (all, count) in buckets.counts.iter_mut().zip(&stripe.counts) {
                *all += count.load(Ordering::Relaxed);
            }
            buckets.sum = buckets.sum.wrapping_add(stripe.sum.load(Ordering::Relaxed));
        }
        buckets
    }
}

/// Durations, in microseconds.
#[derive(Debug)]
pub struct Waits(Histogram);

impl Default for Waits {
    fn default() -> Self {
        Self(Histogram::new(&WAITS_US))
    }
}

impl Waits {
    /// Adds one.
    pub fn add(&self, wait: Duration) {
        self.0.add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
    }

    /// In microseconds.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        self.0.buckets()
    }
}

/// Sizes.
#[derive(Debug)]
pub struct Sizes(Histogram);

impl Default for Sizes {
    fn default() -> Self {
        Self(Histogram::new(&SIZES))
    }
}

impl Sizes {
    /// Adds one.
    pub fn add(&self, size: usize) {
        self.0.add(size as u64);
    }

    /// As they are.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        self.0.buckets()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_is_large_enough() {
        let waits = Waits::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001, 3_600_000_000] {
            waits.add(Duration::from_micros(micros));
        }
        let Buckets { bounds, counts, sum } = waits.buckets();
        assert_eq!((bounds[0], counts[0], counts[1]), (100, 2, 1));
        assert_eq!((bounds[15], counts[15], counts[16]), (10_000_000, 1, 2));
        assert_eq!(sum, 100 + 101 + 10_000_000 + 10_000_001 + 3_600_000_000);
    }

    #[test]
    fn every_batch_has_a_bucket() {
        let sizes = Sizes::default();
        (1..=crate::ledger::BATCH_MAX).for_each(|size| sizes.add(size));
        let buckets = sizes.buckets();
        assert_eq!(buckets.counts.iter().sum::<u64>(), 512);
        assert_eq!(buckets.counts[16], 0, "no batch is larger than the last bound");
        assert!(SIZES.is_sorted() && WAITS_US.is_sorted());
    }

    #[test]
    fn every_thread_is_counted() {
        let sizes = Sizes::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..500).for_each(|_| sizes.add(3)));
            }
        });
        let buckets = sizes.buckets();
        assert_eq!((buckets.counts[2], buckets.sum), (10_000, 30_000));
    }
}
