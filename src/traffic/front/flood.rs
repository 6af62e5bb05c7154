//! Limits HTTP/2 frames that cause work without serving a request.
//!
//! h2 limits the memory that such frames can occupy, but not their number. A client has a budget of frames: some at
//! first, more over time, with each request, and with the bytes sent to it, since clients measure bandwidth by PINGs
//! during downloads.

use std::io;
use std::time::{Duration, Instant};

/// The connection preface, before the first frame.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

/// The initial budget in frames, and its maximum.
const SAVED_MAX: u32 = 1000;
/// Time that adds one frame to the budget.
const EARNED_EVERY: Duration = Duration::from_millis(10);
/// Frames added per request, since some clients send priorities with it.
const EARNED_BY_REQUEST: u32 = 10;
/// Bytes sent to the client that add one frame.
const EARNED_BY_BYTES: usize = 1024;

/// The remaining budget of a client.
#[derive(Debug)]
pub struct Frames {
    head: [u8; FRAME_HEAD],
    /// How many bytes of `head` have been read.
    filled: usize,
    /// Bytes until the next frame.
    left: usize,
    saved: u32,
    sent: usize,
    earned_at: Instant,
}

impl Frames {
    /// The budget of a new connection.
    pub fn new(now: Instant) -> Self {
        Self { head: [0; FRAME_HEAD], filled: 0, left: PREFACE, saved: SAVED_MAX, sent: 0, earned_at: now }
    }

    /// Counts the frames in bytes from the client. Calls `now` only when the budget is used up.
    ///
    /// # Errors
    /// If the client exceeded its budget.
    pub fn received(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> io::Result<()> {
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let taken = (FRAME_HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < FRAME_HEAD {
                return Ok(());
            }
            let [high, middle, low, kind, ..] = self.head;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.filled = 0;
            match kind {
                // HEADERS; h2 limits streams that are opened and reset.
                0x1 => self.earn(EARNED_BY_REQUEST),
                // DATA, RST_STREAM, WINDOW_UPDATE and CONTINUATION, which h2 checks.
                0x0 | 0x3 | 0x8 | 0x9 => {}
                // PRIORITY, SETTINGS, PING, GOAWAY and unknown types.
                _ => self.spend(&now)?,
            }
        }
    }

    /// Adds to the budget for `bytes` sent to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= EARNED_BY_BYTES {
            self.earn(u32::try_from(self.sent / EARNED_BY_BYTES).unwrap_or(u32::MAX));
            self.sent %= EARNED_BY_BYTES;
        }
    }

    fn earn(&mut self, frames: u32) {
        self.saved = self.saved.saturating_add(frames).min(SAVED_MAX);
    }

    fn spend(&mut self, now: &impl Fn() -> Instant) -> io::Result<()> {
        if self.saved == 0 {
            let earned = now().saturating_duration_since(self.earned_at).as_millis() / EARNED_EVERY.as_millis();
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.earned_at += EARNED_EVERY.saturating_mul(earned);
            self.earn(earned);
        }
        self.saved = self.saved.checked_sub(1).ok_or_else(|| io::Error::other("frames that bring nothing"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    /// How many PINGs are taken before one is too many, of at most 5,000, at `now`.
    fn pings(frames: &mut Frames, now: Instant) -> usize {
        let taken = (0..5_000).take_while(|_| frames.received(&PING, || now).is_ok()).count();
        // A connection ends there; this one begins its next frame.
        frames.left = 0;
        taken
    }

    #[test]
    fn what_is_earned_can_be_spent() {
        let begin = Instant::now();
        let mut frames = Frames::new(begin);
        assert!(frames.received(&[0; PREFACE], || begin).is_ok());
        assert_eq!(pings(&mut frames, begin), 1000);
        assert_eq!(pings(&mut frames, begin + Duration::from_millis(55)), 5);
        assert_eq!(pings(&mut frames, begin + Duration::from_millis(60)), 1, "nothing is earned twice, nor lost");
        frames.sent(10_000);
        frames.sent(240);
        assert_eq!(pings(&mut frames, begin + Duration::from_millis(60)), 10);
        assert!(frames.received(&[0, 0, 0, 1, 4, 0, 0, 0, 1], || begin).is_ok());
        assert_eq!(pings(&mut frames, begin + Duration::from_millis(60)), 10);
        assert_eq!(pings(&mut frames, begin + Duration::from_secs(3600)), 1000, "there is an end to saving");
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let begin = Instant::now();
        let data = [&[0, 1, 2, 0, 0, 0, 0, 0, 1][..], &[6; 258]].concat();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let all =
            [&[0; PREFACE][..], &settings, &data, &PING, &data, &settings, &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]];
        let all = all.concat();
        for size in [1, 2, 3, 7, 9, 10, 100, all.len()] {
            let mut frames = Frames::new(begin);
            for part in all.chunks(size) {
                assert!(frames.received(part, || begin).is_ok());
            }
            assert_eq!(frames.saved, SAVED_MAX - 3, "in pieces of {size}");
        }
    }
}
