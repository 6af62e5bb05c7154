//! A certificate with its key, read from files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long before its expiry a certificate gets a warning.
const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The files of a certificate and its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// The private key, without a passphrase.
    pub key: PathBuf,
}

/// A certificate, its chain and its key.
#[derive(Debug)]
pub struct Certificate {
    /// The form that rustls uses.
    pub shown: Arc<CertifiedKey>,
    /// Its names in lower case; a wildcard begins with `*.`.
    pub names: Vec<String>,
    not_before: SystemTime,
    /// Its expiry.
    pub not_after: SystemTime,
}

/// What is wrong with one of the two files.
#[derive(Debug)]
pub struct CertificateError {
    /// The setting that names the file: `certificate` or `key`.
    pub setting: &'static str,
    /// What is wrong. Never contains part of the key.
    pub what: String,
    path: PathBuf,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.setting, self.path.display(), self.what)
    }
}

impl Certificate {
    /// Reads a certificate and its key, both in PEM. Intermediate certificates follow in the same file.
    ///
    /// # Errors
    /// If a file cannot be read or is not valid, or the key belongs to another certificate.
    pub fn read(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let of_certificate =
            |what: String| CertificateError { setting: "certificate", what, path: files.certificate.clone() };
        let of_key = |what: String| CertificateError { setting: "key", what, path: files.key.clone() };

        let pem = file(&files.certificate).map_err(of_certificate)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| of_certificate(not_pem(&error)))?;
        let Some(first) = chain.first() else { return Err(of_certificate("has no certificate in PEM".to_owned())) };
        let unreadable = |error| of_certificate(format!("has a certificate that cannot be read: {error}"));
        let (_, parsed) = X509Certificate::from_der(first).map_err(unreadable)?;
        let validity = parsed.validity();
        let (not_before, not_after) = (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
        let names = names(&parsed);

        let pem = file(&files.key).map_err(of_key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
            pem::Error::NoItemsFound => of_key("has no private key in PEM without a passphrase".to_owned()),
            error => of_key(not_pem(&error)),
        })?;
        let shown = CertifiedKey::from_der(chain.clone(), key, &aws_lc_rs::default_provider());
        let shown = shown.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of_key(format!("is not the key of the certificate in {}", files.certificate.display()))
            }
            rustls::Error::InvalidCertificate(error) => {
                of_certificate(format!("has a certificate that cannot be used: {error}"))
            }
            _ => of_key("has a key that cannot be used: RSA from 2048 bits on, ECDSA and Ed25519 can".to_owned()),
        })?;
        Ok(Self { shown: Arc::new(shown), names, not_before, not_after })
    }

    /// Why clients may reject it at this time, or will soon.
    #[must_use]
    pub fn trouble_at(&self, now: SystemTime) -> Option<String> {
        if now < self.not_before {
            return Some(format!("is not valid before {}", shown_time(self.not_before)));
        }
        if now > self.not_after {
            return Some(format!("has expired at {}", shown_time(self.not_after)));
        }
        (now + SOON > self.not_after).then(|| format!("expires at {}", shown_time(self.not_after)))
    }
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error: io::Error| format!("cannot be read: {error}"))
}

fn not_pem(error: &pem::Error) -> String {
    format!("is not PEM: {error}")
}

/// Times before 1970 count as 1970.
fn time(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}

fn shown_time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "a time beyond all calendars".to_owned(), |time| time.to_string())
}

/// The names in `subjectAltName`; clients look nowhere else (RFC 9525, 6.3).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}
