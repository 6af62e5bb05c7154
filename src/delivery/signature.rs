//! The signature that proves to the order service that a delivery comes from an edge: HMAC-SHA256 (RFC 2104) of time
//! and body.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::auth::secret::Secret;

/// The header that carries it.
pub const HEADER: &str = "Spikegate-Signature";

/// The header's value, `t=UNIX_SECONDS,v1=HEX`: HEX is the HMAC of `UNIX_SECONDS`, a dot and the body.
#[must_use]
pub fn sign(secret: &Secret, unix_seconds: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("HMAC takes keys of any length");
    mac.update(unix_seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut value = format!("t={unix_seconds},v1=");
    for byte in mac.finalize().into_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(value, "{byte:02x}");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `printf '%s' '1700000000.{"events":[]}' | openssl dgst -sha256 -hmac SECRET`.
    #[test]
    fn it_is_what_openssl_makes() {
        let secret = Secret::of("a-secret-of-some-length").expect("it fits");
        assert_eq!(
            sign(&secret, 1_700_000_000, br#"{"events":[]}"#),
            "t=1700000000,v1=2743e9b14709f25f8a7598d4f6b3a50a81297dfed45eef98adaf11da6507802f"
        );
    }

    #[test]
    fn time_body_and_secret_all_matter() {
        let secret = Secret::of("a-secret-of-some-length").expect("it fits");
        let other = Secret::of("another-secret-of-length").expect("it fits");
        let hex = |value: String| value.split_once("v1=").map(|(_, hex)| hex.to_owned());
        let signed = hex(sign(&secret, 12, b"3.x"));
        for different in [sign(&secret, 1, b"23.x"), sign(&secret, 12, b"3.y"), sign(&other, 12, b"3.x")] {
            assert_ne!(hex(different), signed);
        }
    }
}
