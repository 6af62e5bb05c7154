//! The PROXY protocol's header, versions 1 and 2, with which balancers of layer four say for whom they connect.
//!
//! After HAProxy's specification (doc/proxy-protocol.txt, 2020/03/05). What follows the addresses (TLVs) is skipped.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::AsyncReadExt;

use super::stream::Stream;

/// The longest header of version 1, with CR LF (2.1).
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// The longest header of version 2 that is taken. Its length field could say 64 KiB; addresses need 216 bytes at most,
/// and what clouds add to them is a few hundred.
const V2_MAX: usize = 4096;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The peer left, or the connection broke.
    #[error("the connection ended: {0}")]
    Ended(#[from] io::Error),
    /// What it sent is none.
    #[error("{0}")]
    Malformed(&'static str),
}

/// What some bytes are.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// The beginning of a header.
    Partial,
    /// A header of so many bytes, and the client's address. None: the connection is the peer's own, or of a kind that
    /// has no such address.
    Whole(Option<SocketAddr>, usize),
}

/// Reads the header with which `stream` begins, and says whose connection it is; none if it is the peer's own.
///
/// # Errors
/// If there is no header.
pub async fn receive(stream: &mut Stream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut bytes = Vec::with_capacity(V2_FIXED + 216);
    loop {
        if let Parsed::Whole(client, len) = parse(&bytes).map_err(HeaderError::Malformed)? {
            bytes.drain(..len);
            stream.put_back(bytes);
            return Ok(client);
        }
        // No more than a header can have is ever read, since each piece is looked at.
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(one, other)| one == other);
    if begins(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins(b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err("it does not begin with one")
    }
}

/// `PROXY TCP4 192.0.2.7 192.0.2.1 56324 443` and CR LF (2.1).
fn parse_v1(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let head = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = head.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < V1_MAX { Ok(Parsed::Partial) } else { Err("version 1: its line does not end") };
    };
    let line = std::str::from_utf8(&head[..end]).map_err(|_| "version 1: it is no ASCII")?;
    let mut words = line.split(' ').skip(1);
    let client = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(addresses_v1::<Ipv4Addr>(&mut words)?),
        Some("TCP6") => Some(addresses_v1::<Ipv6Addr>(&mut words)?),
        _ => return Err("version 1: its protocol is not TCP4, TCP6 or UNKNOWN"),
    };
    Ok(Parsed::Whole(client, end + 2))
}

/// The client's address and port out of source, destination and their ports.
fn addresses_v1<'a, A>(words: &mut impl Iterator<Item = &'a str>) -> Result<SocketAddr, &'static str>
where
    A: FromStr + Into<std::net::IpAddr>,
{
    let mut address = || words.next()?.parse::<A>().ok();
    let (source, destination) = (address(), address());
    let mut port = || words.next().and_then(port_v1);
    match (source, destination, port(), port(), words.next()) {
        (Some(source), Some(_), Some(port), Some(_), None) => Ok(SocketAddr::new(source.into(), port)),
        _ => Err("version 1: its addresses cannot be read"),
    }
}

