//! A cache of buyers that the ledger refused because of a limit per buyer.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum number of buyers; uses 512 KiB.
const SLOTS: usize = 1 << 16;
/// The lower bits of a slot hold the buyer's count.
const HAVE_BITS: u32 = 24;
const HAVE_MAX: u64 = (1 << HAVE_BITS) - 1;

/// A lock-free table of fixed size. Two buyers of one slot displace each other, which costs a call of the ledger. Two
/// buyers that also share 40 more bits of a hash with a secret seed are confused: with 65,536 entries, once in 2^40
/// refusals.
pub struct BuyerLimits {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for BuyerLimits {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }
}

impl BuyerLimits {
    fn place(&self, buyer: &str) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(buyer);
        (&self.slots[hash as usize % SLOTS], hash & !HAVE_MAX)
    }

    /// Stores the count with which the buyer was refused. A count above [`HAVE_MAX`] is not stored.
    pub fn remember(&self, buyer: &str, have: u64) {
        let (slot, tag) = self.place(buyer);
        if (1..=HAVE_MAX).contains(&have) {
            slot.store(tag | have, Ordering::Relaxed);
        }
    }

    /// The buyer's count, if stored.
    #[must_use]
    pub fn have(&self, buyer: &str) -> Option<u64> {
        let (slot, tag) = self.place(buyer);
        let there = slot.load(Ordering::Relaxed);
        (there != 0 && there & !HAVE_MAX == tag).then_some(there & HAVE_MAX)
    }

    /// Removes the buyer's count, because it may have changed.
    pub fn forget(&self, buyer: &str) {
        let (slot, tag) = self.place(buyer);
        let there = slot.load(Ordering::Relaxed);
        if there & !HAVE_MAX == tag {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Removes all counts.
    pub fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_until_forgotten() {
        let limits = BuyerLimits::default();
        assert_eq!(limits.have("ann"), None);
        limits.remember("ann", 2);
        limits.remember("bob", HAVE_MAX + 1);
        assert_eq!((limits.have("ann"), limits.have("bob")), (Some(2), None));
        limits.remember("eve", 4);
        limits.forget("ann");
        assert_eq!((limits.have("ann"), limits.have("eve")), (None, Some(4)));
        limits.clear();
        assert_eq!(limits.have("eve"), None);
    }
}
