//! A head that outlives the buffer that it was read into: its bytes, and where its parts are in them.

use std::ops::Range;

use super::Request;
use crate::http::head::Head;

/// Where something is in the bytes of a head; a head has at most [`super::HEAD_MAX`].
type Span = Range<u16>;

/// A copy of a head and of what the parser found in it, so that nothing is parsed twice.
#[derive(Debug, Default)]
pub struct StoredHead {
    bytes: Box<[u8]>,
    method: Span,
    target: Span,
    /// Names and values, in their order.
    fields: Box<[(Span, Span)]>,
    /// None of a line that is no request's.
    minor_version: Option<u8>,
}

impl StoredHead {
    /// A copy of `request`, which was read from `head`.
    pub fn of(request: &Request<'_, '_>, head: &[u8]) -> Self {
        let bytes = &head[..request.len];
        let span = |part: &[u8]| {
            // Every part is a slice of `bytes`. An empty one may be anywhere.
            let start = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
            let end = start.saturating_add(part.len());
            match (u16::try_from(start), u16::try_from(end)) {
                (Ok(start), Ok(end)) if usize::from(end) <= bytes.len() => start..end,
                _ => 0..0,
            }
        };
        Self {
            method: span(request.method.as_bytes()),
            target: span(request.target.as_bytes()),
            fields: request.fields.iter().map(|field| (span(field.name.as_bytes()), span(field.value))).collect(),
            minor_version: Some(request.minor_version),
            bytes: bytes.into(),
        }
    }

    /// The first line of bytes that are no request; its end is cut off if it is too long for a head.
    pub fn of_line(line: &[u8]) -> Self {
        let end = u16::try_from(line.len()).unwrap_or(u16::MAX);
        Self { bytes: line[..usize::from(end)].into(), target: 0..end, ..Self::default() }
    }

    /// Path and query, as sent; of a line that is no request's, all of it.
    pub fn target(&self) -> &[u8] {
        self.part(&self.target)
    }

    /// 1 of HTTP/1.1, 0 of HTTP/1.0; none of a line that is no request's.
    pub fn minor_version(&self) -> Option<u8> {
        self.minor_version
    }

    fn part(&self, span: &Span) -> &[u8] {
        &self.bytes[usize::from(span.start)..usize::from(span.end)]
    }
}

impl Head for StoredHead {
    fn method(&self) -> &str {
        std::str::from_utf8(self.part(&self.method)).unwrap_or_default()
    }

    fn query(&self) -> Option<&[u8]> {
        let target = self.target();
        memchr::memchr(b'?', target).map(|at| &target[at + 1..])
    }

    fn headers<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a [u8])) {
        let name = name.as_bytes();
        let of_name = self.fields.iter().filter(|(field, _)| self.part(field).eq_ignore_ascii_case(name));
        of_name.for_each(|(_, value)| each(self.part(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Parsed, Room, parse};
    use super::*;

    #[test]
    fn a_stored_head_says_what_the_request_said() {
        let bytes = b"GET /buy/ticket?a=b HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: \r\n\r\nGET / HTTP/1.1\r\n".to_vec();
        let mut room = Room::default();
        let Parsed::Clear(request) = parse(&bytes, &mut room) else { panic!("a clear request") };
        let stored = StoredHead::of(&request, &bytes);
        assert_eq!(
            (stored.method(), stored.target(), stored.minor_version()),
            ("GET", &b"/buy/ticket?a=b"[..], Some(1))
        );
        assert_eq!(stored.query(), Some(&b"a=b"[..]));
        for name in ["host", "X-a", "Referer"] {
            let (mut of_request, mut of_stored) = (Vec::new(), Vec::new());
            request.headers(name, &mut |value| of_request.push(value.to_vec()));
            stored.headers(name, &mut |value| of_stored.push(value.to_vec()));
            assert_eq!(of_stored, of_request, "{name}");
        }
        let line = StoredHead::of_line(b"\x16\x03\x01");
        assert_eq!((line.method(), line.target(), line.minor_version()), ("", &b"\x16\x03\x01"[..], None));
    }
}
