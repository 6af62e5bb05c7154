//! Child processes that end with their test, and the ports that they listen on.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::panicking;
use std::time::{Duration, Instant};

/// A child process. Dropping it kills it by its own handle, and shows what it logged if the test has failed.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with standard error going to a file in `folder` that starts afresh.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.stderr"));
        let file = File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} ({:?}) cannot be started: {error}", command.get_program()));
        Self { name: name.to_owned(), child, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The pipe of standard output, if the command asked for one.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal by its name: `TERM`, `STOP`, ...
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{signal} {} ({})", self.id(), self.name);
    }

    /// Ends it with no chance to tidy up, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub fn wait(&mut self, time: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(begun.elapsed() < time, "{} has not ended after {time:?}; it logged:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process that one of ours has started, and that goes on when that one has ended. Dropping it kills it by its
/// number.
#[derive(Debug)]
pub struct Successor(u32);

impl Successor {
    pub fn new(id: u32) -> Self {
        Self(id)
    }

    pub fn id(&self) -> u32 {
        self.0
    }

    /// Sends a signal by its name; whether there is such a process.
    pub fn signal(&self, signal: &str) -> bool {
        let mut kill = Command::new("kill");
        kill.args([&format!("-{signal}"), &self.0.to_string()]).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Whether it has ended. A zombie has.
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // The name in front is in parentheses, and may hold anything.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal("KILL");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if panicking() {
            let log = self.log();
            let skip = log.lines().count().saturating_sub(200);
            let lines: Vec<&str> = log.lines().skip(skip).collect();
            eprintln!("---- {} (process {}) logged last:\n{}\n----", self.name, self.id(), lines.join("\n"));
        }
    }
}

/// A port of the loopback on which nothing listens.
///
/// It lies below the range from which the kernel takes the ports of outgoing connections: a port that was handed out by
/// binding port 0 is in that range, and among thousands of connections of other tests it is taken again before the
/// process for which it was meant gets to bind it. Each is given once in a test run; where a run begins depends on its
/// process id, so that several runs at a time seldom meet, and whoever starts a process tries again if they do.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 220) as u16 * 100;
    for _ in 0..COUNT {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + (begin + given) % COUNT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

/// One of the project's binaries. Cargo builds the one of the package under test by itself; the other packages' stand
/// beside it once the workspace has been built.
pub fn binary(name: &str) -> PathBuf {
    let spikegate = PathBuf::from(env!("CARGO_BIN_EXE_spikegate"));
    let path = spikegate.with_file_name(name);
    assert!(path.exists(), "{} is missing: build the workspace first (cargo build --workspace)", path.display());
    path
}
