//! A PostgreSQL of the test's own, on a socket in its own folder.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::Process;
use super::{PATIENCE, eventually};

pub struct Postgres {
    process: Process,
    folder: TempDir,
}

impl Postgres {
    /// It does not care for power cuts, of which there are none here.
    pub fn start() -> Self {
        let folder = TempDir::with_prefix("spikegate-postgres-").unwrap();
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let command = |name: &str| {
            let mut command = Command::new(programs().join(name));
            command.current_dir(folder.path()).args(["-D", "data"]).stdout(Stdio::null());
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let made = command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = command("postgres");
        server.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c"]);
        server.arg(format!("unix_socket_directories={}", folder.path().display()));
        let process = Process::start("postgres", &mut server, folder.path());
        let mut postgres = Self { process, folder };
        eventually("PostgreSQL is ready", || {
            assert!(postgres.process.ended().is_none(), "PostgreSQL ended:\n{}", postgres.process.log());
            postgres.process.log().contains("ready to accept connections").then_some(())
        });
        postgres
    }

    /// What a query of two columns gives, by `psql`.
    pub fn pairs(&self, query: &str) -> Vec<(String, String)> {
        let output = Command::new(programs().join("psql"))
            .args(["--username=postgres", "--no-align", "--tuples-only", "--field-separator= ", "--command", query])
            .arg(format!("--host={}", self.folder.path().display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.folder.path().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed outright, it would leave its processes and a piece of shared memory behind.
        if self.process.ended().is_none() {
            self.process.signal("QUIT");
            self.process.wait(PATIENCE);
        }
    }
}

/// Debian keeps them where no PATH leads to, in a folder for each version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let folders = versions.map(|version| version.path().join("bin")).filter(|folder| folder.join("postgres").exists());
    folders.max().expect("PostgreSQL is not installed: scripts/need postgresql")
}

/// The user and group to run as, if we are root: PostgreSQL refuses to run as root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
}
