//! Counts how many of something each key has at a time. A key without any takes no space.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

/// The number of maps that keys are spread over. Each is locked only while one of its keys is counted.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<u64, u32>>;

/// The counts of all keys that have any.
#[derive(Debug)]
pub struct AtOnce {
    most: u32,
    hasher: RandomState,
    shards: [Shard; SHARDS],
}

/// One unit of a key, for as long as this lives.
#[derive(Debug)]
pub struct ConcurrencyGuard {
    all: Arc<AtOnce>,
    key: u64,
}

impl AtOnce {
    /// At most `most` of each key.
    pub fn new(most: u32) -> Self {
        Self { most, hasher: RandomState::new(), shards: std::array::from_fn(|_| Shard::default()) }
    }

    /// Takes one more of this key, if there is room; it counts until the returned guard is dropped.
    pub fn hold(self: &Arc<Self>, key: u64) -> Option<ConcurrencyGuard> {
        self.add(key).then(|| ConcurrencyGuard { all: Arc::clone(self), key })
    }

    /// Takes one more of this key, if there is room.
    fn add(&self, key: u64) -> bool {
        self.with(key, |counts| {
            let count = counts.entry(key).or_insert(0);
            let has_room = *count < self.most;
            *count += u32::from(has_room);
            has_room
        })
    }

    fn remove(&self, key: u64) {
        self.with(key, |counts| {
            if let Entry::Occupied(mut entry) = counts.entry(key) {
                match entry.get().saturating_sub(1) {
                    0 => drop(entry.remove()),
                    left => *entry.get_mut() = left,
                }
            }
        });
    }

    fn with<T>(&self, key: u64, act: impl FnOnce(&mut HashMap<u64, u32>) -> T) -> T {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        // Nothing under the lock can panic halfway.
        act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().expect("whole").is_empty())
    }
}

impl Drop for ConcurrencyGuard {
    fn drop(&mut self) {
        self.all.remove(self.key);
    }
}
