//! A PostgreSQL of the suite's own, on a socket in a folder of its own.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::{Process, START, first_line, run};

/// How long making the database's files may take.
const MAKE: Duration = Duration::from_secs(60);

pub struct Postgres {
    process: Process,
    folder: PathBuf,
}

impl Postgres {
    /// As Debian sets it up, except where its commits do not wait for the disk (`synchronous_commit=off`).
    pub fn start(parent: &Path, waits_for_disk: bool) -> Result<Self, String> {
        let folder = parent.join("postgres");
        std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).map_err(|error| error.to_string())?;
        }
        let command = |name: &str| {
            let mut command = Command::new(programs().join(name));
            command.current_dir(&folder).args(["-D", "data"]);
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let mut make = command("initdb");
        make.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let made = run(&mut make, MAKE)?;
        if !made.success {
            return Err(format!("initdb: {}", made.text.trim()));
        }
        let mut server = command("postgres");
        server.args(["-c", "listen_addresses=", "-c", &format!("unix_socket_directories={}", folder.display())]);
        server.args(["-c", if waits_for_disk { "synchronous_commit=on" } else { "synchronous_commit=off" }]);
        let process = Process::start(&mut server, &parent.join("postgres.log"), true)?;
        let postgres = Self { process, folder };
        let end = Instant::now() + START;
        while let Err(reason) = postgres.query("SELECT 1") {
            if Instant::now() > end {
                return Err(reason);
            }
            sleep(Duration::from_millis(50));
        }
        Ok(postgres)
    }

    /// What the order service calls it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.folder.display())
    }

    pub fn cpu(&self) -> Duration {
        self.process.cpu_with_children()
    }

    /// How many rows of the table are in this state.
    pub fn count(&self, table: &str, state: &str) -> Result<u64, String> {
        self.number(&format!("SELECT count(*) FROM {table} WHERE state = '{state}'"))
    }

    /// The one number that a query gives.
    pub fn number(&self, query: &str) -> Result<u64, String> {
        let text = self.query(query)?;
        text.trim().parse().map_err(|_| format!("psql: {text}"))
    }

    fn query(&self, query: &str) -> Result<String, String> {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["--username=postgres", "--no-align", "--tuples-only", "--no-psqlrc", "--command", query]);
        let output = run(psql.arg("--host").arg(&self.folder), Duration::from_secs(20))?;
        if output.success { Ok(output.text) } else { Err(format!("psql: {}", output.text.trim())) }
    }
}

/// What the server says of itself.
pub fn version() -> String {
    first_line(&programs().join("postgres").to_string_lossy(), &["--version"])
}

/// Debian keeps them where no PATH leads to, in a folder for each version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let folders = versions.map(|version| version.path().join("bin")).filter(|folder| folder.join("postgres").exists());
    folders.max().unwrap_or_default()
}

/// The user and group to run as, if we are root: PostgreSQL refuses to run as root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| first_line("id", arguments).parse::<u32>().ok();
    (id(&["-u"])? == 0).then(|| Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?))).flatten()
}
