//! Time to wait before a retry.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles after every failure, from 100 ms to 30 s, each time shortened at random by up to a half, so that edges that
/// failed together do not retry together ("equal jitter").
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Records a failure; `random` is 0 to 1.
    pub fn failed(&mut self, random: f64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + (whole / 2).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Resets after a success. Returns whether there had been a failure.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_longest_and_begins_anew_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..11).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert!(backoff.succeeded());
        assert_eq!(backoff.failed(0.0).as_millis(), 50);
        assert!(backoff.succeeded());
        assert!(!backoff.succeeded());
    }

    #[test]
    fn it_never_overflows_and_stays_between_half_and_whole() {
        let mut backoff = Backoff { failures: u32::MAX - 1 };
        for random in [0.0, 0.3, 0.9999, 1.0, 7.0, -1.0] {
            let wait = backoff.failed(random);
            assert!((LONGEST / 2..=LONGEST).contains(&wait), "{wait:?}");
        }
    }
}
