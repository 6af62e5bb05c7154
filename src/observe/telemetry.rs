//! Counters and histograms without memory that threads share.

mod histogram;
mod traffic;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub use histogram::{Buckets, Sizes, Waits};
pub use traffic::Codes;

/// Threads beyond this number share stripes.
pub(crate) const STRIPES: usize = 16;

/// One stripe, on two cache lines of its own (processors fetch lines in pairs), to avoid false sharing.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A counter that many threads add to without sharing a cache line.
#[derive(Debug, Default)]
pub struct Counter {
    stripes: [Stripe; STRIPES],
}

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

/// The stripe of the present thread.
pub(crate) fn stripe() -> usize {
    // A thread that is ending has no stripe of its own.
    STRIPE.try_with(|stripe| *stripe).unwrap_or(0)
}

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.stripes[stripe()].0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum; concurrent additions may or may not be included.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_is_counted() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.get(), 40_000);
    }
}
