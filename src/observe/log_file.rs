//! A file that lines are added to without anybody waiting for the disk.
//!
//! Every thread writes into a buffer of its own, which costs a lock that nobody else wants. A buffer that is full is
//! handed to one thread that writes all of them; so is whatever there is, a moment after its first line woke that
//! thread. If the disk does not keep up, what waits is bounded, and lines that do not fit are dropped and counted: no
//! request ever waits.

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

/// A buffer with so many bytes is full. A line goes onto it whole, however long it is.
const BUFFER_SIZE: usize = 32 * 1024;

/// The most bytes of full buffers that wait for the disk: a second of two million short lines.
const WAITING_MAX: usize = 8 * 1024 * 1024;

/// Empty buffers that are kept to be used again.
const SPARE_MAX: usize = 32;

/// Who may read a log that is made: it says who asked for what.
const MODE: u32 = 0o640;

/// Where the writer of a log reports that it cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaints {
    /// For every log but the error log.
    ToErrorLog,
    /// For the error log, which cannot take what it cannot write.
    ToStandardError,
}

/// A log that is open.
#[derive(Debug)]
pub struct LogFile(Arc<Shared>);

/// What those who write lines share with the thread that writes the file.
#[derive(Debug)]
struct Shared {
    place: LogDestination,
    /// The setting that names it, for messages about it.
    setting: &'static str,
    complaints: Complaints,
    buffers: [Buffer; STRIPES],
    /// A line lies on a buffer that is not full, and the writer was told. Set with that buffer locked, and cleared
    /// before the writer locks all of them, so that no line is overlooked.
    is_stirred: AtomicBool,
    queue: Mutex<Queue>,
    /// How many bytes lie there; changed only with the queue locked, but read without.
    waiting: AtomicUsize,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for it.
    done: Condvar,
    dropped: Counter,
    written: Counter,
}

/// Lines of one thread; two cache lines of its own, so that threads do not meet.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Buffer(Mutex<Vec<u8>>);

/// What lies ready for the writer.
#[derive(Debug, Default)]
struct Queue {
    full: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// How often somebody has asked for all that there was, and how often it was written.
    asked: u64,
    answered: u64,
    must_reopen: bool,
    is_closed: bool,
}

impl LogFile {
    /// Opens it for appending and starts its writer. `setting` is the setting that names it, `complaints` where the
    /// writer reports that it cannot write.
    ///
    /// # Errors
    /// If it cannot be opened (a pipe that nobody reads cannot, either), or there are no threads.
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

    /// Adds a line, which `format` puts behind whatever there is, with its end. It is in the file some
    /// [`writer::GATHER`] later.
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

    /// Adds a line that is to be in the file at once.
    pub fn write_now(&self, line: &[u8]) {
        let mut buffer = lock(&self.0.buffers[stripe()].0);
        buffer.extend_from_slice(line);
        if !self.0.hand_over(&mut buffer) {
            // Other lines may lie there, and the writer knows of them.
            let kept = buffer.len() - line.len();
            buffer.truncate(kept);
            self.0.dropped.add(1);
        }
    }

    /// Has the file opened again under its name: what it was before was moved away. Lines so far go to where it is now.
    pub fn reopen(&self) {
        lock(&self.0.queue).must_reopen = true;
        self.0.work.notify_one();
    }

    /// Waits until the lines so far are in the file, at most `patience`; whether they are.
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

    /// Lines that were not written, because too many waited already.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }

    /// Lines that are in the file.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.written.get()
    }
}

/// The writer ends when it has written what there is.
impl Drop for LogFile {
    fn drop(&mut self) {
        lock(&self.0.queue).is_closed = true;
        self.0.work.notify_one();
    }
}

impl Shared {
    /// Tells the writer of the first line that is not on a full buffer. Of those that follow it will hear by itself.
    fn stir(&self) {
        if !self.is_stirred.load(Ordering::Relaxed) && !self.is_stirred.swap(true, Ordering::Relaxed) {
            // A writer that is about to wait has the queue locked until it does.
            drop(lock(&self.queue));
            self.work.notify_one();
        }
    }

    /// Gives a buffer to the writer and leaves an empty one in its place; false if too much waits already.
    fn hand_over(&self, buffer: &mut Vec<u8>) -> bool {
        // First without the lock, which threads whose lines do not fit would fight for.
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

/// A pipe that nobody reads is not waited for.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().create(true).append(true).mode(MODE).custom_flags(flags).open(path)
}

/// Nothing is half-done in these when a thread panics: what is added is added whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
