//! How the weight of a backend grows after it came back.
//!
//! As `slow_start` of Nginx Plus and `slowstart` of HAProxy: in proportion to the time since then, from nearly nothing
//! to the whole weight, so that caches and pools fill before the whole load comes.
//!
//! Pure: time is passed in, in milliseconds since some beginning.

use std::time::Duration;

/// A whole weight, in the unit in which weights grow.
pub const WHOLE: u32 = 20;

/// A backend that came back and has not its whole weight yet.
#[derive(Debug, Clone, Copy)]
pub struct SlowStart {
    since_ms: u64,
    length_ms: u64,
}

impl SlowStart {
    /// From now on, over this length; none if it has none.
    pub fn new(now_ms: u64, length: Duration) -> Option<Self> {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        (length_ms > 0).then_some(Self { since_ms: now_ms, length_ms })
    }

    /// How much of its weight it has, 1 to [`WHOLE`].
    pub fn part(&self, now_ms: u64) -> u32 {
        let whole = u64::from(WHOLE);
        let elapsed = now_ms.saturating_sub(self.since_ms).min(self.length_ms);
        // At most `whole`, which is a u32.
        (elapsed.saturating_mul(whole) / self.length_ms).clamp(1, whole) as u32
    }

    /// How long it has each part.
    pub fn step(&self) -> Duration {
        Duration::from_millis((self.length_ms / u64::from(WHOLE)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_grows_with_time_and_never_shrinks() {
        let start = SlowStart::new(1_000, Duration::from_secs(30)).expect("a length");
        let parts: Vec<u32> = (0..=40).map(|second| start.part(1_000 + second * 1_000)).collect();
        assert!(parts.is_sorted());
        assert_eq!([parts[0], parts[3], parts[15], parts[29], parts[30], parts[40]], [1, 2, 10, 19, 20, 20]);
        assert_eq!(start.part(0), 1, "a clock that was read before");
        assert_eq!(start.step(), Duration::from_millis(1_500));
    }

    #[test]
    fn no_length_is_no_slow_start() {
        assert!(SlowStart::new(0, Duration::ZERO).is_none());
        let shortest = SlowStart::new(0, Duration::from_millis(1)).expect("a length");
        assert_eq!([shortest.part(0), shortest.part(1)], [1, WHOLE]);
        assert!(!shortest.step().is_zero());
    }
}
