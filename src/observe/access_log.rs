//! The access log: which requests are logged, and which fields.
//!
//! A line is formatted on the thread of its request, into that thread's buffer of the [`LogFile`], without allocation
//! or waiting. Refusals are almost all of an edge's answers: every thread logs the configured share of them and counts
//! the rest.

mod combined;
mod escape;
mod json;
mod record;
mod stamp;

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant, SystemTime};

pub use record::{Record, Target};

use crate::config::{self, LogFormat};
use crate::observe::log_file::{Complaints, LogFile};
use crate::observe::telemetry::Counter;

/// The setting that names the log, for messages.
pub const SETTING: &str = "access_log";

/// 1 as a [`AccessLog::share`].
const ALL: u64 = 1 << 32;

/// The access log of an edge.
#[derive(Debug)]
pub struct AccessLog {
    file: LogFile,
    format: LogFormat,
    /// The share of refusals to log, in parts of [`ALL`].
    share: u64,
    skipped: Counter,
}

/// Counts of answered requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Logged.
    pub written: u64,
    /// Refusals not logged because of `refusals`.
    pub skipped: u64,
    /// Dropped because the disk was full or too slow.
    pub dropped: u64,
}

thread_local! {
    /// The accumulated share of this thread's refusals; from [`ALL`] on, one is logged.
    static SHARES: Cell<u64> = const { Cell::new(0) };
}

impl AccessLog {
    /// Opens the log as configured.
    ///
    /// # Errors
    /// Those of [`LogFile::open`].
    pub fn open(settings: &config::AccessLog) -> io::Result<Self> {
        let file = LogFile::open(&settings.place, SETTING, Complaints::ToErrorLog)?;
        let share = (settings.refusals * ALL as f64) as u64;
        Ok(Self { file, format: settings.format.clone(), share, skipped: Counter::default() })
    }

    /// The start time of a request that may be refused. None if a refusal would not be logged: reading the clock would
    /// cost more than everything else.
    #[must_use]
    pub fn begin(&self) -> Option<Instant> {
        let is_due = self.share >= ALL || SHARES.try_with(|shares| shares.get() + self.share >= ALL).unwrap_or(false);
        is_due.then(Instant::now)
    }

    /// Whether to log a request; call once for each.
    #[must_use]
    pub fn takes(&self, is_refusal: bool) -> bool {
        if !is_refusal || self.share >= ALL {
            return true;
        }
        let is_taken = SHARES.try_with(|shares| {
            let sum = shares.get() + self.share;
            shares.set(sum % ALL);
            sum >= ALL
        });
        let is_taken = is_taken.unwrap_or(false);
        if !is_taken {
            self.skipped.add(1);
        }
        is_taken
    }

    /// Logs a request that has just been answered.
    pub fn write(&self, record: &Record<'_>) {
        let now = SystemTime::now();
        self.file.write(|sheet| match &self.format {
            LogFormat::Combined => combined::write(sheet, record, now),
            LogFormat::Json(fields) => json::write(sheet, fields, record, now),
        });
    }

    /// Reopens the file after rotation.
    pub fn reopen(&self) {
        self.file.reopen();
    }

    /// Waits until everything logged so far is in the file, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        if !self.file.flush(patience) {
            log::warn!("{SETTING}: cannot write the last lines");
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> LineCounts {
        LineCounts { written: self.file.written(), skipped: self.skipped.get(), dropped: self.file.dropped() }
    }
}

#[cfg(test)]
mod tests;
