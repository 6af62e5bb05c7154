//! Verifies that a delivery was signed with the shared secret within the last five minutes.

use std::path::PathBuf;

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Header with the signature: `t=UNIX_SECONDS,v1=HEX`.
pub const HEADER: &str = "spikegate-signature";

/// Maximum difference between the signature's time and this machine's clock, in seconds.
pub const WINDOW_S: u64 = 300;

/// Maximum length of the header in bytes.
const HEADER_MAX: usize = 1024;

/// The secret file that edges and order services share. The edge creates it at its first start, and operators can
/// replace it; therefore it is read for every delivery.
#[derive(Debug, Clone)]
pub struct SecretFile(PathBuf);

/// The secret cannot be read. The delivery may be valid and must be sent again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret from {path}: {why}")]
pub struct SecretError {
    path: String,
    why: String,
}

/// Why a signature is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The request has no signature header, or several.
    #[error("the request must have exactly one Spikegate-Signature header")]
    Missing,
    /// The header has the wrong format.
    #[error("Spikegate-Signature must be t=UNIX_SECONDS,v1=HEX, with 64 hexadecimal digits")]
    Malformed,
    /// The time is too far in the past or in the future.
    #[error("Spikegate-Signature: t differs by more than 5 minutes from this machine's clock")]
    Outdated,
    /// The secret or the body differs.
    #[error("Spikegate-Signature does not match the body: the secrets differ, or the body was modified in transit")]
    Wrong,
}

impl SecretFile {
    /// Refers to the file; it need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Reads the secret: the content of the file without surrounding white space.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is empty.
    pub fn read(&self) -> Result<Vec<u8>, SecretError> {
        let fault = |why: String| SecretError { path: self.0.display().to_string(), why };
        let content = std::fs::read(&self.0).map_err(|error| fault(error.to_string()))?;
        let secret = content.trim_ascii();
        if secret.is_empty() { Err(fault("it is empty".to_owned())) } else { Ok(secret.to_vec()) }
    }
}

/// Checks the header against the body; `now_s` is this machine's clock in seconds since 1970. The comparison takes
/// constant time.
///
/// # Errors
///
/// See [`SignatureError`].
pub fn check(headers: &HeaderMap, body: &[u8], secret: &[u8], now_s: u64) -> Result<(), SignatureError> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(SignatureError::Missing) };
    let value = value.to_str().ok().filter(|value| value.len() <= HEADER_MAX).ok_or(SignatureError::Malformed)?;
    let mut time = None;
    let mut signatures = Vec::new();
    for member in value.split(',') {
        match member.trim().split_once('=') {
            Some(("t", text)) if time.is_none() => time = Some(text),
            Some(("v1", hex)) => signatures.push(bytes(hex).ok_or(SignatureError::Malformed)?),
            // Later versions.
            Some((name, _)) if name != "t" => {}
            _ => return Err(SignatureError::Malformed),
        }
    }
    let time = time.ok_or(SignatureError::Malformed)?;
    let seconds: u64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    if signatures.is_empty() {
        return Err(SignatureError::Malformed);
    }
    if seconds.abs_diff(now_s) > WINDOW_S {
        return Err(SignatureError::Outdated);
    }
    let mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| SignatureError::Wrong)?;
    let mac = mac.chain_update(time).chain_update(b".").chain_update(body);
    // Edges send two signatures while a secret is being replaced.
    let fits = signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok());
    if fits { Ok(()) } else { Err(SignatureError::Wrong) }
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"a-secret-of-some-length";
    const BODY: &[u8] = br#"{"events":[]}"#;
    /// Made with `printf '%s' '1700000000.{"events":[]}' | openssl dgst -sha256 -hmac a-secret-of-some-length`.
    const SIGNATURE: &str = "2743e9b14709f25f8a7598d4f6b3a50a81297dfed45eef98adaf11da6507802f";
    const NOW_S: u64 = 1_700_000_000;

    fn checked(values: &[&str], body: &[u8], secret: &[u8], now_s: u64) -> Result<(), SignatureError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().expect("a header's value"));
        }
        check(&headers, body, secret, now_s)
    }

    #[test]
    fn what_openssl_signs_is_taken_for_five_minutes() {
        let signed = format!("t={NOW_S},v1={SIGNATURE}");
        for now_s in [NOW_S, NOW_S - 300, NOW_S + 300] {
            assert_eq!(checked(&[&signed], BODY, SECRET, now_s), Ok(()));
        }
        for now_s in [NOW_S - 301, NOW_S + 301, 0, u64::MAX] {
            assert_eq!(checked(&[&signed], BODY, SECRET, now_s), Err(SignatureError::Outdated));
        }
        let upper = format!("t={NOW_S}, v1={}", SIGNATURE.to_uppercase());
        assert_eq!(checked(&[&upper], BODY, SECRET, NOW_S), Ok(()));
        let rotated = format!("v0=old,t={NOW_S},v1={},v1={SIGNATURE}", "0".repeat(64));
        assert_eq!(checked(&[&rotated], BODY, SECRET, NOW_S), Ok(()));
    }

    #[test]
    fn anything_else_is_not() {
        let signed = format!("t={NOW_S},v1={SIGNATURE}");
        assert_eq!(checked(&[&signed], b"{}", SECRET, NOW_S), Err(SignatureError::Wrong));
        assert_eq!(checked(&[&signed], BODY, b"another-secret", NOW_S), Err(SignatureError::Wrong));
        // The time is signed too.
        let later = format!("t={},v1={SIGNATURE}", NOW_S + 1);
        assert_eq!(checked(&[&later], BODY, SECRET, NOW_S), Err(SignatureError::Wrong));
        assert_eq!(checked(&[], BODY, SECRET, NOW_S), Err(SignatureError::Missing));
        assert_eq!(checked(&[&signed, &signed], BODY, SECRET, NOW_S), Err(SignatureError::Missing));
        let malformed = [
            String::new(),
            "t".to_owned(),
            format!("t={NOW_S}"),
            format!("v1={SIGNATURE}"),
            format!("t=-1,v1={SIGNATURE}"),
            format!("t=x,v1={SIGNATURE}"),
            format!("t={NOW_S},t={NOW_S},v1={SIGNATURE}"),
            format!("t={NOW_S},v1={}", &SIGNATURE[1..]),
            format!("t={NOW_S},v1=+{}", &SIGNATURE[1..]),
            format!("t={NOW_S},v1={SIGNATURE},{}", "x".repeat(1024)),
        ];
        for value in malformed {
            assert_eq!(checked(&[&value], BODY, SECRET, NOW_S), Err(SignatureError::Malformed), "{value}");
        }
    }
}
