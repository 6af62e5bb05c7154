//! Fingerprints of the order IDs in a sale's log. Refusals of purchases that may be retries read them without a lock;
//! the gate's learners write them under a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::ledger::OrderId;

/// Initial size; small, because most sales of a configuration are idle.
const SLOTS_AT_FIRST: usize = 1024;

/// An open-addressing table of 64 bits per order, at most half full. A false positive (2^-64 per order) costs one call
/// of the ledger. A false negative is impossible: IDs are only added.
#[derive(Debug)]
pub struct Fingerprints {
    slots: ArcSwap<Box<[AtomicU64]>>,
    /// Number of fingerprints; the lock serialises writers.
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

/// Order IDs are outputs of a keyed hash or a random generator and need no further hash. 0 marks a free slot.
fn fingerprint(id: OrderId) -> u64 {
    (u128::from_be_bytes(id.0) as u64).max(1)
}

/// Inserts a fingerprint into a table with a free slot; returns whether it is new.
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
    /// Adds an order ID; repeats have no effect.
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

    /// Whether the ID was added; wrong with a probability of 2^-64 per order.
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
