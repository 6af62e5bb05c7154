//! What of a request is hashed to find its backend.

use std::net::IpAddr;

use pingora::http::RequestHeader;

use crate::config::HashKey;
use crate::http::head::Head;
use crate::upstream;

/// The hash of this of a request; none if the request has it not, or an empty one. Of several, the first counts.
pub fn hash(request: &RequestHeader, client: IpAddr, key: &HashKey) -> Option<u64> {
    let of = |bytes: Option<&[u8]>| bytes.filter(|bytes| !bytes.is_empty()).map(upstream::hash);
    match key {
        HashKey::ClientAddress => match client.to_canonical() {
            IpAddr::V4(address) => of(Some(&address.octets())),
            IpAddr::V6(address) => of(Some(&address.octets())),
        },
        HashKey::Uri => of(Some(request.raw_path())),
        HashKey::Path => of(request.raw_path().split(|byte| *byte == b'?').next()),
        HashKey::Query(name) => of(values(request.query().unwrap_or_default(), b'&', name).next()),
        HashKey::Header(name) => of(request.headers.get(name).map(|value| value.as_bytes())),
        HashKey::Cookie(name) => {
            let cookies = request.headers.get_all("cookie").iter();
            of(cookies.flat_map(|cookies| values(cookies.as_bytes(), b';', name)).next())
        }
    }
}

/// The values that this name has in `a=1&b=2` or `a=1; b=2`, as they were sent.
fn values<'a>(pairs: &'a [u8], between: u8, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    pairs.split(move |byte| *byte == between).filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..at] == *name.as_bytes()).then(|| &pair[at + 1..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str, headers: &[(&'static str, &str)], key: HashKey) -> Option<u64> {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).expect("a request");
        for (name, value) in headers {
            request.append_header(*name, *value).expect("a header");
        }
        hash(&request, "192.0.2.7".parse().expect("an address"), &key)
    }

    #[test]
    fn each_key_is_found() {
        let of = |target: &str, key| of(target, &[("X-User", "7"), ("Cookie", "a=1; id=7"), ("Cookie", "b=2")], key);
        let seven = Some(upstream::hash(b"7"));
        assert_eq!(of("/", HashKey::ClientAddress), Some(upstream::hash(&[192, 0, 2, 7])));
        assert_eq!(of("/a?b=c", HashKey::Uri), Some(upstream::hash(b"/a?b=c")));
        assert_eq!(of("/a?b=c", HashKey::Path), Some(upstream::hash(b"/a")));
        assert_eq!(of("/a?user=8&id=7&id=9", HashKey::Query("id".to_owned())), seven);
        assert_eq!(of("/", HashKey::Header("x-user".to_owned())), seven);
        assert_eq!(of("/", HashKey::Cookie("id".to_owned())), seven);
        assert_eq!(of("/", HashKey::Cookie("b".to_owned())), Some(upstream::hash(b"2")));
    }

    #[test]
    fn what_is_missing_or_empty_is_no_key() {
        for target in ["/", "/?", "/?id", "/?id=", "/?xid=7", "/?ID=7"] {
            assert_eq!(of(target, &[], HashKey::Query("id".to_owned())), None, "{target}");
        }
        assert_eq!(of("/", &[("X-User", "")], HashKey::Header("x-user".to_owned())), None);
        assert_eq!(of("/", &[("Cookie", "id; xid=7")], HashKey::Cookie("id".to_owned())), None);
    }
}
