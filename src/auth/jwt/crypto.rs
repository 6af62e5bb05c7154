//! The arithmetic behind signatures: ring's for public keys, which TLS has here too, and the HMAC that deliveries are signed
//! with. Nothing is ever signed here.

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use sha2::Sha256;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes this the library's arithmetic, once.
pub fn install() {
    // That it is there already is as good: nobody else in this program installs one.
    let _ = PROVIDER.install_default();
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    Ok(Box::new(Check { algorithm: *algorithm, key: key.clone() }))
}

struct Check {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let is_good = match (self.algorithm, self.key.family(), self.key.kind()) {
            (Algorithm::HS256, AlgorithmFamily::Hmac, SecretOrDer(secret)) => {
                Hmac::<Sha256>::new_from_slice(secret).is_ok_and(|mut mac| {
                    mac.update(message);
                    // In a time that says nothing of where the two differ.
                    mac.verify_slice(signed).is_ok()
                })
            }
            (Algorithm::EdDSA, AlgorithmFamily::Ed, SecretOrDer(key)) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signed).is_ok()
            }
            (Algorithm::RS256, AlgorithmFamily::Rsa, SecretOrDer(key)) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signed).is_ok()
            }
            (Algorithm::RS256, AlgorithmFamily::Rsa, RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signed).is_ok()
            }
            // A key that is for something else.
            _ => false,
        };
        if is_good { Ok(()) } else { Err(signature::Error::new()) }
    }
}
