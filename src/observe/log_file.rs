//! A log file that threads append to without waiting for the disk.
//!
//! Every thread writes into its own buffer, under a lock that is not contended. A full buffer is handed to one writer
//! thread; partial buffers follow a moment after their first line. Pending data is bounded: if the disk does not keep
//! up, lines are dropped and counted, and no request ever waits.

mod writer;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use self::writer::Writer;
use crate::config::LogDestination;
use crate::observe::telemetry::{Counter, STRIPES, stripe};

/// The size of a full buffer, in bytes. A line is added whole, whatever its length.
const BUFFER_SIZE: usize = 32 * 1024;

/// The most bytes of full buffers that wait for the disk: a second of two million short lines.
const WAITING_MAX: usize = 8 * 1024 * 1024;

/// Empty buffers kept for reuse.
const SPARE_MAX: usize = 32;

/// The mode of a new log file: it contains what clients requested.
const MODE: u32 = 0o640;

/// Where the writer of a log reports that it cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaints {
    /// For all logs but the error log.
    ToErrorLog,
    /// For the error log, which cannot report its own failure to itself.
    ToStandardError,
}

/// An open log.
#[derive(Debug)]
pub struct LogFile(Arc<Shared>);

/// Shared by the threads that log and the writer.
#[derive(Debug)]
struct Shared {
    place: LogDestination,
    /// The setting that names the log, for messages.
    setting: &'static str,
    complaints: Complaints,
    buffers: [Buffer; STRIPES],
    /// A partial buffer has a line, and the writer was notified. Set under the lock of the buffer, and cleared before
    /// the writer locks all of them, so no line is missed.
    is_stirred: AtomicBool,
    queue: Mutex<Queue>,
    /// Bytes in the queue; changed only under its lock, but read without.
    waiting: AtomicUsize,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes threads that wait for the writer.
    done: Condvar,
    dropped: Counter,
    written: Counter,
}

/// The lines of one thread, on two cache lines of its own to avoid false sharing.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Buffer(Mutex<Vec<u8>>);

/// Full buffers for the writer.
#[derive(Debug, Default)]
struct Queue {
    full: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// How often a flush was requested, and how often it was done.
    asked: u64,
    answered: u64,
    must_reopen: bool,
    is_closed: bool,
}

impl LogFile {
    /// Opens the file for appending and starts its writer. `setting` names the log in messages; `complaints` is where
    /// the writer reports failures.
    ///
    /// # Errors
    /// If the file cannot be opened (for a pipe: if it has no reader), or a thread cannot be created.
    pub fn open(place: &LogDestination, setting: &'static str, complaints: Complaints) -> io::Result<Self> {
        let file = open(place)?;
        let shared = Arc::new(Shared {
            place: place.clone(),
            setting,
            complaints,
            buffers: Default::default(),
            is_stirred: AtomicBool::new(false),
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            work: Condvar::new(),
            done: Condvar::new(),
            dropped: Counter::default(),
            written: Counter::default(),
        });
        let writer = Writer::new(Arc::clone(&shared), file);
        thread::Builder::new().name(setting.to_owned()).spawn(move || writer.run())?;
        Ok(Self(shared))
    }

    /// Adds a line: `format` appends it with its line end. It reaches the file within [`writer::GATHER`].
    pub fn write(&self, format: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = lock(&self.0.buffers[stripe()].0);
        if buffer.len() >= BUFFER_SIZE && !self.0.hand_over(&mut buffer) {
            self.0.dropped.add(1);
            return;
        }
        format(&mut buffer);
        if buffer.len() < BUFFER_SIZE || !self.0.hand_over(&mut buffer) {
            self.0.stir();
        }
    }

    /// Adds a line that is written at once.
    pub fn write_now(&self, line: &[u8]) {
        let mut buffer = lock(&self.0.buffers[stripe()].0);
        buffer.extend_from_slice(line);
        if !self.0.hand_over(&mut buffer) {
            // Other lines may wait there already, and the writer knows about them.
            let kept = buffer.len() - line.len();
            buffer.truncate(kept);
            self.0.dropped.add(1);
        }
    }

    /// Reopens the file after rotation. Earlier lines go to the old file.
    pub fn reopen(&self) {
        lock(&self.0.queue).must_reopen = true;
        self.0.work.notify_one();
    }

    /// Waits until the lines so far are in the file, at most `patience`; returns whether they are.
    pub fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut queue = lock(&self.0.queue);
        queue.asked += 1;
        let turn = queue.asked;
        self.0.work.notify_one();
        while queue.answered < turn {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.0.done.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Lines dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }

    /// Lines written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.written.get()
    }
}

/// The writer ends when everything is written.
impl Drop for LogFile {
    fn drop(&mut self) {
        lock(&self.0.queue).is_closed = true;
        self.0.work.notify_one();
    }
}

impl Shared {
    /// Notifies the writer of the first line in a partial buffer. It finds the following ones by itself.
    fn stir(&self) {
        if !self.is_stirred.load(Ordering::Relaxed) && !self.is_stirred.swap(true, Ordering::Relaxed) {
            // A writer that is about to wait holds the lock of the queue until it waits.
            drop(lock(&self.queue));
            self.work.notify_one();
        }
    }

    /// Hands a buffer to the writer and leaves an empty one; false if the queue is full.
    fn hand_over(&self, buffer: &mut Vec<u8>) -> bool {
        // Checked without the lock first, which threads with dropped lines would contend for.
        let has_room = || self.waiting.load(Ordering::Relaxed) + buffer.len() <= WAITING_MAX;
        if !has_room() {
            return false;
        }
        let mut queue = lock(&self.queue);
        if !has_room() {
            return false;
        }
        let empty = queue.spare.pop().unwrap_or_default();
        let full = std::mem::replace(buffer, empty);
        self.waiting.fetch_add(full.len(), Ordering::Relaxed);
        queue.full.push_back(full);
        drop(queue);
        self.work.notify_one();
        true
    }
}

fn open(place: &LogDestination) -> io::Result<File> {
    match place {
        LogDestination::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        LogDestination::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        LogDestination::File(path) => open_file(path),
    }
}

/// A pipe without a reader is not waited for.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().create(true).append(true).mode(MODE).custom_flags(flags).open(path)
}

/// A panic leaves these consistent: data is added whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
