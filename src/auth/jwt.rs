//! Proves the buyer by a JSON Web Token (RFC 7519) that is signed with a key from the settings.
//!
//! A token is valid if one of our keys signed it, with the algorithm that belongs to the key and that the settings
//! allow; if it is meant for us (`aud`, and `iss` if the settings name issuers); and if the present time is between
//! `nbf` and `exp` (`exp` is required). A key is bound to one algorithm when it is read, so a public key can never be
//! used as an HMAC secret. A token with a critical header that we do not understand (`crit`) is refused (RFC 8725
//! describes the attacks).
//!
//! The library checks form, signature, times and audience; aws-lc-rs does the cryptography.

mod keys;

use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

pub use keys::{Algorithm, Key, KeyError};

use crate::ledger::buyer::is_buyer;

/// The requirements for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// The trusted keys.
    pub keys: Vec<Key>,
    /// The accepted issuers; empty accepts any issuer.
    pub issuers: Vec<String>,
    /// The accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// The tolerated clock difference.
    pub leeway: Duration,
    /// The claim that contains the buyer's id.
    pub claim: String,
}

/// Why a token is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It is not a token, or has a critical header that we do not understand.
    Malformed,
    /// None of our keys has its key id and algorithm.
    Key,
    /// Its signature does not match.
    Signature,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    Early,
    /// Its issuer is not accepted.
    Issuer,
    /// Its audience is not accepted.
    Audience,
    /// The buyer's id or another required claim is missing or invalid.
    Claim,
}

impl TokenError {
    /// The reason as a word, for the client.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim => "claim",
        }
    }
}

/// Checks tokens.
pub struct Verifier {
    keys: Vec<(Key, DecodingKey, Validation)>,
    claim: String,
}

impl Verifier {
    /// A verifier with these rules.
    #[must_use]
    pub fn new(rules: &TokenRules) -> Self {
        let prepare = |key: &Key| {
            let mut validation = Validation::new(key.algorithm().into());
            validation.leeway = rules.leeway.as_secs();
            validation.validate_nbf = true;
            validation.set_audience(&rules.audiences);
            let mut required = vec!["exp", "aud"];
            if !rules.issuers.is_empty() {
                validation.set_issuer(&rules.issuers);
                required.push("iss");
            }
            validation.set_required_spec_claims(&required);
            (key.clone(), key.decoding_key(), validation)
        };
        Self { keys: rules.keys.iter().map(prepare).collect(), claim: rules.claim.clone() }
    }

    /// The buyer that a token proves.
    ///
    /// # Errors
    /// Why the token is not valid.
    pub fn buyer(&self, token: &str) -> Result<String, TokenError> {
        // An unknown algorithm, `none` above all, makes the header invalid.
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let mut fault = TokenError::Key;
        for (key, decoding, validation) in &self.keys {
            let is_named = key.id().is_none_or(|own| header.kid.as_deref().is_none_or(|asked| own == asked));
            if jsonwebtoken::Algorithm::from(key.algorithm()) != header.alg || !is_named {
                continue;
            }
            match decode::<Map<String, Value>>(token, decoding, validation) {
                Ok(proven) => return self.id(&proven.claims).ok_or(TokenError::Claim),
                Err(error) => match fault_of(error.kind()) {
                    TokenError::Signature => fault = TokenError::Signature,
                    fault => return Err(fault),
                },
            }
        }
        Err(fault)
    }

    /// The buyer that a token claims, unverified: the one that [`Verifier::buyer`] would return if the token is valid.
    #[must_use]
    pub fn claimed(&self, token: &str) -> Option<String> {
        self.id(&insecure_decode_claims(token).ok()?)
    }

    fn id(&self, claims: &Map<String, Value>) -> Option<String> {
        match claims.get(&self.claim)? {
            Value::String(id) if is_buyer(id) => Some(id.clone()),
            Value::Number(id) if id.is_u64() => Some(id.to_string()),
            _ => None,
        }
    }
}

fn fault_of(error: &ErrorKind) -> TokenError {
    match error {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Early,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => TokenError::Claim,
        _ => TokenError::Malformed,
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
