//! Keys that sign tokens, from files: a secret, a public key in PEM, or a key set (JWKS, RFC 7517).

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};

/// RFC 7518, 3.2: at least the length of HMAC-SHA256's output, in bytes.
const SECRET_MIN: usize = 32;
const SECRET_MAX: usize = 1024;
/// RFC 7518, 3.3: 2048 bits, in bytes.
const MODULUS_MIN: usize = 256;
const ED25519_LEN: usize = 32;

/// The signature algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: a party that can verify can also sign.
    Hs256,
    /// Ed25519.
    EdDsa,
    /// RSA (PKCS #1 1.5) with SHA-256.
    Rs256,
}

impl Algorithm {
    /// The name in tokens.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Hs256 => Self::HS256,
            Algorithm::EdDsa => Self::EdDSA,
            Algorithm::Rs256 => Self::RS256,
        }
    }
}

/// A key and the one algorithm that it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: Option<String>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Secret(Vec<u8>),
    Ed25519(Vec<u8>),
    /// A public key in PKCS #1 form.
    Rsa(Vec<u8>),
    RsaNumbers {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// Why a text is not a usable key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A PEM key given as a secret.
    #[error("is a PEM key, which is not a secret: anyone can have a public key")]
    SecretIsPem,
    /// A weak secret, or none.
    #[error("must contain 32 to 1024 visible ASCII characters (its content is not shown because it may be a secret)")]
    SecretUnfit,
    /// An unknown kind of key.
    #[error("must contain a public Ed25519 or RSA key in PEM")]
    NoPublicKey,
    /// RSA, but too short.
    #[error("is an RSA key of fewer than 2048 bits")]
    Short,
    /// Not a key set.
    #[error("must contain a JSON Web Key Set (RFC 7517)")]
    NoSet,
}

impl Key {
    /// A secret, without surrounding white space.
    ///
    /// # Errors
    /// If it is too weak or not a secret.
    pub fn secret(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if has_pem(text.as_bytes()) {
            return Err(KeyError::SecretIsPem);
        }
        let fits = (SECRET_MIN..=SECRET_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits {
            return Err(KeyError::SecretUnfit);
        }
        Ok(Self { id: None, material: Material::Secret(text.as_bytes().to_vec()) })
    }

    /// A public key in PEM.
    ///
    /// # Errors
    /// If it is not a public key, or too weak.
    pub fn public(pem: &[u8]) -> Result<Self, KeyError> {
        let key = DecodingKey::from_ed_pem(pem).or_else(|_| DecodingKey::from_rsa_pem(pem));
        let key = key.map_err(|_| KeyError::NoPublicKey)?;
        let DecodingKeyKind::SecretOrDer(bytes) = key.kind() else { return Err(KeyError::NoPublicKey) };
        let material = match key.family() {
            jsonwebtoken::AlgorithmFamily::Ed if bytes.len() == ED25519_LEN => Material::Ed25519(bytes.clone()),
            // The numbers and a few bytes around them.
            jsonwebtoken::AlgorithmFamily::Rsa if bytes.len() > MODULUS_MIN => Material::Rsa(bytes.clone()),
            jsonwebtoken::AlgorithmFamily::Rsa => return Err(KeyError::Short),
            _ => return Err(KeyError::NoPublicKey),
        };
        Ok(Self { id: None, material })
    }

    /// The keys of a set that are for signing with one of `algorithms`. Published sets contain keys of all kinds; the
    /// others and those that are too weak are left out.
    ///
    /// # Errors
    /// If it is not a key set.
    pub fn set(json: &[u8], algorithms: &[Algorithm]) -> Result<Vec<Self>, KeyError> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| KeyError::NoSet)?;
        let keys = set.keys.iter().filter_map(Self::of_set);
        Ok(keys.filter(|key| algorithms.contains(&key.algorithm())).collect())
    }

    fn of_set(jwk: &Jwk) -> Option<Self> {
        let is_for_signing = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| is_for_signing)?;
        let material = match (&jwk.algorithm, key.kind()) {
            (AlgorithmParameters::RSA(_), DecodingKeyKind::RsaModulusExponent { n, e }) if n.len() >= MODULUS_MIN => {
                Material::RsaNumbers { n: n.clone(), e: e.clone() }
            }
            (AlgorithmParameters::OctetKey(_), DecodingKeyKind::SecretOrDer(secret))
                if secret.len() >= SECRET_MIN && !has_pem(secret) =>
            {
                Material::Secret(secret.clone())
            }
            (AlgorithmParameters::OctetKeyPair(pair), DecodingKeyKind::SecretOrDer(bytes))
                if pair.curve == EllipticCurve::Ed25519 && bytes.len() == ED25519_LEN =>
            {
                Material::Ed25519(bytes.clone())
            }
            _ => return None,
        };
        let key = Self { id: jwk.common.key_id.clone(), material };
        // A key that names its purpose is for nothing else.
        let fits = jwk.common.key_algorithm.is_none_or(|says| says.to_string() == key.algorithm().name());
        fits.then_some(key)
    }

    /// The key id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Secret(_) => Algorithm::Hs256,
            Material::Ed25519(_) => Algorithm::EdDsa,
            Material::Rsa(_) | Material::RsaNumbers { .. } => Algorithm::Rs256,
        }
    }

    pub(super) fn decoding_key(&self) -> DecodingKey {
        match &self.material {
            Material::Secret(secret) => DecodingKey::from_secret(secret),
            Material::Ed25519(bytes) => DecodingKey::from_ed_der(bytes),
            Material::Rsa(bytes) => DecodingKey::from_rsa_der(bytes),
            Material::RsaNumbers { n, e } => DecodingKey::from_rsa_raw_components(n, e),
        }
    }
}

/// Whether a secret contains a PEM key: a public key is public, so its text must never check an HMAC.
fn has_pem(secret: &[u8]) -> bool {
    memchr::memmem::find(secret, b"-----BEGIN").is_some()
}

/// Hides the key, so that settings may be logged.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}
