//! A small disk of the test's own, which can be full.

use std::fs::{File, remove_file};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub struct Disk {
    folder: TempDir,
    /// Unmounts it when its input ends: with this disk, or with the whole process, however that ends.
    keeper: Child,
}

/// Room for the ledger of a short test.
const SIZE: &str = "size=8m";

impl Disk {
    /// Whether this process may mount one.
    pub fn may_be_mounted() -> bool {
        let user = Command::new("id").arg("-u").output().unwrap();
        if user.stdout != b"0\n" {
            return false;
        }
        let folder = TempDir::with_prefix("spikegate-disk-").unwrap();
        mount(folder.path()) && unmount(folder.path())
    }

    pub fn mount() -> Self {
        let folder = TempDir::with_prefix("spikegate-disk-").unwrap();
        // Lazily, for a process may still have files open there.
        let script = "trap '' INT TERM HUP; read -r _; umount -l \"$0\"; rmdir \"$0\"";
        let mut keeper = Command::new("sh");
        let keeper = keeper.arg("-c").arg(script).arg(folder.path()).stdin(Stdio::piped()).spawn().unwrap();
        assert!(mount(folder.path()), "only root may mount a disk");
        Self { folder, keeper }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no room, not for a byte.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub fn clear(&self) {
        let _ = remove_file(self.ballast());
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn mount(folder: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(folder);
    command.output().is_ok_and(|output| output.status.success())
}

fn unmount(folder: &Path) -> bool {
    Command::new("umount").arg(folder).output().is_ok_and(|output| output.status.success())
}
