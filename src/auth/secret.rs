//! Secrets in files, such as the one that edges and order service share.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{fmt, process};

/// A secret: the text of its file without surrounding white space.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a file does not contain a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its content is not a secret, or a weak one.
    #[error("must contain 16 to 256 visible ASCII characters (its content is not shown because it may be a secret)")]
    Unfit,
    /// The system cannot read it.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It does not exist and cannot be created.
    #[error("cannot be created: {0}")]
    Unmakeable(io::Error),
}

impl Secret {
    /// A secret from this text without surrounding white space; 16 to 256 visible ASCII characters.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = (16..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.as_bytes().to_vec()))
    }

    /// The secret in this file; none if there is no such file.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(path: &Path) -> Result<Option<Self>, SecretError> {
        match fs::read(path) {
            Ok(content) => {
                let text = str::from_utf8(&content).map_err(|_| SecretError::Unfit)?;
                Self::of(text).ok_or(SecretError::Unfit).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SecretError::Unreadable(error)),
        }
    }

    /// The secret in this file. If the file is missing, it is created: 32 random bytes in hexadecimal, readable by the
    /// owner only.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read_or_make(path: &Path) -> Result<Self, SecretError> {
        if let Some(secret) = Self::read(path)? {
            return Ok(secret);
        }
        if make(path).map_err(SecretError::Unmakeable)? {
            log::info!("{}: created a new secret; give the order service a copy", path.display());
        }
        // Another process may have been faster; all use what the file contains.
        Self::read(path)?.ok_or_else(|| SecretError::Unmakeable(io::ErrorKind::NotFound.into()))
    }

    /// The key.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// The file gets its name once it is complete, so no process reads half a secret; an existing file is never replaced.
/// Returns whether it did not exist.
fn make(path: &Path) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut unnamed = path.as_os_str().to_owned();
    unnamed.push(format!(".{}-{:08x}", process::id(), rand::random::<u32>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed)?;
    let made = file
        .write_all(format!("{:032x}{:032x}\n", rand::random::<u128>(), rand::random::<u128>()).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| match fs::hard_link(&unnamed, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        });
    fs::remove_file(&unnamed)?;
    made
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_file_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/delivery.secret");
        assert_eq!(Secret::read(&path).expect("no file is no fault"), None);
        let all: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| Secret::read_or_make(&path))).collect();
            makers.into_iter().map(|maker| maker.join().expect("no panic").expect("it is made")).collect()
        });
        assert_eq!(all[0].bytes().len(), 64);
        assert!(all.iter().all(|secret| *secret == all[0]), "all have the same");
        assert_eq!(Secret::read_or_make(&path).expect("it is read"), all[0]);
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = fs::read_dir(path.parent().expect("a folder")).expect("it can be listed").count();
        assert_eq!(left, 1, "nothing else is left there");
    }

    #[test]
    fn a_file_is_read_as_an_editor_leaves_it_and_refused_if_it_is_poor() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), " a-secret-of-some-length\r\n").expect("written");
        let secret = Secret::read(file.path()).expect("readable").expect("there");
        assert_eq!(secret.bytes(), b"a-secret-of-some-length");
        assert_eq!(format!("{secret:?}"), "Secret(...)");
        for poor in [&b""[..], b"short", b"two words in one secret", b"\xff234567890123456", &[b'a'; 257]] {
            fs::write(file.path(), poor).expect("written");
            let error = Secret::read(file.path()).expect_err("it is poor").to_string();
            assert!(error.starts_with("must contain 16 to 256 visible ASCII characters"), "{error}");
            assert!(Secret::read_or_make(file.path()).is_err(), "and not replaced");
        }
        let error = Secret::read(Path::new("/")).expect_err("a folder").to_string();
        assert!(error.starts_with("cannot be read"), "{error}");
    }
}
