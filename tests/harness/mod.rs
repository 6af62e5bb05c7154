//! What the tests are written with: processes that end with their test, a client that checks every answer, and
//! backends, a Redis and a network that fail on demand. It uses no family of tests.

pub mod ab;
pub mod answer;
pub mod authority;
pub mod backend;
pub mod books;
pub mod browser;
pub mod client;
pub mod crowd;
pub mod dns;
pub mod edge;
pub mod network;
pub mod nginx;
pub mod orders;
pub mod postgres;
pub mod process;
pub mod purchase;
pub mod receiver;
pub mod recorder;
pub mod redis;
pub mod signer;
pub mod wrk;

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub use ab::ab;
pub use answer::Answer;
pub use authority::Authority;
pub use backend::Backend;
pub use browser::Browser;
pub use client::{Connection, Request};
pub use crowd::crowd;
pub use dns::Dns;
pub use edge::Edge;
pub use network::{Network, Passage, Tear};
pub use nginx::Nginx;
pub use orders::{OrderService, Shelf};
pub use purchase::{Outcome, buy};
pub use receiver::Receiver;
pub use redis::Redis;
pub use wrk::wrk;

/// How long a test waits for a condition. Ample on a busy machine: a condition that takes longer never holds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The pause between two looks at a condition.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// Calls `look` until it returns a value. Fails after [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// Like [`eventually`], with a bound of its own.
#[track_caller]
pub fn within<T>(time: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < time, "after {time:?} still not: {what}");
        std::thread::sleep(LOOK_PERIOD);
    }
}

/// Reads a value until it is `expected`: for all that a sync, a delivery or another background task brings. Fails after
/// [`PATIENCE`] with the value that it read last.
#[track_caller]
pub fn becomes<T: PartialEq + Debug>(what: &str, expected: T, read: impl FnMut() -> T) {
    wait_until(what, read, |value| *value == expected);
}

/// Reads a value until `is_met` accepts it, and returns it. Fails after [`PATIENCE`] with the value that it read last.
#[track_caller]
pub fn wait_until<T: Debug>(what: &str, mut read: impl FnMut() -> T, is_met: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let value = read();
        if is_met(&value) {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}; the last value is {value:?}");
        std::thread::sleep(LOOK_PERIOD);
    }
}

/// Measures until one of five measurements is below `limit`. A busy machine delays some of them; a task that is late by
/// design delays all.
#[track_caller]
pub fn at_best_within(limit: Duration, what: &str, mut measure: impl FnMut() -> Duration) {
    let mut measured = Vec::new();
    for _ in 0..5 {
        measured.push(measure());
        if measured.last() < Some(&limit) {
            return;
        }
    }
    panic!("{what} takes longer than {limit:?}, five times in a row: {measured:?}");
}

/// All files in a folder and in those below it.
pub fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