/// Digits alone, and no zero before others.
fn port_v1(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

/// Twelve bytes of signature, version and command, family and protocol, length, addresses, and more (2.2).
fn parse_v2(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else { return Ok(Parsed::Partial) };
    let [.., version_and_command, family, high, low] = *fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        0x22..=0x2f => return Err("version 2: its command is not LOCAL or PROXY"),
        _ => return Err("version 2: its version is another"),
    };
    if V2_FIXED + len > V2_MAX {
        return Err("version 2: it is longer than 4096 bytes");
    }
    let Some(block) = rest.get(..len) else { return Ok(Parsed::Partial) };
    let short = "version 2: it is shorter than its addresses";
    let client = match family {
        _ if is_local => None,
        0x11 => {
            let (addresses, _) = block.split_first_chunk::<12>().ok_or(short)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses;
            Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
        }
        0x21 => {
            let (addresses, _) = block.split_first_chunk::<36>().ok_or(short)?;
            let (source, ports) = (addresses.first_chunk::<16>().ok_or(short)?, &addresses[32..]);
            Some(SocketAddr::from((*source, u16::from_be_bytes([ports[0], ports[1]]))))
        }
        // Unspecified, UDP, and Unix sockets: the connection is taken, and no address is known but the peer's.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err("version 2: its family or protocol is unknown"),
    };
    Ok(Parsed::Whole(client, V2_FIXED + len))
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(client: &str, len: usize) -> Result<Parsed, &'static str> {
        Ok(Parsed::Whole((!client.is_empty()).then(|| client.parse().expect("an address")), len))
    }

    /// A header of version 2.
    fn v2(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).expect("a length").to_be_bytes();
        [V2_SIGNATURE, &[version_and_command, family], &len, block].concat()
    }

    #[test]
    fn version_1() {
        let table = [
            ("PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\nGET /", whole("192.0.2.7:56324", 42)),
            ("PROXY TCP6 2001:db8::7 ::1 1 65535\r\n", whole("[2001:db8::7]:1", 36)),
            ("PROXY UNKNOWN\r\n", whole("", 15)),
            ("PROXY UNKNOWN ffff:: whatever\r\n", whole("", 31)),
            ("PROXY TCP4 192.0.2.7 192.0.2.1 0 0\r\n", whole("192.0.2.7:0", 36)),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
        for text in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP5 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.7  192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.07 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY \r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX)),
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn version_2() {
        let four = [192, 0, 2, 7, 192, 0, 2, 1, 0xdc, 0x04, 1, 187];
        assert_eq!(parse(&v2(0x21, 0x11, &four)), whole("192.0.2.7:56324", 28));
        assert_eq!(parse(&v2(0x21, 0x11, &[&four[..], &[0x03, 0, 1, 9]].concat())), whole("192.0.2.7:56324", 32));
        let six = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 80, 0, 81]].concat();
        assert_eq!(parse(&v2(0x21, 0x21, &six)), whole("[::1]:80", 52));
        assert_eq!(parse(&v2(0x20, 0x11, &four)), whole("", 28));
        assert_eq!(parse(&v2(0x20, 0xff, &[])), whole("", 16));
        assert_eq!(parse(&v2(0x21, 0x00, &[1, 2])), whole("", 18));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), whole("", 232));
        for wrong in [
            v2(0x11, 0x11, &four),
            v2(0x22, 0x11, &four),
            v2(0x21, 0x13, &four),
            v2(0x21, 0x11, &four[..11]),
            v2(0x21, 0x21, &six[..35]),
            v2(0x21, 0x00, &vec![0; V2_MAX - V2_FIXED + 1]),
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse(&v2(0x21, 0x00, &vec![0; V2_MAX - V2_FIXED])), whole("", V2_MAX));
    }

    proptest! {
        #[test]
        fn every_beginning_is_partial_and_what_follows_is_left(
            source: SocketAddr, more in proptest::collection::vec(any::<u8>(), 0..64), behind in any::<[u8; 8]>(),
        ) {
            let protocol = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let destination = if source.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
            let text = format!("PROXY {protocol} {} {destination} {} 443\r\n", source.ip(), source.port());
            let (family, addresses) = match source.ip() {
                std::net::IpAddr::V4(address) => (0x11, [address.octets().to_vec(), vec![1; 4]].concat()),
                std::net::IpAddr::V6(address) => (0x21, [address.octets().to_vec(), vec![1; 16]].concat()),
            };
            let block = [&addresses[..], &source.port().to_be_bytes(), &[1, 187], &more].concat();
            for header in [text.into_bytes(), v2(0x21, family, &block)] {
                for end in 0..header.len() {
                    prop_assert_eq!(parse(&header[..end]), Ok(Parsed::Partial));
                }
                let client = SocketAddr::new(source.ip(), source.port());
                prop_assert_eq!(parse(&[&header[..], &behind].concat()), Ok(Parsed::Whole(Some(client), header.len())));
            }
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), version in 0..3) {
            let begin: &[u8] = [&b""[..], b"PROXY TCP4 ", V2_SIGNATURE][version as usize];
            let _ = parse(&[begin, &bytes].concat());
        }
    }
}
