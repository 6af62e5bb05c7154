//! Invariants of every forwarding header, whatever its bytes.

use std::net::Ipv4Addr;

use super::*;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const OTHER_PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// The lines are the values of one header. What one of our proxies adds to the end, in the last line or in one of its
/// own, is what counts, whatever stands in front of it; and lists of addresses alone are read as a list is.
pub fn check(bytes: &[u8]) {
    let lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for header in [AddressHeader::XForwardedFor, AddressHeader::Forwarded, AddressHeader::XRealIp] {
        let ask = |lines: &[Vec<u8>]| client(header, PEER, &Lines { header, lines: lines.to_vec() }, is_ours);
        let before = ask(&lines);
        let added = |address: IpAddr| {
            let entry = if header == AddressHeader::Forwarded { format!("for={address}") } else { address.to_string() };
            let mut longer = lines.clone();
            longer.last_mut().expect("a line").extend(format!(", {entry}").bytes());
            [longer, [&lines[..], &[entry.into_bytes()]].concat()]
        };
        for lines in added(CLIENT) {
            assert_eq!(ask(&lines), CLIENT, "{header:?}: {}", bytes.escape_ascii());
        }
        // A chain that is longer than what is read ends earlier with one entry more.
        if bytes.iter().filter(|byte| matches!(byte, b',' | b'\n')).count() < LINES_MAX - 1 {
            for lines in added(OTHER_PROXY) {
                let expected = if before == PEER { [PEER, OTHER_PROXY] } else { [before; 2] };
                assert!(expected.contains(&ask(&lines)), "{header:?}: {}", bytes.escape_ascii());
            }
            if let Some(expected) = by_list(bytes).filter(|_| header == AddressHeader::XForwardedFor) {
                assert_eq!(before, expected, "{}", bytes.escape_ascii());
            }
        }
    }
}

fn is_ours(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

/// Who asks by a list of nothing but addresses.
fn by_list(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?;
    let entries =
        text.split([',', '\n']).map(|entry| entry.trim_matches([' ', '\t'])).filter(|entry| !entry.is_empty());
    let addresses: Vec<IpAddr> = entries.map(|entry| entry.parse().ok()).collect::<Option<_>>()?;
    let chain: Vec<IpAddr> = [PEER].into_iter().chain(addresses.iter().rev().map(IpAddr::to_canonical)).collect();
    chain.iter().find(|address| !is_ours(**address)).or(chain.last()).copied()
}

struct Lines {
    header: AddressHeader,
    lines: Vec<Vec<u8>>,
}

impl Head for Lines {
    fn method(&self) -> &str {
        "GET"
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn headers<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a [u8])) {
        if name == self.header.name() {
            self.lines.iter().for_each(|line| each(line));
        }
    }
}
