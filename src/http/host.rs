//! The `Host` of a request: its syntax and its name.

/// For every byte, whether a name may contain it. Checked for each byte of every host.
static IN_NAMES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let is_mark = matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        table[byte as usize] = byte.is_ascii_alphanumeric() || is_mark;
        byte += 1;
    }
    table
};

/// Whether a `Host` field is valid: a name or an address, optionally with a port (RFC 9110, 7.2).
///
/// Narrower than RFC 3986 in two ways: it must not be empty, since an `http` target always has a host, and it must not
/// contain percent-encoding, which only some readers decode.
#[must_use]
pub fn is_host(field: &[u8]) -> bool {
    let name_end = if field.first() == Some(&b'[') {
        let is_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
        match field[1..].iter().position(|byte| !is_address(byte)) {
            Some(len @ 2..) if field[1 + len] == b']' => len + 2,
            _ => return false,
        }
    } else {
        field.iter().position(|byte| !IN_NAMES[usize::from(*byte)]).unwrap_or(field.len())
    };
    match &field[name_end..] {
        [] => name_end > 0,
        [b':', port @ ..] => name_end > 0 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The name in a `Host` field: without the port (RFC 9110, 7.2) and without the dot that ends an absolute name.
#[must_use]
pub fn name(field: &str) -> &str {
    // The colons inside an IPv6 literal are within brackets, so only one after the bracket starts a port.
    let port = match field.rfind(']') {
        Some(bracket) => field[bracket..].find(':').map(|colon| bracket + colon),
        None => field.find(':'),
    };
    let name = port.map_or(field, |colon| &field[..colon]);
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_perhaps_with_a_port() {
        for host in ["a", "a.b.", "a_b-c.example:8080", "127.0.0.1:", "[::1]", "[::ffff:10.0.0.1]:80", "(a)~!$&'*+,;=b"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a/b", "a/", "/", "a b", "a@b", "a?b", "a#b", "a\\b", "a%2fb", "a:b", "a:80:80", "a:+80", "a]",
            "[a", "[]", "[:", "[::1", "[::1]a", "[::1]:a", "[::1]]", "[x]", "a\t", "ü", "a\"", "a<b>",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
