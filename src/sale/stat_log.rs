//! The article's log line per purchase, `result:1,localSales:7`, written in the background.
//!
//! A purchase never waits for a disk: lines go through a bounded queue, and those that do not fit are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::telemetry::Counter;

/// Lines that may wait for the disk.
const QUEUE: usize = 65_536;

/// The writing end.
pub struct StatLog {
    lines: SyncSender<Line>,
    /// The file was moved away, and is to be opened again.
    must_reopen: Arc<AtomicBool>,
    dropped: Counter,
}

enum Line {
    Purchase {
        bought: bool,
        local_sales: u64,
    },
    /// Wakes the writer.
    Look,
    /// Everything before it is in the file when its other end hears.
    Flush(SyncSender<()>),
}

impl StatLog {
    /// Opens the file for appending and starts its writer.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = open(path)?;
        let (lines, queue) = sync_channel(QUEUE);
        let path = path.to_owned();
        let must_reopen = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&must_reopen);
        thread::Builder::new().name("stat-log".into()).spawn(move || {
            loop {
                match write_all(&queue, &mut file, &told) {
                    Ok(Ended::Asked) => match open(&path) {
                        Ok(opened) => file = opened,
                        Err(error) => log::error!("stat log {}: not opened again: {error}", path.display()),
                    },
                    Ok(Ended::Closed) => return,
                    Err(error) => {
                        log::error!("stat log {}: {error}; no further lines are written", path.display());
                        return;
                    }
                }
            }
        })?;
        Ok(Self { lines, must_reopen, dropped: Counter::default() })
    }

    /// Adds a line, if there is room for it. `local_sales` is how many orders this edge has made.
    pub fn write(&self, bought: bool, local_sales: u64) {
        match self.lines.try_send(Line::Purchase { bought, local_sales }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.add(1),
        }
    }

    /// Has the file opened again. Lines so far go to where it is now.
    pub fn reopen(&self) {
        self.must_reopen.store(true, Ordering::Release);
        // If there is no room, the writer is awake.
        let _ = self.lines.try_send(Line::Look);
    }

    /// Waits until the lines so far are in the file, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, flushed) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            // A writer that is stuck or gone has lost its lines in any case.
            let _ = flushed.recv_timeout(patience);
        }
    }

    /// Lines that did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

/// Why no more lines go into a file.
enum Ended {
    /// It is to be opened again.
    Asked,
    /// There will be no more.
    Closed,
}

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(BufWriter::with_capacity(1 << 16, file))
}

fn write_all(queue: &Receiver<Line>, file: &mut impl Write, must_reopen: &AtomicBool) -> io::Result<Ended> {
    while let Ok(line) = queue.recv() {
        put(file, line)?;
        // The rest of a burst goes with it, and then nothing is kept back: whoever reads the file sees what was sold.
        for line in queue.try_iter().take(QUEUE) {
            put(file, line)?;
        }
        file.flush()?;
        if must_reopen.swap(false, Ordering::Acquire) {
            return Ok(Ended::Asked);
        }
    }
    Ok(Ended::Closed)
}

fn put(file: &mut impl Write, line: Line) -> io::Result<()> {
    match line {
        Line::Purchase { bought, local_sales } => {
            writeln!(file, "result:{},localSales:{local_sales}", u8::from(bought))
        }
        Line::Look => Ok(()),
        Line::Flush(done) => {
            file.flush()?;
            // Whoever asked may have lost patience.
            let _ = done.try_send(());
            Ok(())
        }
    }
}
