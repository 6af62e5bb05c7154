//! Tokens of buyers, signed with openssl and with no code of Spikegate.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A key, in a folder of its own.
pub struct Signer {
    folder: TempDir,
    algorithm: &'static str,
}

impl Signer {
    /// With a secret that both sides have.
    pub fn hs256() -> Self {
        Self::with_secret(&openssl(&["rand", "-hex", "32"], b""))
    }

    pub fn with_secret(secret: &[u8]) -> Self {
        let signer = Self { folder: TempDir::with_prefix("spikegate-signer-").unwrap(), algorithm: "HS256" };
        std::fs::write(signer.secret_file(), secret).unwrap();
        signer
    }

    pub fn eddsa() -> Self {
        Self::generated("EdDSA", &["-algorithm", "ed25519"])
    }

    pub fn rs256(bits: u32) -> Self {
        Self::generated("RS256", &["-algorithm", "rsa", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")])
    }

    fn generated(algorithm: &'static str, how: &[&str]) -> Self {
        let signer = Self { folder: TempDir::with_prefix("spikegate-signer-").unwrap(), algorithm };
        let private = signer.path("private.pem");
        openssl(&[&["genpkey", "-quiet", "-out", path(&private)], how].concat(), b"");
        openssl(&["pkey", "-in", path(&private), "-pubout", "-out", path(&signer.public_file())], b"");
        signer
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    pub fn secret_file(&self) -> PathBuf {
        self.path("secret")
    }

    /// The public key, in PEM.
    pub fn public_file(&self) -> PathBuf {
        self.path("public.pem")
    }

    /// The public key as a set has it (RFC 7517, 8037).
    pub fn jwk(&self, kid: &str) -> Value {
        let public = self.public_file();
        if self.algorithm == "EdDSA" {
            let der = openssl(&["pkey", "-pubin", "-in", path(&public), "-outform", "DER"], b"");
            let x = base64url(&der[der.len() - 32..]);
            return json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig" });
        }
        let said = openssl(&["rsa", "-pubin", "-in", path(&public), "-noout", "-modulus"], b"");
        let said = String::from_utf8(said).unwrap();
        let hex = said.trim().strip_prefix("Modulus=").unwrap();
        let n: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        json!({ "kty": "RSA", "n": base64url(&n), "e": "AQAB", "kid": kid, "alg": "RS256" })
    }

    /// A token with this header besides `alg`, and these claims.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let mut whole = json!({ "typ": "JWT", "alg": self.algorithm });
        whole.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
        let signed = unsigned(&whole, claims);
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", base64url(&signature))
    }

    /// A token for this buyer that is good for an hour.
    pub fn token_for(&self, buyer: &str) -> String {
        self.token(&json!({}), &json!({ "sub": buyer, "aud": "tickets", "exp": now_s() + 3600 }))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let private = self.path("private.pem");
        match self.algorithm {
            "HS256" => {
                let secret = std::fs::read_to_string(self.secret_file()).unwrap();
                let hex: String = secret.trim().bytes().map(|byte| format!("{byte:02x}")).collect();
                let key = format!("hexkey:{hex}");
                openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary"], message)
            }
            "RS256" => openssl(&["dgst", "-sha256", "-sign", path(&private), "-binary"], message),
            _ => {
                // It wants to know how long it is.
                let file = self.path("message");
                std::fs::write(&file, message).unwrap();
                openssl(&["pkeyutl", "-sign", "-inkey", path(&private), "-rawin", "-in", path(&file)], b"")
            }
        }
    }
}

/// The part of a token that is signed.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()))
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// RFC 4648, 5, without padding.
pub fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0_usize, |number, at| number << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        let digits = (0..=three.len()).map(|at| char::from(DIGITS[number >> (18 - 6 * at) & 63]));
        text.extend(digits);
    }
    text
}

/// The output of openssl for these bytes.
pub fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut openssl = command.spawn().unwrap();
    openssl.stdin.take().unwrap().write_all(input).unwrap();
    let done = openssl.wait_with_output().unwrap();
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}
