//! What holds for every chunked body, whatever its bytes: the front door leaves it to Pingora, and Pingora ends it
//! where a reader of RFC 9112, 7.1 does.

use super::*;

const HEAD: &[u8] = b"POST /buy/ticket HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A body that Pingora takes as whole is the one that the reader finds. Pingora takes every body without extensions and
/// trailers that the reader finds.
pub fn check(bytes: &[u8]) {
    let request = [HEAD, bytes].concat();
    assert!(!matches!(parse(&request, &mut Room::default()), Parsed::Clear(_)), "{}", bytes.escape_ascii());
    match (body_by_pingora(&request), read(bytes)) {
        (Some(body), Some((expected, _))) => assert_eq!(body, expected, "{}", bytes.escape_ascii()),
        (Some(body), None) => panic!("{}: {}", body.escape_ascii(), bytes.escape_ascii()),
        (None, Some((_, is_plain))) => assert!(!is_plain, "{}", bytes.escape_ascii()),
        (None, None) => {}
    }
}

/// The body, and whether all of it is as RFC 9112 has it and without extensions and trailers. `None` if it is not whole
/// or not chunked.
///
/// Pingora (httparse) tolerates three things that the standard does not: white space before the end of the line, an
/// empty size, which is 0, and a lone LF in an extension. They do not reach a backend: Pingora writes chunks of its
/// own, without extensions. The test of smuggling sends all three.
fn read(mut rest: &[u8]) -> Option<(Vec<u8>, bool)> {
    let (mut body, mut is_plain) = (Vec::new(), true);
    let line = |rest: &mut &[u8]| {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = rest[..end].to_vec();
        *rest = &rest[end + 2..];
        Some(line)
    };
    loop {
        let size = line(&mut rest)?;
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extensions) = size.split_at(digits);
        is_plain &= (1..=16).contains(&digits.len()) && extensions.is_empty();
        let begin = extensions.iter().find(|byte| !b"\t ".contains(byte));
        if begin.is_some_and(|byte| *byte != b';') {
            return None;
        }
        let digits = if digits.is_empty() { b"0" } else { digits };
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    while !line(&mut rest)?.is_empty() {
        is_plain = false;
    }
    Some((body, is_plain))
}

/// The body that Pingora reads; nothing if it refuses it or wants more.
fn body_by_pingora(request: &[u8]) -> Option<Vec<u8>> {
    let reading = async {
        let mut session = HttpSession::new(Box::new(Cursor::new(Vec::new())));
        session.set_pipelined_prefix(BytesMut::from(request));
        session.read_request().await.ok()??;
        let mut body = Vec::new();
        while let Some(piece) = session.read_body_bytes().await.ok()? {
            body.extend(piece);
        }
        Some(body)
    };
    RUNTIME.with(|runtime| runtime.block_on(reading))
}
