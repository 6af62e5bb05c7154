//! The order ids of a sale that the gate has seen in its log, as fingerprints: read without a lock by every refusal of
//! a purchase that may be a retry, written by the one task that reads the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::ledger::OrderId;

/// Room for so many before the first growth; small, since most sales of a configuration idle.
const SLOTS_AT_FIRST: usize = 1024;

/// An open-addressing table of 64 bits per order, at most half full. A false hit (2^-64 an order) costs one question to
/// the ledger; a miss never happens, because ids are only added.
#[derive(Debug)]
pub struct Fingerprints {
    slots: ArcSwap<Box<[AtomicU64]>>,
    /// How many are in; the lock orders writers.
    count: Mutex<usize>,
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self { slots: ArcSwap::from_pointee(empty(SLOTS_AT_FIRST)), count: Mutex::new(0) }
    }
}

fn empty(slots: usize) -> Box<[AtomicU64]> {
    (0..slots).map(|_| AtomicU64::new(0)).collect()
}

/// Order ids are outputs of a keyed hash or of a random generator, so any of their bits are as good as a hash of them.
/// 0 marks a free slot.
fn fingerprint(id: OrderId) -> u64 {
    (u128::from_be_bytes(id.0) as u64).max(1)
}

/// Puts a fingerprint into a table with room for it; says whether it is new.
fn put(slots: &[AtomicU64], print: u64) -> bool {
    let mut at = print as usize % slots.len();
    loop {
        match slots[at].load(Ordering::Relaxed) {
            0 => {
                slots[at].store(print, Ordering::Release);
                return true;
            }
            there if there == print => return false,
            _ => at = (at + 1) % slots.len(),
        }
    }
}

impl Fingerprints {
    /// Adds an id.
    pub fn insert(&self, id: OrderId) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slots = self.slots.load_full();
        if (*count + 1) * 2 > slots.len() {
            let larger = empty(slots.len() * 4);
            for print in slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|print| *print != 0) {
                put(&larger, print);
            }
            slots = Arc::new(larger);
            self.slots.store(Arc::clone(&slots));
        }
        if put(&slots, fingerprint(id)) {
            *count += 1;
        }
    }

    /// Whether the id was added (or, once in 2^64, one like it).
    #[must_use]
    pub fn contains(&self, id: OrderId) -> bool {
        let print = fingerprint(id);
        let slots = self.slots.load();
        let mut at = print as usize % slots.len();
        loop {
            match slots[at].load(Ordering::Acquire) {
                0 => return false,
                there if there == print => return true,
                _ => at = (at + 1) % slots.len(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_added_and_nothing_else_through_growth() {
        let prints = Fingerprints::default();
        let id = |n: u128| OrderId((n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)).to_be_bytes());
        for n in 1..=10_000 {
            prints.insert(id(n));
            prints.insert(id(n));
        }
        assert!((1..=10_000).all(|n| prints.contains(id(n))));
        assert!((10_001..=20_000).all(|n| !prints.contains(id(n))));
    }

    #[test]
    fn neighbours_with_one_slot_are_all_found() {
        let prints = Fingerprints::default();
        // All of these fall on the last slot of the first table and wrap around.
        let crowd: Vec<_> = (1..=100u128).map(|n| OrderId((n * 1024 - 1).to_be_bytes())).collect();
        crowd.iter().for_each(|id| prints.insert(*id));
        assert!(crowd.iter().all(|id| prints.contains(*id)));
        assert!(prints.contains(OrderId([0; 16])) == prints.contains(OrderId(1u128.to_be_bytes())));
    }
}
