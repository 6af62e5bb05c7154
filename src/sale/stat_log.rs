//! The article's log line per purchase, `result:1,localSales:7`, written in the background.
//!
//! A purchase never waits for a disk; see [`LogFile`]. Lines of different threads may change places within an instant.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::LogDestination;
use crate::observe::log_file::{Complaints, LogFile};

/// The writing end.
pub struct StatLog {
    file: LogFile,
    /// Orders made by this edge since it started: `localSales`.
    local_sales: AtomicU64,
}

impl StatLog {
    /// Opens the file for appending and starts its writer.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = LogFile::open(&LogDestination::File(path.to_owned()), "stat_log", Complaints::ToErrorLog)?;
        Ok(Self { file, local_sales: AtomicU64::new(0) })
    }

    /// Adds the line of a purchase, if there is room for it.
    pub fn write(&self, bought: bool) {
        let sales = match bought {
            true => self.local_sales.fetch_add(1, Ordering::Relaxed) + 1,
            // Refusals come by the million, and only read.
            false => self.local_sales.load(Ordering::Relaxed),
        };
        self.file.write(|sheet| {
            // Memory takes every line.
            let _ = writeln!(sheet, "result:{},localSales:{sales}", u8::from(bought));
        });
    }

    /// Has the file opened again, which was moved away.
    pub fn reopen(&self) {
        self.file.reopen();
    }

    /// Waits until the lines so far are in the file, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        self.file.flush(patience);
    }

    /// Lines that did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.file.dropped()
    }
}
