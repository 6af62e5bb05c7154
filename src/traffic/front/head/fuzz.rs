//! What holds of every head, whatever its bytes: told by two other readings of the same bytes.

use std::io::Cursor;

use bytes::BytesMut;
use pingora::protocols::http::v1::server::HttpSession;
use tokio::runtime::{Builder, Runtime};

use super::*;

pub(crate) mod chunked;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime");
}

/// What is clear is read in the same way by Pingora and by whoever knows nothing but the standard, and does not change
/// with what comes before its end or behind it.
pub fn check(bytes: &[u8]) {
    agree(bytes);
    let mut room = Room::default();
    let Parsed::Clear(request) = parse(bytes, &mut room) else { return };
    let (len, body_len, is_plain) = (request.len, request.body_len, request.is_plain);
    let target = request.query.map_or(request.path.to_owned(), |query| format!("{}?{query}", request.path));
    assert_eq!(by_the_book(bytes), Some((len, target.as_str(), body_len)), "{}", bytes.escape_ascii());
    for end in [0, len / 2, len - 1] {
        let before = &bytes[..end];
        assert!(!matches!(parse(before, &mut Room::default()), Parsed::Clear(_)), "{}", before.escape_ascii());
    }
    for behind in [&b""[..], b"\n", b"GET / HTTP/1.1\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n"] {
        let longer = [&bytes[..len], behind].concat();
        let mut room = Room::default();
        let Parsed::Clear(again) = parse(&longer, &mut room) else { panic!("{}", longer.escape_ascii()) };
        assert_eq!((again.len, again.body_len, again.is_plain), (len, body_len, is_plain), "{}", longer.escape_ascii());
    }
}

/// Length, target and length of the body of a head that has none but the plainest lines and says in one way where its
/// request ends (RFC 9112, 2.1, 3, 5 and 6); `None` for all others.
fn by_the_book(bytes: &[u8]) -> Option<(usize, &str, u64)> {
    let len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let lines: Vec<&[u8]> = bytes[..len - 4].split(|byte| *byte == b'\n').collect();
    let is_token = |name: &[u8]| {
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    };
    let last = lines.len() - 1;
    let line = |at: usize| {
        let line = if at == last { lines[at] } else { lines[at].strip_suffix(b"\r")? };
        (!line.contains(&b'\r') && !line.contains(&0)).then_some(line)
    };
    let words: Vec<&str> = std::str::from_utf8(line(0)?).ok()?.split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = words[..] else { return None };
    if !is_token(method.as_bytes()) || method == "CONNECT" || target.is_empty() {
        return None;
    }
    let mut lengths = Vec::new();
    for at in 1..=last {
        let line = line(at)?;
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = line[..colon].to_ascii_lowercase();
        match &name[..] {
            b"transfer-encoding" | b"upgrade" | b"expect" => return None,
            b"content-length" => lengths.push(std::str::from_utf8(line[colon + 1..].trim_ascii()).ok()?),
            name if is_token(name) => {}
            _ => return None,
        }
    }
    let body_len = match lengths[..] {
        [] => 0,
        [digits] if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    Some((len, target, body_len))
}

/// Everything of a head that matters, with the fields by lower-case names and in their order.
type Fields = Vec<(String, Vec<u8>)>;

#[derive(Debug, PartialEq)]
struct Seen {
    method: String,
    target: Vec<u8>,
    version: u8,
    fields: Fields,
    len: usize,
    body_len: u64,
}

/// What Pingora makes of it: nothing if it refuses or wants more.
fn by_pingora(bytes: &[u8]) -> Option<Seen> {
    let reading = async {
        let mut session = HttpSession::new(Box::new(Cursor::new(Vec::new())));
        session.set_pipelined_prefix(BytesMut::from(bytes));
        let len = session.read_request().await.ok()??;
        let head = session.req_header();
        assert!(!head.headers.contains_key("transfer-encoding") && !session.is_upgrade_req(), "{head:?}");
        let length = head.headers.get("content-length").map(|length| length.to_str().expect("digits"));
        let body_len: u64 = length.map_or(0, |length| length.parse().expect("a number"));
        let seen = Seen {
            method: head.method.as_str().to_owned(),
            target: head.raw_path().to_vec(),
            version: u8::from(head.version == http::Version::HTTP_11),
            fields: sorted(head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))),
            len,
            body_len,
        };
        assert_eq!(session.is_body_empty(), body_len == 0);
        Some(seen)
    };
    RUNTIME.with(|runtime| runtime.block_on(reading))
}

/// What we make of it, and whether it is plain; nothing unless it is beyond doubt.
fn by_us(bytes: &[u8]) -> Option<(Seen, bool)> {
    let mut room = Room::default();
    let Parsed::Clear(request) = parse(bytes, &mut room) else { return None };
    let mut target = request.path.to_owned();
    if let Some(query) = request.query {
        target = format!("{target}?{query}");
    }
    let line_end = bytes.iter().position(|byte| *byte == b'\r').expect("a line");
    let seen = Seen {
        method: request.method.to_owned(),
        target: target.into_bytes(),
        version: u8::from(bytes[..line_end].ends_with(b"HTTP/1.1")),
        fields: sorted(request.fields.iter().map(|field| (field.name, field.value))),
        len: request.len,
        body_len: request.body_len,
    };
    for (name, _) in &seen.fields {
        let mut values = Vec::new();
        request.headers(&name.to_uppercase(), &mut |value| values.push(value.to_vec()));
        let expected: Vec<_> =
            seen.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.clone()).collect();
        assert_eq!(values, expected);
    }
    Some((seen, request.is_plain))
}

/// Fields of one name stay in their order, as they have to.
fn sorted<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Fields {
    let mut fields: Fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// Whatever we are sure of, Pingora reads in the same way. Says whether we are sure, and whether it is plain.
pub(super) fn agree(bytes: &[u8]) -> (bool, bool) {
    let Some((ours, is_plain)) = by_us(bytes) else { return (false, false) };
    if let Some(mut theirs) = by_pingora(bytes) {
        if !is_plain {
            // Where a request ends does not depend on its target, and of an unusual one Pingora drops the fragment.
            theirs.target.clone_from(&ours.target);
        }
        assert_eq!(ours, theirs, "{}", bytes.escape_ascii());
    } else {
        // Pingora may refuse more than we doubt, but not what we would answer.
        assert!(!is_plain, "{}", bytes.escape_ascii());
    }
    assert!(!is_plain || ours.body_len == 0);
    (true, is_plain)
}
