//! A folder with every file that examples name.

use serde_yaml::Value;
use tempfile::TempDir;

use super::super::certificate;

/// Examples name files below these folders.
const FOLDERS: [&str; 2] = ["/etc/spikegate/", "/srv/"];

/// RFC 8410, 10.1.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                          -----END PUBLIC KEY-----\n";

/// RFC 8037, A.2.
const KEY_SET: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

pub(super) struct Site {
    folder: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = folder.path().join("etc/spikegate");
        std::fs::create_dir_all(&settings).expect("made");
        std::fs::create_dir_all(folder.path().join("srv/www")).expect("made");
        certificate(&settings, "tickets");
        certificate(&settings, "wildcard");
        for (name, content) in [
            ("token", "a-token-of-some-length"),
            ("admission.key", "a-key-of-some-length"),
            ("delivery.secret", "a-secret-of-some-length"),
            ("id.secret", "a-secret-of-thirty-two-characters-or-more"),
            ("id.pub.pem", PUBLIC_KEY),
            ("id.jwks", KEY_SET),
            ("sorry.html", "<h1>Sorry</h1>"),
        ] {
            std::fs::write(settings.join(name), content).expect("written");
        }
        Self { folder }
    }

    /// The same settings with the files of this site in the place of those that they name.
    pub fn with_files(&self, settings: &Value) -> Value {
        match settings {
            Value::String(text) if FOLDERS.iter().any(|folder| text.starts_with(folder)) => {
                format!("{}{text}", self.folder.path().display()).into()
            }
            Value::Sequence(items) => items.iter().map(|item| self.with_files(item)).collect(),
            Value::Mapping(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), self.with_files(value)));
                Value::Mapping(entries.collect())
            }
            other => other.clone(),
        }
    }
}
