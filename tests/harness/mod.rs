//! What the stories are told with: processes that end with their test, a client that checks every answer, and backends,
//! a Redis and a network that fail on demand.

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
pub mod redis;
pub mod signer;
pub mod wrk;

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

/// Long enough for a busy machine; whoever waits longer waits for something that does not come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until there is something to see, and fails when patience ends.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// Like [`eventually`], where the time it may take is part of the story.
pub fn within<T>(time: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < time, "after {time:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All files in a folder and in those below it.
pub fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
