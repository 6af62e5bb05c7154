//! The quota of each key of a route or a sale: requests per second and concurrent requests.

use std::sync::Arc;

use super::at_once::{AtOnce, ConcurrencyGuard};
use super::rate::Rate;
use crate::config;

/// The quota of each key.
#[derive(Debug)]
pub struct Quota {
    rate: Option<Rate>,
    at_once: Option<Arc<AtOnce>>,
}

/// A request that may be served. It counts until this is dropped.
#[derive(Debug)]
pub struct QuotaGuard {
    _held: Option<ConcurrencyGuard>,
}

impl Quota {
    /// A quota as in the settings.
    #[must_use]
    pub fn new(settings: &config::Quota) -> Self {
        Self {
            rate: (settings.requests_per_second > 0).then(|| Rate::new(settings.requests_per_second, settings.burst)),
            at_once: (settings.concurrent > 0).then(|| Arc::new(AtOnce::new(settings.concurrent))),
        }
    }

    /// Whether one more request of `key` may be served. A request that exceeds the concurrent limit does not use up the
    /// rate.
    #[must_use]
    pub fn take(&self, key: u64) -> Option<QuotaGuard> {
        let held = match &self.at_once {
            Some(at_once) => Some(at_once.hold(key)?),
            None => None,
        };
        let may = self.rate.as_ref().is_none_or(|rate| rate.take(key));
        may.then_some(QuotaGuard { _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(requests_per_second: u32, burst: u32, concurrent: u32) -> Quota {
        Quota::new(&config::Quota { requests_per_second, burst, concurrent })
    }

    #[test]
    fn without_limits_everything_is_taken() {
        let quota = quota(0, 1, 0);
        assert!((0..10_000).map(|_| quota.take(7)).all(|taken| taken.is_some()));
    }

    #[test]
    fn what_is_done_makes_room() {
        let quota = quota(0, 1, 2);
        let one = quota.take(7).expect("the first");
        let _two = quota.take(7).expect("the second");
        assert!(quota.take(7).is_none() && quota.take(8).is_some());
        drop(one);
        assert!(quota.take(7).is_some());
    }

    #[test]
    fn what_is_one_too_many_at_a_time_costs_no_token() {
        let quota = quota(1, 3, 1);
        let one = quota.take(7);
        assert!((0..50).all(|_| quota.take(7).is_none()));
        drop(one);
        assert!((0..2).all(|_| quota.take(7).is_some()));
        assert!(quota.take(7).is_none(), "three in all");
        assert!(quota.at_once.as_ref().expect("they are counted").is_empty());
    }
}
