//! Requests per second of each address or buyer: token buckets in a table of fixed size without a lock.
//!
//! A bucket is one number, the time at which it is full again (generic cell rate algorithm, ITU-T I.371). A request
//! moves this time by the time of one token, and is refused if that exceeds the time of a whole bucket. A full bucket
//! carries no information, so only recently active addresses need a slot. If there are more of them than slots, the
//! fullest bucket is dropped: too much is let through then, and no address is refused because of others.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// 512 KiB whatever the limit: slots for 65,536 addresses.
const SETS: usize = 8192;
/// Slots where one address may be: a cache line.
const PLACES: usize = 8;
/// How often a contended slot is tried before the request is let through.
const FIGHTS_MAX: usize = 64;

/// The low bits of a slot: when the bucket is full again, in microseconds. They cover 203 days; a time further ahead
/// than a whole bucket is in the past.
const TIME_BITS: u32 = 44;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

#[repr(align(64))]
#[derive(Debug, Default)]
struct Set([AtomicU64; PLACES]);

/// The buckets of all keys. A key is an address, or the hash of a buyer.
#[derive(Debug)]
pub struct Rate {
    sets: Box<[Set]>,
    hasher: RandomState,
    begin: Instant,
    /// Time of one token.
    token_us: u64,
    /// Time of a whole bucket.
    bucket_us: u64,
}

/// Where the bucket of an address is, or would be.
struct Found<'a> {
    place: &'a AtomicU64,
    word: u64,
    /// Time until it is full.
    ahead_us: u64,
}

impl Rate {
    /// `per_second` is 1 to 100,000, `burst` 1 to 1,000,000.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let per_second = u64::from(per_second.max(1));
        let token_us = ((1_000_000 + per_second / 2) / per_second).max(1);
        Self {
            sets: (0..SETS).map(|_| Set::default()).collect(),
            hasher: RandomState::new(),
            begin: Instant::now(),
            token_us,
            bucket_us: token_us * u64::from(burst.max(1)),
        }
    }

    /// Takes a token if there is one.
    pub fn take(&self, key: u64) -> bool {
        self.take_at(key, self.now_us())
    }

    /// Whether there is a token.
    pub fn has_some(&self, key: u64) -> bool {
        let now_us = self.now_us();
        self.find(self.hasher.hash_one(key), now_us).ahead_us + self.token_us <= self.bucket_us
    }

    fn now_us(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    fn take_at(&self, key: u64, now_us: u64) -> bool {
        let hash = self.hasher.hash_one(key);
        for _ in 0..FIGHTS_MAX {
            let Found { place, word, ahead_us } = self.find(hash, now_us);
            let full_us = ahead_us + self.token_us;
            if full_us > self.bucket_us {
                return false;
            }
            let new = tag(hash) << TIME_BITS | (now_us + full_us) & TIME_MASK;
            if place.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
        true
    }

    /// The slot of an address; if it has none, the one with the fullest bucket, as an empty slot.
    fn find(&self, hash: u64, now_us: u64) -> Found<'_> {
        let places = &self.sets[hash as usize % SETS].0;
        let mut fullest = Found { place: &places[0], word: 0, ahead_us: u64::MAX };
        for place in places {
            let word = place.load(Ordering::Relaxed);
            let ahead_us = self.ahead_us(word, now_us);
            if word >> TIME_BITS == tag(hash) {
                return Found { place, word, ahead_us };
            }
            if ahead_us < fullest.ahead_us {
                fullest = Found { place, word, ahead_us };
            }
        }
        Found { ahead_us: 0, ..fullest }
    }

    fn ahead_us(&self, word: u64, now_us: u64) -> u64 {
        let ahead_us = word.wrapping_sub(now_us) & TIME_MASK;
        if ahead_us <= self.bucket_us { ahead_us } else { 0 }
    }
}

/// Distinguishes the addresses of a set, except for one pair in half a million, which shares a bucket. Never the value
/// of an unused slot.
/// unused place.
fn tag(hash: u64) -> u64 {
    hash >> TIME_BITS | 1
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::new(50, 100);
        let passed = |at_us| (0..1_000).filter(|_| rate.take_at(1, at_us)).count();
        assert_eq!(passed(0), 100);
        assert_eq!(passed(19_999), 0);
        assert_eq!(passed(20_000), 1);
        assert_eq!(passed(SECOND_US), 49);
        assert_eq!(passed(10 * SECOND_US), 100, "a bucket holds no more than it holds");
        // A client that keeps asking is served at the rate, and not locked out for asking.
        let served = (0..10_000u64).filter(|n| rate.take_at(1, 20 * SECOND_US + n * 1_000)).count();
        assert!((597..=600).contains(&served), "{served}");
    }

    #[test]
    fn one_address_costs_another_nothing() {
        let rate = Rate::new(1, 5);
        for key in 0..1_000 {
            assert_eq!((0..9).filter(|_| rate.take_at(key, 7)).count(), 5, "{key}");
        }
    }

    #[test]
    fn more_addresses_than_places_refuse_nobody_who_did_not_ask_too_much() {
        let rate = Rate::new(1, 2);
        assert!((0..300_000).all(|key| rate.take_at(key, 7)));
        // An active client stays known: the buckets of others are fuller.
        let passed = (0..300_000).filter(|other| rate.take_at(1_000_000 + other, 8) && rate.take_at(1, 8)).count();
        assert!(passed < 300_000 / 100, "{passed}");
    }

    #[test]
    fn time_may_wrap() {
        let rate = Rate::new(10, 3);
        let before = TIME_MASK - 50_000;
        assert_eq!((0..9).filter(|_| rate.take_at(1, before)).count(), 3);
        assert_eq!((0..9).filter(|_| rate.take_at(1, before + 100_000)).count(), 1);
        assert_eq!((0..9).filter(|_| rate.take_at(1, before + 10 * SECOND_US)).count(), 3);
    }

    #[test]
    fn threads_take_no_token_twice() {
        let rate = Rate::new(1, 1_000);
        let passed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let own = (0..1_000).filter(|_| rate.take_at(1, 0)).count();
                    passed.fetch_add(own, Ordering::Relaxed);
                });
            }
        });
        // A contended slot lets requests through; that takes far more threads than these.
        assert_eq!(passed.into_inner(), 1_000);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            per_second in 1..2_000u32,
            burst in 1..50u32,
            pauses_us in prop::collection::vec(0..100_000u64, 1..300),
        ) {
            let rate = Rate::new(per_second, burst);
            let mut now_us = 0;
            let mut passed = 0;
            for pause_us in pauses_us {
                now_us += pause_us;
                passed += u64::from(rate.take_at(9, now_us));
                prop_assert!(passed <= u64::from(burst) + now_us / rate.token_us);
            }
        }
    }
}
