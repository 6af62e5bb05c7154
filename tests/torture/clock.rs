//! A wall clock that can be set for one process.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

pub struct Clock {
    folder: TempDir,
    offset: File,
}

impl Clock {
    /// So many seconds before or after the true time.
    pub fn off_by(seconds: i64) -> Self {
        let folder = TempDir::with_prefix("spikegate-clock-").unwrap();
        let mut compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-x", "c", "-", "-o"])
            .arg(folder.path().join("clock.so"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler, as for building the rest");
        compiler.stdin.take().unwrap().write_all(include_bytes!("clock.c")).unwrap();
        assert!(compiler.wait().unwrap().success(), "clock.c is not compiled");
        let clock = Self { offset: File::create(folder.path().join("offset")).unwrap(), folder };
        clock.set(seconds);
        clock
    }

    pub fn set(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// The variables under which a process goes by it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![("LD_PRELOAD".to_owned(), path("clock.so")), ("CLOCK_FILE".to_owned(), path("offset"))]
    }
}
