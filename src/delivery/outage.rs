//! Decides when the log gets a line that deliveries fail, and when one that they work again.

use std::time::{Duration, Instant};

/// The shortest time between two lines about a receiver that fails now and then.
const PAUSE: Duration = Duration::from_secs(10);

/// The failures between two successes: one line at the beginning, one at the end.
#[derive(Debug, Default)]
pub struct Outage {
    /// When the outage began, and whether the log has a line about it.
    since: Option<(Instant, bool)>,
    told_at: Option<Instant>,
}

impl Outage {
    /// Records a failure; returns whether the log gets a line.
    pub fn failed(&mut self, now: Instant) -> bool {
        if self.since.is_some() {
            return false;
        }
        let worth = self.told_at.is_none_or(|told_at| now.duration_since(told_at) >= PAUSE);
        self.since = Some((now, worth));
        if worth {
            self.told_at = Some(now);
        }
        worth
    }

    /// Records a success. If it ends an outage that the log has a line about, returns its length.
    pub fn ended(&mut self, now: Instant) -> Option<Duration> {
        let (since, told) = self.since.take()?;
        told.then(|| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_two_lines_and_one_that_follows_at_once_is_none() {
        let second = Duration::from_secs(1);
        let begin = Instant::now();
        let mut outage = Outage::default();
        assert_eq!(outage.ended(begin), None);
        assert!(outage.failed(begin));
        assert!(!outage.failed(begin + second));
        assert!(!outage.failed(begin + 100 * second));
        assert_eq!(outage.ended(begin + 101 * second), Some(101 * second));
        assert_eq!(outage.ended(begin + 102 * second), None);

        assert!(outage.failed(begin + 102 * second), "the last one began long before");
        assert_eq!(outage.ended(begin + 103 * second), Some(second));
        assert!(!outage.failed(begin + 104 * second));
        assert_eq!(outage.ended(begin + 105 * second), None, "nobody was told that it began");
        assert!(outage.failed(begin + 112 * second));
    }
}
