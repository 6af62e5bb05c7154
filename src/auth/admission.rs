//! Admission tokens: a purchase needs a token that the shop issued for this sale, for a period, and optionally for one
//! buyer. See docs/integrating/admission.md.
//!
//! A token is `v1.WHOM.FROM.UNTIL.MAC`. WHOM is `any` or `own`, FROM and UNTIL are Unix times in seconds, and MAC is 64
//! hexadecimal digits: HMAC-SHA256 (RFC 2104) of everything before its dot, a line feed and the sale's id, and for
//! `own` another line feed and the buyer's id.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::auth::secret::Secret;

/// The header that carries it.
pub const HEADER: &str = "X-Admission";
/// The query parameter that may carry it instead.
pub const PARAMETER: &str = "admission";

/// The content of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass<'a> {
    /// The sale's id.
    pub sale: &'a str,
    /// The only buyer who may use it, if any; 1 to 128 bytes.
    pub buyer: Option<&'a str>,
    /// The first second of its validity, as a Unix time.
    pub from_s: u64,
    /// The first second after its validity.
    pub until_s: u64,
}

/// Why a purchase is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionRefusal {
    /// There is no token.
    #[error("an admission token is missing")]
    Missing,
    /// The token is not valid for this sale and buyer.
    #[error("the admission token is not valid for this sale and buyer")]
    Invalid,
    /// The token is not valid for this many seconds yet.
    #[error("the admission token is not valid for another {0} seconds")]
    Early(u64),
    /// The token has expired.
    #[error("the admission token has expired")]
    Expired,
}

/// The keys that may sign tokens of a sale: the present one, and others during a key change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(pub Vec<Secret>);

impl Pass<'_> {
    /// Creates the token.
    #[must_use]
    pub fn sign(&self, key: &Secret) -> String {
        let whom = if self.buyer.is_some() { "own" } else { "any" };
        let mut token = format!("v1.{whom}.{}.{}", self.from_s, self.until_s);
        let mac = mac(key, &token, self.sale, self.buyer).finalize().into_bytes();
        token.push('.');
        for byte in mac {
            // Writing to a String cannot fail.
            let _ = write!(token, "{byte:02x}");
        }
        token
    }
}

impl Keys {
    /// Checks whether a token admits `buyer` to this sale now.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(
        &self,
        token: Option<&str>,
        sale: &str,
        buyer: Option<&str>,
        now_s: u64,
    ) -> Result<(), AdmissionRefusal> {
        let (signed, mac_hex) =
            token.ok_or(AdmissionRefusal::Missing)?.rsplit_once('.').ok_or(AdmissionRefusal::Invalid)?;
        let mut parts = signed.split('.');
        let (version, whom, from, until) = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(from_s), Some(until_s), None) = (seconds(from), seconds(until), parts.next()) else {
            return Err(AdmissionRefusal::Invalid);
        };
        let buyer = match (version, whom, buyer) {
            (Some("v1"), Some("any"), _) => None,
            (Some("v1"), Some("own"), Some(buyer)) => Some(buyer),
            _ => return Err(AdmissionRefusal::Invalid),
        };
        let given = digest(mac_hex).ok_or(AdmissionRefusal::Invalid)?;
        // In constant time.
        let is_ours = |key| mac(key, signed, sale, buyer).verify_slice(&given).is_ok();
        match () {
            () if !self.0.iter().any(is_ours) => Err(AdmissionRefusal::Invalid),
            () if now_s < from_s => Err(AdmissionRefusal::Early(from_s - now_s)),
            () if now_s >= until_s => Err(AdmissionRefusal::Expired),
            () => Ok(()),
        }
    }
}

fn mac(key: &Secret, signed: &str, sale: &str, buyer: Option<&str>) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of any length");
    for part in [signed, "\n", sale] {
        mac.update(part.as_bytes());
    }
    if let Some(buyer) = buyer {
        mac.update(b"\n");
        mac.update(buyer.as_bytes());
    }
    mac
}

