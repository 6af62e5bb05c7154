use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm, date_time_ymd};
use rustls::SignatureScheme;
use tempfile::TempDir;

use super::*;
use crate::auth::certificate::CertificateFiles;
use crate::config::TlsVersion;

const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
const ED25519: SignatureScheme = SignatureScheme::ED25519;

/// Certificates in files of their own.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn make(&self, file: &str, names: &[&str], kind: &'static SignatureAlgorithm) -> CertificateFiles {
        self.make_with(file, names, kind, |_| ())
    }

    fn make_with(
        &self,
        file: &str,
        names: &[&str],
        kind: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate_for(kind).expect("a key");
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let certificate = params.self_signed(&key).expect("a certificate");
        let path = |end: &str| self.0.path().join(format!("{file}.{end}"));
        std::fs::write(path("pem"), certificate.pem()).expect("written");
        std::fs::write(path("key"), key.serialize_pem()).expect("written");
        CertificateFiles { certificate: path("pem"), key: path("key") }
    }
}

fn settings(certificates: &[&CertificateFiles]) -> config::Tls {
    config::Tls {
        certificates: certificates.iter().map(|files| (*files).clone()).collect(),
        min_version: TlsVersion::Tls12,
    }
}

fn read_one(files: &CertificateFiles) -> Arc<CertifiedKey> {
    Certificate::read(files).expect("a certificate").shown
}

fn same(one: &CertifiedKey, other: &CertifiedKey) -> bool {
    one.cert == other.cert
}

#[test]
fn the_name_decides_and_then_the_kind_of_key() {
    let files = Files::new();
    let kind = &PKCS_ECDSA_P256_SHA256;
    let made = [
        files.make("first", &["a.example"], kind),
        files.make("first-too", &["a.example", "b.example"], &PKCS_ED25519),
        files.make("wild", &["*.b.example"], kind),
        files.make("exact", &["X.b.example"], kind),
        files.make("nameless", &[], kind),
    ];
    let choice = read(&settings(&made.each_ref())).expect("certificates");
    let shown = made.each_ref().map(read_one);
    let chosen = |name: Option<&str>, schemes: &[SignatureScheme]| {
        let chosen = choice.choose(name, schemes).expect("one is always chosen");
        shown.iter().position(|shown| same(shown, &chosen)).expect("one of them")
    };
    let both = [ECDSA, ED25519];
    for (name, schemes, expected) in [
        (Some("a.example"), &both[..], 0),
        (Some("a.example"), &[ED25519], 1),
        (Some("A.Example"), &[ECDSA], 0),
        (Some("b.example"), &both, 1),
        (Some("b.example"), &[ECDSA], 1),
        (Some("y.b.example"), &both, 2),
        (Some("x.b.example"), &both, 3),
        (Some("y.x.b.example"), &both, 0),
        (Some("c.example"), &both, 0),
        (Some("c.example"), &[ED25519], 1),
        (Some("example"), &both, 0),
        (None, &both, 0),
        (None, &[ED25519], 1),
    ] {
        assert_eq!(chosen(name, schemes), expected, "{name:?} {schemes:?}");
    }
}

#[test]
fn a_terminator_knows_whether_another_shows_the_same() {
    let files = Files::new();
    let kind = &PKCS_ECDSA_P256_SHA256;
    let [one, other] = ["one", "other"].map(|name| files.make(name, &["a.example"], kind));
    let settings = settings(&[&one, &other]);
    let first = Terminator::new(&settings, true, None).expect("TLS");
    let again = Terminator::new(&settings, false, Some(&first)).expect("TLS");
    assert!(first.shows_the_same(&again));

    files.make("one", &["a.example"], kind);
    let renewed = Terminator::new(&settings, true, Some(&again)).expect("TLS");
    assert!(!first.shows_the_same(&renewed));
    std::fs::write(&other.key, "no key").expect("written");
    let error = Terminator::new(&settings, true, Some(&renewed)).err().expect("one is at fault").to_string();
    assert!(error.starts_with("key ") && error.contains("other.key: has no private key"), "{error}");
}

#[test]
fn what_is_wrong_with_a_file_is_said_of_that_file() {
    let files = Files::new();
    let kind = &PKCS_ECDSA_P256_SHA256;
    let [one, other] = ["one", "other"].map(|name| files.make(name, &["a.example"], kind));
    let fault = |certificate: &str, key: &str| {
        let path = |name: &str| files.0.path().join(name);
        let fault = Certificate::read(&CertificateFiles { certificate: path(certificate), key: path(key) });
        let fault = fault.expect_err("it is wrong");
        (fault.setting, fault.what)
    };
    let both = [std::fs::read(&one.key).expect("read"), std::fs::read(&other.certificate).expect("read")].concat();
    std::fs::write(files.0.path().join("both.pem"), both).expect("written");
    std::fs::write(files.0.path().join("broken.pem"), "-----BEGIN CERTIFICATE-----\n!\n").expect("written");
    let (setting, what) = fault("one.pem", "other.key");
    assert_eq!(setting, "key");
    assert!(what.starts_with("is not the key of the certificate in "), "{what}");
    assert_eq!(fault("one.key", "one.key"), ("certificate", "has no certificate in PEM".to_owned()));
    assert_eq!(fault("one.pem", "one.pem"), ("key", "has no private key in PEM without a passphrase".to_owned()));
    let gone = "cannot be read: No such file or directory (os error 2)";
    assert_eq!(fault("none.pem", "one.key"), ("certificate", gone.to_owned()));
    assert_eq!(fault("one.pem", "none.key"), ("key", gone.to_owned()));
    let (setting, what) = fault("broken.pem", "one.key");
    assert!(setting == "certificate" && what.starts_with("is not PEM: "), "{setting}: {what}");
    // Several things in one file are no trouble.
    let path = files.0.path().join("both.pem");
    let error =
        Certificate::read(&CertificateFiles { certificate: path.clone(), key: path }).expect_err("another's key");
    assert_eq!(error.setting, "key");
}

#[test]
fn a_certificate_that_is_not_valid_now_is_worth_a_warning() {
    let files = Files::new();
    let made = files.make_with("one", &["a.example"], &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2030, 4, 1);
    });
    let certificate = Certificate::read(&made).expect("a certificate");
    let at = |time: &str| {
        let time: jiff::Timestamp = time.parse().expect("a time");
        certificate.trouble_at(time.into())
    };
    assert_eq!(at("2029-12-31T23:59:59Z").as_deref(), Some("is not valid before 2030-01-01T00:00:00Z"));
    assert_eq!(at("2030-01-01T00:00:00Z"), None);
    assert_eq!(at("2030-03-24T00:00:00Z"), None);
    assert_eq!(at("2030-03-26T00:00:00Z").as_deref(), Some("expires at 2030-04-01T00:00:00Z"));
    assert_eq!(at("2030-04-01T00:00:01Z").as_deref(), Some("has expired at 2030-04-01T00:00:00Z"));
    assert!(certificate.trouble_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).is_some());
    let nameless = files.make("nameless", &[], &PKCS_ECDSA_P256_SHA256);
    let told = settings(&[&nameless, &nameless, &made]).warnings(SystemTime::now());
    assert_eq!(told.len(), 2, "the first is for everybody: {told:?}");
    assert!(told[0].ends_with("nameless.pem: is for no name, so it is never used"), "{told:?}");
    assert!(told[1].ends_with("one.pem: is not valid before 2030-01-01T00:00:00Z"), "{told:?}");
    // It is shown all the same.
    assert!(Terminator::new(&settings(&[&made]), false, None).is_ok());
}
