//! The article's log line per purchase, `result:1,localSales:7`, written in the background.
//!
//! A purchase never waits for a disk: lines go through a bounded queue, and those that do not fit are dropped and counted.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::telemetry::Counter;

/// Lines that may wait for the disk.
const QUEUE: usize = 65_536;

/// The writing end.
pub struct StatLog {
    lines: SyncSender<Line>,
    dropped: Counter,
}

enum Line {
    Purchase {
        bought: bool,
        local_sales: u64,
    },
    /// Everything before it is in the file when its other end hears.
    Flush(SyncSender<()>),
}

impl StatLog {
    /// Opens the file for appending and starts its writer.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (lines, queue) = sync_channel(QUEUE);
        let name = path.display().to_string();
        thread::Builder::new().name("stat-log".into()).spawn(move || {
            if let Err(error) = write_all(&queue, BufWriter::with_capacity(1 << 16, file)) {
                log::error!("stat log {name}: {error}; no further lines are written");
            }
        })?;
        Ok(Self { lines, dropped: Counter::default() })
    }

    /// Adds a line, if there is room for it. `local_sales` is how many orders this edge has made.
    pub fn write(&self, bought: bool, local_sales: u64) {
        match self.lines.try_send(Line::Purchase { bought, local_sales }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.add(1),
        }
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

fn write_all(queue: &Receiver<Line>, mut file: impl Write) -> io::Result<()> {
    while let Ok(line) = queue.recv() {
        put(&mut file, line)?;
        // The rest of a burst goes with it, and then nothing is kept back: whoever reads the file sees what was sold.
        for line in queue.try_iter().take(QUEUE) {
            put(&mut file, line)?;
        }
        file.flush()?;
    }
    Ok(())
}

fn put(file: &mut impl Write, line: Line) -> io::Result<()> {
    match line {
        Line::Purchase { bought, local_sales } => {
            writeln!(file, "result:{},localSales:{local_sales}", u8::from(bought))
        }
        Line::Flush(done) => {
            file.flush()?;
            // Whoever asked may have lost patience.
            let _ = done.try_send(());
            Ok(())
        }
    }
}