/// Digits only, and few enough for a number.
fn seconds(text: Option<&str>) -> Option<u64> {
    let text = text?;
    let is_number = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// 64 lower-case hexadecimal digits.
fn digest(hex: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes: &[u8; 64] = hex.as_bytes().try_into().ok()?;
    let mut digest = [0; 32];
    for (to, two) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        *to = digit(two[0])? << 4 | digit(two[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: u64 = 1_764_590_400;
    const UNTIL: u64 = 1_764_594_000;

    fn key(text: &str) -> Secret {
        Secret::of(text).expect("it fits")
    }

    fn pass(buyer: Option<&str>) -> Pass<'_> {
        Pass { sale: "ticket", buyer, from_s: FROM, until_s: UNTIL }
    }

    fn keys() -> Keys {
        Keys(vec![key("a-secret-of-some-length"), key("the-key-before-this-one")])
    }

    /// Made with `printf 'v1.own.1764590400.1764594000\nticket\nann' | openssl dgst -sha256 -hmac SECRET`, as in
    /// docs/integrating/admission.md.
    #[test]
    fn it_is_what_openssl_makes() {
        assert_eq!(
            pass(Some("ann")).sign(&keys().0[0]),
            "v1.own.1764590400.1764594000.e5240fc1df6fb48a6fd0ebebb052c854733f36350ad7ad4ff78adcad3e32ef7a"
        );
        assert_eq!(
            pass(None).sign(&keys().0[0]),
            "v1.any.1764590400.1764594000.a5c023b7282a7dc5390351099c4cba6e0029777b1b07619796b070513d8d6740"
        );
    }

    #[test]
    fn it_admits_in_its_time_and_only_whom_it_was_made_for() {
        let check = |token: &str, sale, buyer, now_s| keys().check(Some(token), sale, buyer, now_s);
        for key in &keys().0 {
            let (any, own) = (pass(None).sign(key), pass(Some("ann")).sign(key));
            for now_s in [FROM, UNTIL - 1] {
                assert_eq!(check(&any, "ticket", None, now_s), Ok(()));
                assert_eq!(check(&any, "ticket", Some("bob"), now_s), Ok(()));
                assert_eq!(check(&own, "ticket", Some("ann"), now_s), Ok(()));
                assert_eq!(check(&own, "ticket", Some("bob"), now_s), Err(AdmissionRefusal::Invalid));
                assert_eq!(check(&own, "ticket", None, now_s), Err(AdmissionRefusal::Invalid));
                assert_eq!(check(&any, "tickets", None, now_s), Err(AdmissionRefusal::Invalid));
            }
            assert_eq!(check(&any, "ticket", None, FROM - 7), Err(AdmissionRefusal::Early(7)));
            assert_eq!(check(&any, "ticket", None, UNTIL), Err(AdmissionRefusal::Expired));
            // The validity is only reported to those who may use the token.
            assert_eq!(check(&own, "ticket", Some("bob"), UNTIL), Err(AdmissionRefusal::Invalid));
        }
        assert_eq!(keys().check(None, "ticket", None, FROM), Err(AdmissionRefusal::Missing));
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let own = pass(Some("ann")).sign(&keys().0[0]);
        let check = |token: &str| keys().check(Some(token), "ticket", Some("ann"), FROM);
        assert_eq!(check(&own), Ok(()));
        for at in 0..own.len() {
            for other in ["0", "1", ".", "z", "A", "\n"] {
                let mut changed = own.clone();
                changed.replace_range(at..=at, other);
                assert!(changed == own || check(&changed) == Err(AdmissionRefusal::Invalid), "{changed}");
            }
            assert_eq!(check(&own[..at]), Err(AdmissionRefusal::Invalid));
        }
        let others = pass(Some("ann")).sign(&key("a-secret-of-another-shop"));
        assert_eq!(check(&others), Err(AdmissionRefusal::Invalid));
        for token in ["", ".", "v1.any.1.2.", "v1.any.-1.99999999999.00", &format!("{own}."), &own.to_uppercase()] {
            assert_eq!(check(token), Err(AdmissionRefusal::Invalid), "{token}");
        }
    }
}
