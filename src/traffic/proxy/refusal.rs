//! Refuses requests with an ambiguous head, because the next server may interpret them differently.
//!
//! The front door lends every such request to Pingora, which refuses most of them itself. The rest are refused here,
//! before routing and sales.

use http::Version;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use pingora::protocols::http::ServerSession as HttpSession;
use serde_json::json;

use crate::http::answer::Answer;
use crate::http::host::is_host;

/// The reason to refuse the request, if any. The connection must close afterwards.
pub(super) fn of(session: &HttpSession) -> Option<Answer> {
    let request = session.req_header();
    match request.headers.get(HOST) {
        // RFC 9112, 3.2. Pingora refuses duplicates, and a `Host` that differs from the target.
        None if request.version == Version::HTTP_11 => {
            return Some(refusal(400, "Host", "is missing"));
        }
        Some(host) if !is_host(host.as_bytes()) => {
            return Some(refusal(400, "Host", "is not a name or an address, perhaps with a port"));
        }
        _ => {}
    }
    let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter();
    // RFC 9110, 8.6. Pingora takes equal lengths for one, and passes them on as they came.
    if lengths
        .next()
        .is_some_and(|length| lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Some(refusal(400, "Content-Length", "is given more than once"));
    }
    let HttpSession::H1(session) = session else { return None };
    if !is_target(request.raw_path()) {
        return Some(refusal(400, "target", "is neither a path nor an http address (RFC 9112, 3.2)"));
    }
    let mut codings = request.headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next()?;
    // Pingora prefers `Transfer-Encoding` and drops the length before any filter runs (RFC 9112, 6.3, allows that), so
    // only the raw bytes still contain it.
    if has_length(&session.get_headers_raw_bytes()) {
        return Some(refusal(400, "Content-Length", "is given together with Transfer-Encoding"));
    }
    let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    (!is_chunked).then(|| refusal(501, "Transfer-Encoding", "must be chunked and nothing else"))
}

/// An absolute path, an absolute URI or the `*` of `OPTIONS`. Pingora derives some path from any other target.
fn is_target(target: &[u8]) -> bool {
    let begins = |with: &[u8]| target.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    target == b"*" || [&b"/"[..], b"http://", b"https://"].into_iter().any(begins)
}

/// Whether a head that Pingora has parsed has a `Content-Length`. Pingora rejects folded lines and blanks after names.
fn has_length(head: &[u8]) -> bool {
    let name = |line: &[u8]| line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:"));
    head.split(|byte| *byte == b'\n').skip(1).any(name)
}

fn refusal(status: u16, field: &str, detail: &str) -> Answer {
    let (name, title) = match status {
        501 => ("not-implemented", "Not implemented"),
        _ => ("bad-request", "Bad request"),
    };
    Answer::problem(status, name, title, &format!("{field} {detail}"), json!({ "field": field }))
}
