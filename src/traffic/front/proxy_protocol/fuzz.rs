//! What holds of every PROXY header, whatever its bytes.

use super::*;

/// A header is whole from its last byte on, and partial before it; what follows changes nothing. What is wrong stays
/// wrong. A header of version 1 says what its words say, and one of version 2 what its fields say.
pub fn check(bytes: &[u8]) {
    let shown = || bytes.escape_ascii();
    match parse(bytes) {
        Ok(Parsed::Whole(client, len)) => {
            assert!((15..=V2_MAX).contains(&len) && len <= bytes.len(), "{len}: {}", shown());
            for end in 0..len {
                assert_eq!(parse(&bytes[..end]), Ok(Parsed::Partial), "{end}: {}", shown());
            }
            assert_eq!(parse(&bytes[..len]), Ok(Parsed::Whole(client, len)), "{}", shown());
            assert_eq!(
                client,
                if bytes[0] == b'P' { by_words(&bytes[..len]) } else { by_fields(bytes) },
                "{}",
                shown()
            );
        }
        Ok(Parsed::Partial) => {
            assert!(bytes.len() < V2_MAX, "{}", shown());
            if bytes.first() == Some(&b'P') {
                assert!(bytes.len() < V1_MAX, "{}", shown());
            }
        }
        Err(why) => {
            for behind in [&b"\r\n"[..], b"\0", b"PROXY UNKNOWN\r\n"] {
                assert_eq!(parse(&[bytes, behind].concat()), Err(why), "{}", shown());
            }
        }
    }
}

/// The source of a whole line, as a text with as many words as it has to have.
fn by_words(line: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(line).expect("ASCII").strip_suffix("\r\n").expect("the end of a line");
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["PROXY", "TCP4", source, _, port, _] => Some(format!("{source}:{port}").parse().expect("an address")),
        ["PROXY", "TCP6", source, _, port, _] => Some(format!("[{source}]:{port}").parse().expect("an address")),
        ["PROXY", "UNKNOWN", ..] => None,
        _ => panic!("{line:?}"),
    }
}

/// The source of a header of version 2, by the offsets of its specification (2.2).
fn by_fields(header: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    match (header[12], header[13]) {
        (0x21, 0x11) => {
            let address: [u8; 4] = header[16..20].try_into().expect("four bytes");
            Some((address, port(24)).into())
        }
        (0x21, 0x21) => {
            let address: [u8; 16] = header[16..32].try_into().expect("sixteen bytes");
            Some((address, port(48)).into())
        }
        _ => None,
    }
}
