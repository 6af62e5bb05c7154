//! A folder of static files: maps a request path to a file, independently of Pingora.
//!
//! A path or symbolic link can never open a file outside the folder: the kernel enforces this (`openat2` with
//! `RESOLVE_BENEATH`, Linux 5.6).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::config;

/// An open folder.
pub struct Folder {
    root: Arc<OwnedFd>,
    /// The index file, and the fallback for missing files.
    pub settings: config::Files,
}

/// An open file.
pub struct Found {
    /// Open for reading.
    pub file: File,
    /// Size in bytes.
    pub length: u64,
    /// Modification time.
    pub modified: SystemTime,
    /// The name, whose extension decides the content type.
    pub name: String,
}

/// The result of looking up a path.
pub enum Entry {
    /// A regular file.
    File(Found),
    /// The path lacks the `/` at its end.
    Folder,
    /// No file that may be served.
    Nothing,
}

impl Folder {
    /// Opens the folder.
    ///
    /// # Errors
    ///
    /// If the folder no longer exists.
    pub fn open(settings: &config::Files) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let root = rustix::fs::open(&settings.root, flags, Mode::empty())?;
        Ok(Self { root: Arc::new(root), settings: settings.clone() })
    }

    /// Looks up a file on a blocking thread, because a slow disk must not stall a worker.
    pub async fn find(&self, name: String) -> io::Result<Entry> {
        let root = Arc::clone(&self.root);
        let found = tokio::task::spawn_blocking(move || look(&root, name)).await;
        found.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

fn look(root: &OwnedFd, name: String) -> io::Result<Entry> {
    use rustix::io::Errno;
    // Without NONBLOCK, opening a pipe would block.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root.as_fd(), name.as_str(), flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        // A link that leaves the folder (XDEV) or forms a loop counts as missing.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG | Errno::NXIO) => {
            return Ok(Entry::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    let about = file.metadata()?;
    if about.is_dir() {
        return Ok(Entry::Folder);
    }
    if !about.is_file() {
        return Ok(Entry::Nothing);
    }
    Ok(Entry::File(Found { length: about.len(), modified: about.modified()?, file, name }))
}

/// The file for a request path, relative to the folder. None if the path cannot name a served file. Hidden files are
/// not served, except those of RFC 8615 (`/.well-known/`).
pub fn file_name(path: &str, index: &str) -> Option<String> {
    let decoded = percent_decode_str(path.strip_prefix('/')?).decode_utf8().ok()?;
    let (folders, last) = decoded.rsplit_once('/').unwrap_or(("", &decoded));
    let is_shown = |name: &str| !name.is_empty() && (!name.starts_with('.') || name == ".well-known");
    let fits = !decoded.contains('\0')
        && (folders.is_empty() && !decoded.starts_with('/') || folders.split('/').all(is_shown))
        && (last.is_empty() || is_shown(last));
    let index = if last.is_empty() { index } else { "" };
    fits.then(|| format!("{decoded}{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_one_file_or_none() {
        let table = [
            ("/", Some("index.html")),
            ("/a.css", Some("a.css")),
            ("/a/", Some("a/index.html")),
            ("/a/b%20c.html", Some("a/b c.html")),
            ("/%E4%B8%AD.html", Some("中.html")),
            ("/.well-known/security.txt", Some(".well-known/security.txt")),
            ("//", None),
            ("//etc/passwd", None),
            ("/a//b", None),
            ("/../a", None),
            ("/a/..", None),
            ("/a/../b", None),
            ("/%2e%2e/a", None),
            ("/..%2fa", None),
            ("/.git/config", None),
            ("/a/.htpasswd", None),
            ("/a%00.html", None),
            ("/%ff", None),
            ("*", None),
            ("", None),
        ];
        for (path, expected) in table {
            assert_eq!(file_name(path, "index.html").as_deref(), expected, "{path}");
        }
    }
}
