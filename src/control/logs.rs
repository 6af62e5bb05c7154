//! All logs of an edge: opened at the start, opened again when they were moved away, and brought to the disk at the
//! end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, LogDestination};
use crate::observe::access_log::{self, AccessLog};
use crate::observe::error_log;
use crate::sale::shop::Shop;

/// The access log, the stat logs of the sales, and the error log of the process.
#[derive(Clone)]
pub struct Logs {
    access_log: Option<Arc<AccessLog>>,
    shop: Arc<Shop>,
}

/// Counts of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Of the access log; zero if there is none.
    pub access_log: access_log::LineCounts,
    /// Error log lines that were only counted, because of the rate limit.
    pub held_back: u64,
    /// Error log lines that were dropped because the disk was full or too slow.
    pub dropped: u64,
}

/// A log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{setting}.path: {path}: {source}")]
pub struct LogError {
    /// The setting that names the log.
    setting: &'static str,
    /// The file.
    path: String,
    /// What the system said.
    source: io::Error,
}

/// Sends the error log to where the settings say.
///
/// # Errors
/// If that file cannot be opened.
pub fn begin(settings: &config::ErrorLog) -> Result<(), LogError> {
    error_log::settle(settings).map_err(|source| refused(error_log::SETTING, &settings.place, source))
}

/// Opens the access log.
///
/// # Errors
/// If its file cannot be opened.
pub fn open(settings: &config::AccessLog) -> Result<Arc<AccessLog>, LogError> {
    let opened = AccessLog::open(settings).map(Arc::new);
    opened.map_err(|source| refused(access_log::SETTING, &settings.place, source))
}

fn refused(setting: &'static str, place: &LogDestination, source: io::Error) -> LogError {
    LogError { setting, path: place.to_string(), source }
}

impl Logs {
    /// The logs of an edge: this access log, and the stat logs of the sales in `shop`.
    #[must_use]
    pub fn new(access_log: Option<Arc<AccessLog>>, shop: Arc<Shop>) -> Self {
        Self { access_log, shop }
    }

    /// Reopens all files, after they were moved away.
    pub fn reopen(&self) {
        self.access_log.iter().for_each(|log| log.reopen());
        self.shop.sales().iter().for_each(|sale| sale.reopen_stat_log());
        error_log::reopen();
        log::info!("logs reopened");
    }

    /// Writes all pending lines at the end of the edge; each log within `patience`.
    pub fn flush(&self, patience: Duration) {
        self.shop.sales().iter().for_each(|sale| sale.flush_stat_log(patience));
        self.access_log.iter().for_each(|log| log.flush(patience));
        error_log::flush(patience);
    }

    /// Counts of log lines so far.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        let (held_back, dropped) = error_log::lost();
        let access_log = self.access_log.as_deref().map(AccessLog::counts).unwrap_or_default();
        LogCounts { access_log, held_back, dropped }
    }
}
