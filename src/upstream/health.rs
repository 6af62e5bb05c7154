//! The health of one backend: from requests (passive) and from checks (active).
//!
//! Pure: time is passed in, in milliseconds.

use std::time::Duration;

/// The health of one backend.
///
/// Passive, as nginx's `max_fails` and `fail_timeout`: after that many failures within the time, the backend *rests*
/// for that time; then one request may try it, and its result decides. Active: the backend is *out* from the check that
/// took it out until the check that brings it back; meanwhile requests do not matter.
#[derive(Debug, Clone)]
pub struct Health {
    max_fails: u32,
    fail_timeout_ms: u64,
    fails: u32,
    first_fail_ms: u64,
    resting: bool,
    out: bool,
}

impl Health {
    /// A healthy backend. With `max_fails` 0, failures never let it rest.
    pub fn new(max_fails: u32, fail_timeout: Duration) -> Self {
        let fail_timeout_ms = u64::try_from(fail_timeout.as_millis()).unwrap_or(u64::MAX);
        Self { max_fails, fail_timeout_ms, fails: 0, first_fail_ms: 0, resting: false, out: false }
    }

    /// The same health under new settings.
    pub fn with(&self, max_fails: u32, fail_timeout: Duration) -> Self {
        let Self { fails, first_fail_ms, resting, out, .. } = *self;
        Self { fails, first_fail_ms, resting, out, ..Self::new(max_fails, fail_timeout) }
    }

    /// The same health without checks: nothing would bring back what they took out.
    pub fn unchecked(self) -> Self {
        Self { out: false, ..self }
    }

    /// Records a failed request. Returns until when the backend rests, if it does.
    pub fn failed(&mut self, now_ms: u64) -> Option<u64> {
        if self.max_fails == 0 || self.out {
            return None;
        }
        if !self.resting {
            if self.fails == 0 || now_ms.saturating_sub(self.first_fail_ms) > self.fail_timeout_ms {
                self.fails = 0;
                self.first_fail_ms = now_ms;
            }
            self.fails += 1;
            self.resting = self.fails >= self.max_fails;
        }
        self.resting.then(|| now_ms.saturating_add(self.fail_timeout_ms))
    }

    /// Records that a trial of a resting backend was answered.
    pub fn succeeded(&mut self) {
        self.fails = 0;
        self.resting = false;
    }

    /// Records the result of the checks. Earlier failures of requests no longer count.
    pub fn checked(&mut self, good: bool) {
        self.out = !good;
        self.succeeded();
    }

    /// Neither resting nor out.
    pub fn is_well(&self) -> bool {
        !self.resting && !self.out
    }

    /// Resting because requests failed.
    pub fn is_resting(&self) -> bool {
        self.resting
    }

    /// Taken out by the checks.
    pub fn is_out(&self) -> bool {
        self.out
    }
}

/// How many checks in a row contradict the present state of a backend.
#[derive(Debug)]
pub struct Streak {
    good: bool,
    against: usize,
}

impl Streak {
    /// The state before the first check.
    pub fn new(good: bool) -> Self {
        Self { good, against: 0 }
    }

    /// Records a check. Returns the new state if it changes: `rise` successes in a row bring a backend back, `fall`
    /// failures take it out.
    pub fn checked(&mut self, good: bool, rise: usize, fall: usize) -> Option<bool> {
        if good == self.good {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if good { rise } else { fall } {
            return None;
        }
        *self = Self { good, against: 0 };
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(max_fails: u32) -> Health {
        Health::new(max_fails, Duration::from_secs(10))
    }

    #[test]
    fn failures_within_the_time_make_it_rest() {
        let mut one = health(1);
        assert_eq!(one.failed(500), Some(10_500));
        let mut three = health(3);
        assert_eq!([three.failed(0), three.failed(9_000)], [None, None]);
        assert_eq!(three.failed(10_000), Some(20_000));
        assert!(three.is_resting());
    }

    #[test]
    fn failures_further_apart_do_not() {
        let mut three = health(3);
        assert_eq!([three.failed(0), three.failed(9_000), three.failed(10_001)], [None, None, None]);
        assert_eq!(three.failed(10_002), None);
        assert_eq!(three.failed(10_003), Some(20_003));
    }

    #[test]
    fn max_fails_zero_is_never() {
        let mut never = health(0);
        assert!((0..100).all(|now| never.failed(now).is_none()));
    }

    #[test]
    fn a_failed_trial_prolongs_the_rest_and_a_good_one_ends_it() {
        let mut three = health(3);
        assert_eq!([three.failed(0), three.failed(0), three.failed(0)], [None, None, Some(10_000)]);
        assert_eq!(three.failed(60_000), Some(70_000));
        three.succeeded();
        assert!(!three.is_resting());
        assert_eq!(three.failed(60_001), None);
    }

    #[test]
    fn checks_overrule_requests() {
        let mut one = health(1);
        one.failed(0);
        one.checked(false);
        assert!(one.is_out() && !one.is_resting());
        assert_eq!(one.failed(1), None);
        one.checked(true);
        assert!(!one.is_out() && !one.is_resting());
    }

    #[test]
    fn only_a_row_of_checks_changes_the_belief() {
        let mut streak = Streak::new(true);
        let mut check = |good| streak.checked(good, 2, 3);
        assert_eq!([check(false), check(false), check(true)], [None; 3]);
        assert_eq!([check(false), check(false), check(false)], [None, None, Some(false)]);
        assert_eq!([check(false), check(true), check(false)], [None; 3]);
        assert_eq!([check(true), check(true), check(true)], [None, Some(true), None]);
    }
}
