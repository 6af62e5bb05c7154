//! The article's log line per purchase, `result:1,localSales:7`, written in the background.
//!
//! A purchase never waits for the disk; see [`LogFile`]. Concurrent lines of different threads may swap.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::LogDestination;
use crate::observe::log_file::{Complaints, LogFile};

/// Writes the stat log of one sale.
pub struct StatLog {
    file: LogFile,
    /// Orders made by this edge since it started: `localSales`.
    local_sales: AtomicU64,
}

impl StatLog {
    /// Opens the file for appending and starts the writer thread.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = LogFile::open(&LogDestination::File(path.to_owned()), "stat_log", Complaints::ToErrorLog)?;
        Ok(Self { file, local_sales: AtomicU64::new(0) })
    }

    /// Adds the line of a purchase, or drops it if the buffer is full.
    pub fn write(&self, bought: bool) {
        let sales = match bought {
            true => self.local_sales.fetch_add(1, Ordering::Relaxed) + 1,
            // Refusals are frequent and need no write.
            false => self.local_sales.load(Ordering::Relaxed),
        };
        self.file.write(|sheet| {
            // Writing to memory cannot fail.
            let _ = writeln!(sheet, "result:{},localSales:{sales}", u8::from(bought));
        });
    }

    /// Reopens the file after a rotation.
    pub fn reopen(&self) {
        self.file.reopen();
    }

    /// Waits until all lines so far are in the file, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        self.file.flush(patience);
    }

    /// Lines dropped because the buffer was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.file.dropped()
    }
}
