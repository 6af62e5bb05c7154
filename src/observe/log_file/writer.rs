//! The thread that writes the buffers of one log.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Complaints;
use super::{BUFFER_SIZE, SPARE_MAX, Shared, lock};

/// How long after its first line a partial buffer is collected.
pub(super) const GATHER: Duration = Duration::from_millis(20);

/// The pause after the disk was full or the pipe was blocked.
const AFTER_ERROR: Duration = Duration::from_secs(1);
const AFTER_FULL_PIPE: Duration = Duration::from_millis(20);

/// The shortest time between two messages about the same failure.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The writer, and what it is writing.
pub struct Writer {
    shared: Arc<Shared>,
    file: File,
    /// The buffer that is being written, and how much of it is done.
    buffer: Vec<u8>,
    at: usize,
    /// When the failure was last reported; none while there is none.
    told: Option<Instant>,
}

/// Requests to the writer besides writing.
struct Wishes {
    must_reopen: bool,
    asked: u64,
    is_closed: bool,
    /// Only the first line is there; more will follow.
    may_gather: bool,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, file: File) -> Self {
        Self { shared, file, buffer: Vec::new(), at: 0, told: None }
    }

    /// Writes until the log is closed and everything is written or cannot be.
    pub fn run(mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let wishes = self.wait(pause);
            if wishes.may_gather {
                thread::sleep(GATHER);
            }
            self.gather();
            let written = self.write_all();
            if wishes.must_reopen {
                self.reopen();
            }
            let written = if written.is_err() && wishes.must_reopen { self.write_all() } else { written };
            pause = match &written {
                Ok(()) => Duration::ZERO,
                Err(error) if error.kind() == ErrorKind::WouldBlock => AFTER_FULL_PIPE,
                Err(_) => AFTER_ERROR,
            };
            match written {
                Ok(()) => {
                    lock(&self.shared.queue).answered = wishes.asked;
                    self.shared.done.notify_all();
                    self.recovered();
                }
                Err(error) => self.tell(&error),
            }
            if wishes.is_closed {
                return;
            }
        }
    }

    /// Waits for work; while it cannot write, for `pause`, or until a request to reopen or to end.
    fn wait(&self, pause: Duration) -> Wishes {
        let until = Instant::now() + pause;
        let has_trouble = !self.buffer.is_empty();
        let mut queue = lock(&self.shared.queue);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let must_look = queue.must_reopen || queue.is_closed;
            let is_wanted = must_look || queue.asked > queue.answered || !queue.full.is_empty();
            let is_stirred = self.shared.is_stirred.load(Ordering::Relaxed);
            let is_time = if has_trouble { must_look || left.is_zero() } else { is_wanted || is_stirred };
            if is_time {
                return Wishes {
                    must_reopen: std::mem::take(&mut queue.must_reopen),
                    asked: queue.asked,
                    is_closed: queue.is_closed,
                    may_gather: !has_trouble && !is_wanted,
                };
            }
            let work = &self.shared.work;
            queue = match has_trouble {
                true => work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
                false => work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Collects partial buffers that are due, after the full ones of the same thread.
    fn gather(&self) {
        self.shared.is_stirred.store(false, Ordering::Relaxed);
        for buffer in &self.shared.buffers {
            let mut buffer = lock(&buffer.0);
            if !buffer.is_empty() && !self.shared.hand_over(&mut buffer) {
                self.shared.is_stirred.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Writes all full buffers; keeps what cannot be written.
    fn write_all(&mut self) -> io::Result<()> {
        loop {
            while self.at < self.buffer.len() {
                match self.file.write(&self.buffer[self.at..]) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(length) => {
                        let lines = memchr::memchr_iter(b'\n', &self.buffer[self.at..self.at + length]).count();
                        self.shared.written.add(lines as u64);
                        self.at += length;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.at = 0;
            let done = std::mem::take(&mut self.buffer);
            let mut queue = lock(&self.shared.queue);
            keep(&mut queue.spare, done);
            let Some(next) = queue.full.pop_front() else { return Ok(()) };
            self.shared.waiting.fetch_sub(next.len(), Ordering::Relaxed);
            drop(queue);
            self.buffer = next;
        }
    }

    fn reopen(&mut self) {
        match super::open(&self.shared.place) {
            Ok(file) => {
                self.file = file;
                // A line that was cut is written again in full: its first half is in the other file.
                self.at = memchr::memrchr(b'\n', &self.buffer[..self.at]).map_or(0, |end| end + 1);
            }
            Err(error) => self.say(&format!("cannot be opened again, and goes on where it was: {error}")),
        }
    }

    fn tell(&mut self, error: &io::Error) {
        // A slow reader is not a failure of the disk; the lines that it misses are counted.
        if error.kind() == ErrorKind::WouldBlock || self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let dropped = self.shared.dropped.get();
        self.say(&format!("{error}; lines wait, and those that do not fit are dropped ({dropped} so far)"));
    }

    fn recovered(&mut self) {
        if self.told.take().is_some() {
            let dropped = self.shared.dropped.get();
            self.say(&format!("lines are written again ({dropped} were dropped since the start)"));
        }
    }

    /// The error log cannot report its own failure to itself.
    fn say(&self, what: &str) {
        let Shared { place, setting, .. } = &*self.shared;
        let text = format!("{setting} {place}: {what}");
        match self.shared.complaints {
            Complaints::ToErrorLog => log::error!("{text}"),
            Complaints::ToStandardError => eprintln!("{text}"),
        }
    }
}

/// A buffer that grew with a long line is not reused.
fn keep(spare: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>) {
    if spare.len() < SPARE_MAX && (1..=2 * BUFFER_SIZE).contains(&buffer.capacity()) {
        buffer.clear();
        spare.push(buffer);
    }
}
