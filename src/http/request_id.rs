//! Request ids: taken from a trusted proxy, or 128 unique bits.

use std::cell::Cell;
use std::fmt;

use http::HeaderName;

use crate::http::head::Head;

/// The longest id that is accepted from a proxy: room for a UUID, an AWS id or a `traceparent`.
const LONGEST: usize = 128;

/// The header that carries the ids of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIdHeader {
    /// As it is sent, in the spelling of the configuration.
    pub sent: String,
    /// As it is compared.
    pub name: HeaderName,
}

/// The id of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestId {
    /// Generated here; 32 hexadecimal digits.
    Made(u128),
    /// From a trusted proxy: 1 to 128 letters, digits and `-_.:=+/;@`, which have no special meaning in headers, logs
    /// or JSON.
    Given(Box<str>),
}

thread_local! {
    /// Per thread: a random part, and a counter with a random start.
    static NEXT: Cell<(u64, u64)> = Cell::new(rand::random());
}

impl RequestId {
    /// A new id. It is no secret: ids can be guessed from others.
    #[must_use]
    pub fn new() -> Self {
        let next = NEXT.try_with(|next| {
            let (thread, count) = next.get();
            next.set((thread, count.wrapping_add(1)));
            (thread, count)
        });
        let (thread, count) = next.unwrap_or_else(|_| rand::random());
        Self::Made((u128::from(thread) << 64) | u128::from(scattered(count)))
    }

    /// The id of a request: from its header if a trusted proxy sent it, otherwise a new one.
    #[must_use]
    pub fn of(header: &RequestIdHeader, by_proxy: bool, head: &dyn Head) -> Self {
        let mut given = None;
        if by_proxy {
            let mut count = 0;
            head.headers(header.name.as_str(), &mut |value| {
                count += 1;
                given = Self::given(value).filter(|_| count == 1);
            });
        }
        given.unwrap_or_else(Self::new)
    }

    fn given(value: &[u8]) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/;@".contains(byte);
        let fits = (1..=LONGEST).contains(&value.len()) && value.iter().all(is_plain);
        std::str::from_utf8(value).ok().filter(|_| fits).map(|text| Self::Given(text.into()))
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(id) => write!(f, "{id:032x}"),
            Self::Given(text) => f.write_str(text),
        }
    }
}

/// A bijection that spreads neighbours (the finalizer of SplitMix64), so that any digits of the ids divide logs evenly.
fn scattered(count: u64) -> u64 {
    let mut mixed = count;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::HeaderName;
    use pingora::http::RequestHeader;

    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let ids = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..10_000).map(|_| RequestId::new().to_string()).collect())).collect();
            threads.into_iter().flat_map(|ids| ids.join().unwrap_or_else(|_| Vec::new())).collect::<HashSet<_>>()
        });
        assert_eq!(ids.len(), 40_000);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn one_is_taken_from_a_proxy_of_ours_alone_and_only_if_it_is_harmless() {
        let header = RequestIdHeader { sent: "X-Request-Id".to_owned(), name: HeaderName::from_static("x-request-id") };
        let of = |by_proxy, values: &[&str]| {
            let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
            for value in values {
                head.append_header("X-Request-Id", *value).expect("a header");
            }
            match RequestId::of(&header, by_proxy, &head) {
                RequestId::Given(text) => Some(text.into_string()),
                RequestId::Made(_) => None,
            }
        };
        let long = "x".repeat(128);
        for good in ["a", "67e55044-10b1-426f-9247-bb680e5fe0c8", "Root=1-678912;Parent=5/6+7@h:8_9", &long] {
            assert_eq!(of(true, &[good]).as_deref(), Some(good));
            assert_eq!(of(false, &[good]), None);
        }
        for bad in [&[][..], &[""], &["a b"], &["a\"b"], &["é"], &["a", "a"], &["a", "b"], &[&(long.clone() + "x")]] {
            assert_eq!(of(true, bad), None, "{bad:?}");
        }
    }
}
