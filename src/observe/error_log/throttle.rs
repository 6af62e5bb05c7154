//! At most one line per second about a recurring event, with a count of the others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counts a recurring event and lets one line per second through. Takes no lock.
#[derive(Debug, Default)]
pub struct Throttle {
    count: AtomicU64,
    /// When the last line was written, as a Unix time in seconds.
    logged_at: AtomicU64,
    /// The count at that time.
    logged: AtomicU64,
}

impl Throttle {
    /// Counts one more. Returns the number since the last line, including this one, if another line is due.
    pub fn count(&self, wanted: bool) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if !wanted {
            return None;
        }
        // A clock before 1970 only costs lines.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let logged_at = self.logged_at.load(Ordering::Relaxed);
        if now == logged_at {
            return None;
        }
        self.logged_at.compare_exchange(logged_at, now, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(count.saturating_sub(self.logged.swap(count, Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_tells_of_all() {
        let throttle = Throttle::default();
        assert_eq!(throttle.count(false), None);
        assert_eq!(throttle.count(true), Some(2));
        let lines: Vec<u64> = (0..1_000).filter_map(|_| throttle.count(true)).collect();
        assert!(lines.len() <= 1, "{lines:?}");
    }
}
