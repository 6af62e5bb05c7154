//! The headers in which proxies name their client: `X-Forwarded-For`, `Forwarded` (RFC 7239) and `X-Real-IP`.
//!
//! A proxy appends to what it received, so the end comes from our own proxies and everything before it may be forged.
//! The headers are therefore read from the end: neither an open quote nor a long list before it can hide the end.

use std::net::IpAddr;

use crate::http::head::Head;

/// More entries than any chain of proxies has. Entries before them are not read.
const HOPS_MAX: usize = 64;
/// How many lines of the header are read, the last ones, if it came in several.
const LINES_MAX: usize = 16;

/// The header that our proxies set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressHeader {
    /// `X-Forwarded-For`: addresses, the newest last.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239): `for=` of each of its elements, the newest last.
    Forwarded,
    /// `X-Real-IP`: one address.
    XRealIp,
}

impl AddressHeader {
    /// As it is sent.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
            Self::XRealIp => "X-Real-IP",
        }
    }

    fn address(self, entry: &[u8]) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor | Self::XRealIp => node(entry),
            Self::Forwarded => node(&forwarded_for(entry)?),
        }
    }
}

/// The client of `peer`: the newest address that is not a trusted proxy. An entry that is not an address (`unknown`,
/// `_hidden`, garbage) ends the search at the proxy that wrote it; so does the end of the header.
pub fn client(header: AddressHeader, peer: IpAddr, head: &dyn Head, is_ours: impl Fn(IpAddr) -> bool) -> IpAddr {
    let (mut lines, mut count) = ([&b""[..]; LINES_MAX], 0);
    head.headers(header.name(), &mut |line| {
        lines[count % LINES_MAX] = line;
        count += 1;
    });
    let newest_first = (count.saturating_sub(LINES_MAX)..count).rev().map(|at| lines[at % LINES_MAX]);
    let entries = newest_first.flat_map(|line| FromEnd { rest: Some(line), between: b',' }).take(HOPS_MAX);
    let mut client = peer;
    for entry in entries.filter(|entry| !entry.trim_ascii().is_empty()) {
        let Some(address) = header.address(entry) else { break };
        client = address;
        if !is_ours(address) {
            break;
        }
    }
    client
}

/// The parts of a text, last one first; quoted text is not divided.
struct FromEnd<'a> {
    rest: Option<&'a [u8]>,
    between: u8,
}

impl<'a> Iterator for FromEnd<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut is_quoted = false;
        for at in (0..rest.len()).rev() {
            match rest[at] {
                b'"' if !is_escaped(rest, at) => is_quoted = !is_quoted,
                byte if byte == self.between && !is_quoted => {
                    self.rest = Some(&rest[..at]);
                    return Some(&rest[at + 1..]);
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(rest)
    }
}

/// Whether an odd number of backslashes precedes it.
fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The one `for` of an element of `Forwarded`, without quotes.
fn forwarded_for(element: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    for pair in (FromEnd { rest: Some(element), between: b';' }) {
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        // Each parameter occurs at most once (RFC 7239, 4).
        if name.eq_ignore_ascii_case(b"for") && found.replace(unquoted(value)?).is_some() {
            return None;
        }
    }
    found
}

/// A token as it is, or the content of a quoted string (RFC 9110, 5.6.4).
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let Some(rest) = value.strip_prefix(b"\"") else { return Some(value.to_vec()) };
    let inner = rest.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        text.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
    }
    Some(text)
}

/// An address, perhaps in brackets, perhaps with a port (RFC 7239, 6).
fn node(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_ascii();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, behind): (IpAddr, &str) = if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']')?;
        (IpAddr::V6(address.parse().ok()?), behind)
    } else {
        let (address, port) = text.split_once(':')?;
        (IpAddr::V4(address.parse().ok()?), &text[text.len() - port.len() - 1..])
    };
    let is_port = |port: &str| match port.strip_prefix('_') {
        Some(hidden) => !hidden.is_empty() && hidden.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    };
    (behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port)).then(|| address.to_canonical())
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
