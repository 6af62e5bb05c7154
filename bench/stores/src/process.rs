//! Facts about processes and folders: what this one used, what a child said, what a folder takes on disk.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// Processor time of this process so far, all threads, user and kernel, in microseconds.
pub fn processor_time() -> f64 {
    // SAFETY: getrusage fills the zeroed structure that it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    [usage.ru_utime, usage.ru_stime].iter().map(|time| time.tv_sec as f64 * 1e6 + time.tv_usec as f64).sum()
}

/// A line of /proc/self/status in MiB, such as `VmRSS` or `RssAnon`.
pub fn memory(line: &str) -> Result<f64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|text| text.split_whitespace().next()).ok_or("no such line in /proc/self/status")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// What the folder takes on disk, in MiB; holes in files do not count.
pub fn disk_use(folder: &Path) -> Result<f64, Error> {
    let mut blocks = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            blocks += (disk_use(&entry.path())? * 2048.0) as u64;
        } else {
            blocks += entry.metadata()?.blocks();
        }
    }
    Ok(blocks as f64 / 2048.0)
}

/// This program again, with other words.
pub fn itself(words: &[&str]) -> Result<Command, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words);
    Ok(command)
}

/// Runs it to its end; its output is lines of `name value`.
pub fn figures(command: &mut Command) -> Result<HashMap<String, String>, Error> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split_once(' ')).map(|(name, value)| (name.into(), value.into())).collect())
}

/// A new, empty folder under the working directory (a file system in memory would make every sync free).
/// It is removed when this is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Self, Error> {
        let path = std::env::current_dir()?.join(format!("stores-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn text(&self) -> Result<&str, Error> {
        Ok(self.0.to_str().ok_or("the working directory's name is not UTF-8")?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
