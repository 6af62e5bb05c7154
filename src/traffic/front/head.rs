//! Parses the head of a request and detects heads that are ambiguous.
//!
//! Requests are smuggled when two parsers read the same bytes differently. This parser therefore accepts only heads
//! that allow a single reading. It leaves all others to Pingora, with all later bytes of their connection.

mod stored;

use std::mem::MaybeUninit;

use httparse::{Error, Header, Status};

use crate::http::head::Head;
use crate::http::host::is_host;

pub use self::stored::StoredHead;

/// The maximum size of a head, in bytes.
pub const HEAD_MAX: usize = 32 * 1024;
/// The maximum number of header fields parsed here; Pingora handles requests with more.
const FIELDS_MAX: usize = 64;

/// Room for the header fields of a request.
pub struct Room<'b>([MaybeUninit<Header<'b>>; FIELDS_MAX]);

impl Default for Room<'_> {
    fn default() -> Self {
        Self([const { MaybeUninit::uninit() }; FIELDS_MAX])
    }
}

/// The result of parsing.
#[derive(Debug)]
pub enum Parsed<'h, 'b> {
    /// An incomplete head.
    Partial,
    /// A complete head that is ambiguous or invalid.
    Doubtful,
    /// An unambiguous head.
    Clear(Request<'h, 'b>),
}

/// An unambiguous head: the end of its request is known.
#[derive(Debug)]
pub struct Request<'h, 'b> {
    /// The method, as sent.
    pub method: &'b str,
    /// Path and query, as sent.
    pub target: &'b str,
    /// The minor version: 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub minor_version: u8,
    /// The path, as sent.
    pub path: &'b str,
    /// The query after the `?`, as sent.
    pub query: Option<&'b str>,
    /// Length of the head in bytes.
    pub len: usize,
    /// Length of the body in bytes.
    pub body_len: u64,
    /// Whether the client wants to keep the connection.
    pub keep_alive: bool,
    /// Whether everything that matters to an answer of ours is as usual: method, target, `Host` and `Connection`. There
    /// is no body.
    pub is_plain: bool,
    fields: &'h [Header<'b>],
}

/// Parses the head at the start of `bytes`.
pub fn parse<'h, 'b>(bytes: &'b [u8], room: &'h mut Room<'b>) -> Parsed<'h, 'b> {
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(bytes, &mut room.0) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Parsed::Partial,
        Err(error) if may_be_mended(error, bytes) && !has_blank_line(bytes) => return Parsed::Partial,
        Err(_) => return Parsed::Doubtful,
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Parsed::Doubtful;
    };
    match Fields::read(parsed.headers) {
        Some(said) if has_usual_lines(&bytes[..len]) && method != "CONNECT" => {
            let (path, query) = match memchr::memchr(b'?', target.as_bytes()) {
                Some(at) => (&target[..at], Some(&target[at + 1..])),
                None => (target, None),
            };
            let keep_alive = said.connection.unwrap_or(Connection::usual_of(version));
            Parsed::Clear(Request {
                method,
                target,
                minor_version: version,
                path,
                query,
                len,
                body_len: said.body_len.unwrap_or(0),
                keep_alive: keep_alive == Connection::KeepAlive,
                is_plain: matches!(method, "GET" | "POST")
                    && said.body_len.unwrap_or(0) == 0
                    && is_usual_target(target)
                    && (said.host.is_some_and(is_host) || (version == 0 && said.host.is_none()))
                    && keep_alive != Connection::Other,
                fields: parsed.headers,
            })
        }
        _ => Parsed::Doubtful,
    }
}

/// Whether Pingora might not refuse it but read on: it takes more fields than we do, and escapes what a target may not
/// have. It sets no deadline for the whole head, so that is waited for here.
fn may_be_mended(error: Error, bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    match error {
        Error::TooManyHeaders => true,
        Error::Token | Error::Version => line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"),
        _ => false,
    }
}

fn has_blank_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// Every line ends with CR LF, and the first one is not empty. A lone LF ends a line for some and not for others.
fn has_usual_lines(head: &[u8]) -> bool {
    !head.starts_with(b"\r") && memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

/// What `Connection` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    KeepAlive,
    Close,
    /// Something else, or more.
    Other,
}

impl Connection {
    /// Without a word, connections of HTTP/1.1 are kept and those of HTTP/1.0 are not.
    fn usual_of(minor_version: u8) -> Self {
        if minor_version == 1 { Self::KeepAlive } else { Self::Close }
    }
}

/// The fields that decide where a request ends and how it is answered.
#[derive(Default)]
struct Fields<'b> {
    host: Option<&'b [u8]>,
    connection: Option<Connection>,
    body_len: Option<u64>,
}

impl<'b> Fields<'b> {
    /// `None` if one of them may mean several things, or changes what the bytes behind the head are.
    fn read(fields: &[Header<'b>]) -> Option<Self> {
        let mut said = Self::default();
        for Header { name, value } in fields {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            // By its length first: few names have one of these, and hardly any request has none.
            match name.len() {
                4 if is("host") => put(&mut said.host, value)?,
                6 if is("expect") => return None,
                7 if is("upgrade") => return None,
                10 if is("connection") => {
                    let is = |word: &str| value.eq_ignore_ascii_case(word.as_bytes());
                    let connection = match () {
                        () if is("keep-alive") => Connection::KeepAlive,
                        () if is("close") => Connection::Close,
                        () => Connection::Other,
                    };
                    // A second one makes it unusual, but does not change where the request ends.
                    said.connection = Some(said.connection.map_or(connection, |_| Connection::Other));
                }
                14 if is("content-length") => put(&mut said.body_len, length(value)?)?,
                17 if is("transfer-encoding") => return None,
                _ => {}
            }
        }
        Some(said)
    }
}

fn put<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// Digits and nothing else, and not so many that they could be more than a number.
fn length(value: &[u8]) -> Option<u64> {
    let is_number = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// For every byte, whether RFC 3986 allows it in a path or a query.
static IN_TARGETS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'0';
    while byte <= b'z' {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~!$&'()*+,;=:@/?%";
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
};

/// A path, perhaps with a query, of the characters that RFC 3986 allows there.
fn is_usual_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| IN_TARGETS[usize::from(byte)])
}

impl Head for Request<'_, '_> {
    fn method(&self) -> &str {
        self.method
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.map(str::as_bytes)
    }

    fn headers<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a [u8])) {
        self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).for_each(|field| each(field.value));
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
