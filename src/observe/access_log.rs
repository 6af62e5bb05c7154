//! What is written down of requests: which of them, and what of each.
//!
//! A line is formatted on the thread of its request, onto that thread's sheet of the [`LogFile`]; nothing is allocated
//! for it and nobody waits. Of refusals, which are nearly all that an edge answers, every thread writes its share down
//! and counts the others.

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
    /// The share of refusals that are written, in parts of [`ALL`].
    share: u64,
    skipped: Counter,
}

/// What became of the requests that the edge has answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Written down.
    pub written: u64,
    /// Refusals that were left out, as `refusals` says.
    pub skipped: u64,
    /// Left out because the disk did not keep up, or was full.
    pub dropped: u64,
}

thread_local! {
    /// What is left of the shares of the refusals that this thread has seen; from [`ALL`] on, one is written.
    static SHARES: Cell<u64> = const { Cell::new(0) };
}

impl AccessLog {
    /// Opens it as the settings say.
    ///
    /// # Errors
    /// Those of [`LogFile::open`].
    pub fn open(settings: &config::AccessLog) -> io::Result<Self> {
        let file = LogFile::open(&settings.place, SETTING, Complaints::ToErrorLog)?;
        let share = (settings.refusals * ALL as f64) as u64;
        Ok(Self { file, format: settings.format.clone(), share, skipped: Counter::default() })
    }

    /// When a request begins whose answer may be a refusal. None if a refusal would not be written down: looking at the
    /// clock would cost more than the rest of it.
    #[must_use]
    pub fn begin(&self) -> Option<Instant> {
        let is_due = self.share >= ALL || SHARES.try_with(|shares| shares.get() + self.share >= ALL).unwrap_or(false);
        is_due.then(Instant::now)
    }

    /// Whether a request is to be written down; asked once for each.
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

    /// Writes a request down that was answered now.
    pub fn write(&self, record: &Record<'_>) {
        let now = SystemTime::now();
        self.file.write(|sheet| match &self.format {
            LogFormat::Combined => combined::write(sheet, record, now),
            LogFormat::Json(fields) => json::write(sheet, fields, record, now),
        });
    }

    /// Opens the file again, which was moved away.
    pub fn reopen(&self) {
        self.file.reopen();
    }

    /// Waits until all that was written so far is in the file, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        if !self.file.flush(patience) {
            log::warn!("{SETTING}: cannot write the last lines");
        }
    }

    /// What became of requests so far.
    #[must_use]
    pub fn counts(&self) -> LineCounts {
        LineCounts { written: self.file.written(), skipped: self.skipped.get(), dropped: self.file.dropped() }
    }
}

#[cfg(test)]
mod tests;
