//! Who buys, as a token proves it: a JSON Web Token (RFC 7519), signed by a key that the settings name.
//!
//! A token is good if one of our keys signed it, with the algorithm that the key is for and that the settings allow, if
//! it is meant for us (`aud`, and `iss` if the settings say it), and if its time has come (`nbf`) and is not over
//! (`exp`, which it must have). Every key belongs to one algorithm from the moment it is read, so a token cannot have
//! its signature checked in a way that the key was not made for: a public key is never a secret. A token that demands
//! to be understood in a way that we do not know (`crit`) is refused (RFC 8725 has the attacks).
//!
//! The library checks form, signature, times and audience; its cryptography is that of aws-lc-rs.

mod keys;

use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

pub use keys::{Algorithm, Key, KeyError};

use crate::ledger::buyer::is_buyer;

/// What a token has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// Whose signatures count.
    pub keys: Vec<Key>,
    /// Who may have made it; empty: whoever has one of the keys.
    pub issuers: Vec<String>,
    /// For whom it may be meant; at least one.
    pub audiences: Vec<String>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// The claim that holds the buyer's id.
    pub claim: String,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It is no token, or has a header that we may not ignore.
    Malformed,
    /// None of our keys is the one that it names, or is for its algorithm.
    Key,
    /// Its signature is not that of our key.
    Signature,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    Early,
    /// Somebody else made it.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It lacks the buyer's id, or another claim, or has one that makes no sense.
    Claim,
}

impl TokenError {
    /// In a word, for whoever sent it.
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
    /// One that checks by these rules.
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

    /// The buyer whom a token proves.
    ///
    /// # Errors
    /// Why it proves nobody.
    pub fn buyer(&self, token: &str) -> Result<String, TokenError> {
        // An algorithm that nobody knows, `none` above all, is no header at all.
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

    /// The buyer whom a token names, proven by nothing: whom [`Verifier::buyer`] would give if it is good.
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
