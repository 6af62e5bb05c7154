//! Escapes bytes from clients, so that they cannot end a field or a line or control a terminal.

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// As nginx's `escape=default`: `"`, `\` and everything but visible ASCII and space become `\xXX`.
pub fn nginx(out: &mut Vec<u8>, bytes: &[u8]) {
    let is_plain = |byte: u8| (0x20..=0x7E).contains(&byte) && byte != b'"' && byte != b'\\';
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| !is_plain(*byte)) {
        let byte = rest[at];
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// The content of a JSON string (RFC 8259, 7). Invalid UTF-8 becomes U+FFFD. C1 controls, DEL and JavaScript's line
/// separators are escaped as well.
pub fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(|byte| (0x20..0x7F).contains(byte) && *byte != b'"' && *byte != b'\\') {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                '\u{2028}' | '\u{2029}' => unicode(out, c as u32),
                c if c.is_control() => unicode(out, c as u32),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// `\uXXXX`; only for characters below U+10000.
fn unicode(out: &mut Vec<u8>, code: u32) {
    out.extend_from_slice(b"\\u");
    out.extend([12, 8, 4, 0].map(|shift| DIGITS[(code >> shift & 15) as usize]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by(escape: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, bytes);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn as_nginx_does_it() {
        assert_eq!(by(nginx, b"/a?b=c d~"), "/a?b=c d~");
        assert_eq!(by(nginx, b"a\"b\\c\r\n\0\x1b[2J\x7f"), r"a\x22b\x5Cc\x0D\x0A\x00\x1B[2J\x7F");
        assert_eq!(by(nginx, "é".as_bytes()), r"\xC3\xA9");
    }

    #[test]
    fn as_json_has_it() {
        assert_eq!(by(json, b"/a?b=c d~"), "/a?b=c d~");
        assert_eq!(by(json, b"a\"b\\c\r\n\0\x1b"), r#"a\"b\\c\u000D\u000A\u0000\u001B"#);
        assert_eq!(by(json, "抢é\u{85}\u{2028}\u{7f}".as_bytes()), "抢é\\u0085\\u2028\\u007F");
        assert_eq!(by(json, b"a\xffb\xc3"), "a\u{FFFD}b\u{FFFD}");
    }

    proptest! {
        #[test]
        fn nothing_gets_out_of_its_field(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = by(nginx, &bytes);
            prop_assert!(text.bytes().all(|byte| (0x20..0x7F).contains(&byte) && byte != b'"'));
            let line = format!("\"{}\"", by(json, &bytes));
            prop_assert!(!line.contains(char::is_control));
            let read: String = serde_json::from_str(&line).expect("JSON");
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }
    }
}
