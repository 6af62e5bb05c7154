//! The time of a line. Each thread formats the seconds once per second.

use std::cell::RefCell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

thread_local! {
    static STAMP: RefCell<Stamp> =
        const { RefCell::new(Stamp { second: u64::MAX, json: String::new(), combined: String::new() }) };
}

struct Stamp {
    /// Since 1970.
    second: u64,
    /// `2026-12-01T12:00:00`
    json: String,
    /// `01/Dec/2026:12:00:00 +0000`
    combined: String,
}

impl Stamp {
    fn turn_to(&mut self, second: u64) {
        if self.second != second {
            let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
            let time = time.unwrap_or_default();
            self.second = second;
            self.json = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            self.combined = time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
        }
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-12-01T12:00:00.123Z`.
pub fn json(out: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    with(since.as_secs(), |stamp| out.extend_from_slice(stamp.json.as_bytes()));
    // Writing to a Vec does not fail.
    let _ = write!(out, ".{:03}Z", since.subsec_millis());
}

/// nginx's `$time_local`, always in UTC.
pub fn combined(out: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    with(since.as_secs(), |stamp| out.extend_from_slice(stamp.combined.as_bytes()));
}

fn with(second: u64, write: impl FnOnce(&Stamp)) {
    // A thread that is ending has no stamp and logs nothing.
    let _ = STAMP.try_with(|stamp| {
        let mut stamp = stamp.borrow_mut();
        stamp.turn_to(second);
        write(&stamp);
    });
}
