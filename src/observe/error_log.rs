//! The error log: lines that an operator should see, with cause and place, and with a rate limit.
//!
//! Lines come through the facade `log`, including those of Pingora. Until the settings are read they go to standard
//! error, then to `error_log`: standard error is written at once, a file by its own thread, so that no request waits
//! for a disk. Each place in the source may write ten lines per second ([`flood`]); further lines are counted and
//! reported.

mod flood;
pub mod throttle;

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Logger, Target};
use log::{LevelFilter, Log, Metadata, Record};

use crate::config::{self, LogDestination};
use crate::observe::log_file::{Complaints, LogFile};
use flood::{Flood, Passage};

/// The setting that names it, for messages.
pub const SETTING: &str = "error_log";

/// Overrides the level of the settings, also for single modules.
const VARIABLE: &str = "RUST_LOG";

/// The file, once the settings name one.
static FILE: OnceLock<LogFile> = OnceLock::new();
/// The level of the settings, once they are read.
static SETTLED: OnceLock<Logger> = OnceLock::new();
static FLOOD: Flood = Flood::new();
/// Reports suppressed lines when no other line follows.
static TELLER: OnceLock<Thread> = OnceLock::new();
static HAS_HELD: AtomicBool = AtomicBool::new(false);

/// Logs to standard error from now on; for the start of a process.
pub fn begin() {
    let logger = logger(LevelFilter::Info);
    log::set_max_level(logger.filter());
    // A logger that was set before stays.
    let _ = log::set_boxed_logger(Box::new(ErrorLog(logger)));
}

/// Logs to the configured place from now on.
///
/// # Errors
/// If that file cannot be opened, or there are no threads.
pub fn settle(settings: &config::ErrorLog) -> io::Result<()> {
    if settings.place != LogDestination::Stderr {
        // A second call has no effect.
        let _ = FILE.set(LogFile::open(&settings.place, SETTING, Complaints::ToStandardError)?);
    }
    let logger = SETTLED.get_or_init(|| logger(settings.level));
    log::set_max_level(logger.filter());
    if TELLER.get().is_none() {
        let teller = thread::Builder::new().name(SETTING.to_owned()).spawn(tell_what_was_held)?;
        let _ = TELLER.set(teller.thread().clone());
    }
    Ok(())
}

/// Reopens the file after rotation.
pub fn reopen() {
    if let Some(file) = FILE.get() {
        file.reopen();
    }
}

/// Waits until all lines so far are written, at most `patience`; for the end of a process.
pub fn flush(patience: Duration) {
    tell(u64::MAX);
    if let Some(file) = FILE.get() {
        file.flush(patience);
    }
}

/// Counts of lines that were not written: suppressed by the rate limit, and dropped because of the disk.
#[must_use]
pub fn lost() -> (u64, u64) {
    (FLOOD.held(), FILE.get().map_or(0, LogFile::dropped))
}

/// The proxy logs failed requests once and with a limit; pingora_proxy's own lines add nothing, and clients could cause
/// any number of them.
fn logger(level: LevelFilter) -> Logger {
    let usual = format!("{level},pingora_core={},pingora_proxy=off", level.min(LevelFilter::Warn));
    let filters = std::env::var(VARIABLE).unwrap_or(usual);
    let target = Target::Pipe(Box::new(Out));
    Builder::new().parse_filters(&filters).format_target(false).target(target).build()
}

/// The logger of the process.
struct ErrorLog(Logger);

impl ErrorLog {
    fn present(&self) -> &Logger {
        SETTLED.get().unwrap_or(&self.0)
    }
}

impl Log for ErrorLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.present().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let logger = self.present();
        // A more detailed level shows everything.
        if record.level() > log::Level::Info {
            return logger.log(record);
        }
        if !logger.matches(record) {
            return;
        }
        match FLOOD.pass(record, now_s()) {
            Passage::Free { held: 0 } => logger.log(record),
            Passage::Free { held } => {
                let words = format_args!("{} ({held} more like it before)", record.args());
                logger.log(&Record::builder().metadata(record.metadata().clone()).args(words).build());
            }
            Passage::Held => {
                if !HAS_HELD.swap(true, Ordering::Relaxed)
                    && let Some(teller) = TELLER.get()
                {
                    teller.unpark();
                }
            }
        }
    }

    fn flush(&self) {}
}

/// Sleeps until a line is suppressed, and reports it a second later unless a line of its place has done so.
fn tell_what_was_held() {
    loop {
        thread::park();
        while HAS_HELD.swap(false, Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(1));
            if tell(now_s()) {
                HAS_HELD.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Reports lines suppressed before this second; returns whether there are more.
fn tell(before_s: u64) -> bool {
    let mut is_more = false;
    for told in FLOOD.told(before_s, &mut is_more) {
        let metadata = Metadata::builder().level(told.level).target(&told.target).build();
        let others = if told.held > 0 { format!(" ({} more like it)", told.held) } else { String::new() };
        if let Some(logger) = SETTLED.get() {
            logger.log(&Record::builder().metadata(metadata).args(format_args!("{}{others}", told.words)).build());
        }
    }
    is_more
}

fn now_s() -> u64 {
    // A clock before 1970 only costs lines.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The present destination. Each line is written whole.
struct Out;

impl Write for Out {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match FILE.get() {
            Some(file) => file.write_now(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
