//! The `combined` format of nginx and Apache, which every log tool reads.

use std::io::Write;
use std::time::SystemTime;

use super::record::{CLIENT_LEFT, Record, header};
use super::{escape, stamp};

/// `client - - [time] "request" status bytes "referer" "user agent"`
pub fn write(out: &mut Vec<u8>, record: &Record<'_>, now: SystemTime) {
    // Writing to a Vec does not fail.
    let _ = write!(out, "{} - - [", record.client);
    stamp::combined(out, now);
    out.extend_from_slice(b"] \"");
    let target = &record.target;
    match (target.method, target.target) {
        ([], []) => out.push(b'-'),
        ([], line) => escape::nginx(out, line),
        (method, line) => {
            escape::nginx(out, method);
            out.push(b' ');
            escape::nginx(out, line);
            out.push(b' ');
            out.extend_from_slice(target.protocol.as_bytes());
        }
    }
    let _ = write!(out, "\" {} {}", record.status.unwrap_or(CLIENT_LEFT), record.bytes);
    for name in ["referer", "user-agent"] {
        out.extend_from_slice(b" \"");
        match header(record.head, name) {
            Some(value) => escape::nginx(out, value),
            None => out.push(b'-'),
        }
        out.push(b'"');
    }
    out.push(b'\n');
}
