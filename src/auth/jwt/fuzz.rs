//! Invariants of every token, whatever its text.

use std::cell::OnceCell;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The public key of the first test of RFC 8032, 7.1.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
const AUDIENCE: &str = "tickets";
const LEEWAY: Duration = Duration::from_secs(5);

/// The bytes are tried as a token, and as the header and the payload (a line each) of tokens that are signed here. A
/// token proves a buyer only if its signature is that of the secret and its header and claims are what the rules
/// demand; with any other signature it proves nobody.
pub fn check(bytes: &[u8]) {
    thread_local! {
        static VERIFIERS: OnceCell<[Verifier; 2]> = const { OnceCell::new() };
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    VERIFIERS.with(|verifiers| {
        let [all, public] = verifiers.get_or_init(|| {
            let keys = [Key::secret(SECRET), Key::public(PUBLIC.as_bytes())].map(|key| key.expect("a key"));
            let public = [keys[1].clone()];
            [verifier(keys.to_vec()), verifier(public.to_vec())]
        });
        assert!(public.buyer(text).is_err(), "nobody has the private key: {text:?}");
        // The secret is not in the corpus, but a fuzzer may be given a token that was signed with it.
        if let Ok(buyer) = all.buyer(text) {
            let (message, signature) = text.rsplit_once('.').expect("a signature");
            assert_eq!(signature, base64url(&mac(SECRET.as_bytes(), message)), "{text:?}");
            assert_eq!(all.claimed(text), Some(buyer));
        }
        let (header, payload) = text.split_once('\n').unwrap_or((r#"{"alg":"HS256"}"#, text));
        let message = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
        let signed = |secret: &str| format!("{message}.{}", base64url(&mac(secret.as_bytes(), &message)));
        let token = signed(SECRET);
        if let Ok(buyer) = all.buyer(&token) {
            is_proven(&buyer, header, payload);
            assert_eq!(all.claimed(&token), Some(buyer));
            let cut = all.buyer(&token[..token.len() - 3]);
            assert_eq!(cut, Err(TokenError::Signature), "{token}");
        }
        for secret in [PUBLIC, PUBLIC.trim(), ""] {
            let forged = signed(secret);
            assert!(all.buyer(&forged).is_err() && public.buyer(&forged).is_err(), "{forged}");
        }
    });
}

fn verifier(keys: Vec<Key>) -> Verifier {
    let audiences = vec![AUDIENCE.to_owned()];
    Verifier::new(&TokenRules { keys, issuers: Vec::new(), audiences, leeway: LEEWAY, claim: "sub".to_owned() })
}

/// Asserts that a second JSON reader finds the required header and payload.
fn is_proven(buyer: &str, header: &str, payload: &str) {
    let [header, payload]: [Value; 2] = [header, payload].map(|text| serde_json::from_str(text).expect("JSON"));
    assert_eq!(header["alg"], "HS256");
    assert!(header.get("crit").is_none_or(Value::is_null), "{header}");
    match &payload["sub"] {
        Value::String(id) => assert_eq!(id, buyer),
        id => assert_eq!(id.to_string(), buyer),
    }
    assert!(is_buyer(buyer), "{buyer:?}");
    match &payload["aud"] {
        Value::Array(audiences) => assert!(audiences.iter().any(|audience| audience == AUDIENCE), "{payload}"),
        audience => assert_eq!(audience, AUDIENCE),
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    // A second for the one that may have passed, one for rounding.
    let allowed = (LEEWAY + Duration::from_secs(2)).as_secs_f64();
    let time = |name: &str| payload[name].as_f64();
    assert!(time("exp").is_some_and(|end| end + allowed >= now.as_secs_f64()), "{payload}");
    assert!(time("nbf").is_none_or(|begin| begin - allowed <= now.as_secs_f64()), "{payload}");
}

fn mac(secret: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// RFC 4648, 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 3);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        text.extend((0..=three.len()).map(|at| char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize])));
    }
    text
}
