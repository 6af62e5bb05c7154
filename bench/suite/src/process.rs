//! Processes that the suite starts, what the kernel charges them, and how they end.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the servers under test run. Everything else (load generators, Redis, backends) runs on the other core.
const SERVER_CORE: usize = 0;
const OTHER_CORE: usize = 1;

/// Startup timeout of a server.
pub const START: Duration = Duration::from_secs(10);

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A server that runs until it is dropped.
pub struct Process {
    child: Child,
    /// Who does the work: nginx has one process that only waits for the one that does.
    worker: Option<u32>,
}

/// What a program that came to its end has printed.
pub struct Output {
    pub text: String,
    pub success: bool,
}

impl Process {
    /// Starts a server. `tested` puts it on the core that is left to servers under test. Its output goes to `log`.
    pub fn start(command: &mut Command, log: &Path, tested: bool) -> Result<Self, String> {
        let output = fs::File::create(log).map_err(|error| error.to_string())?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let child = spawn(command.stdin(Stdio::null()).stdout(output).stderr(errors), tested)?;
        Ok(Self { child, worker: None })
    }

    /// The process that works.
    pub fn id(&self) -> u32 {
        self.worker.unwrap_or(self.child.id())
    }

    /// Takes the only child of the process for the one that works. It may still be about to be started.
    pub fn find_worker(&mut self) {
        let end = Instant::now() + GRACE;
        while self.worker.is_none() && Instant::now() < end {
            self.worker = processes().find(|&id| parent(id) == Some(self.child.id()));
        }
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// User and system time so far: fields 14 and 15 of /proc/PID/stat.
    pub fn cpu(&self) -> Duration {
        time_of(self.id(), 2)
    }

    /// That of the process and of its children, with those that have ended (fields 16 and 17); PostgreSQL has one for
    /// each connection.
    pub fn cpu_with_children(&self) -> Duration {
        let children = processes().filter(|&id| parent(id) == Some(self.child.id()));
        time_of(self.child.id(), 4) + children.map(|id| time_of(id, 2)).sum::<Duration>()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// How many files, and so connections, it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        signal(self.child.id(), libc::SIGTERM);
        if wait(&mut self.child, GRACE).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end, which it must reach within `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()), false)?;
    // Read beside it, since a full pipe would stop it.
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let output = std::thread::spawn(move || output.map(std::io::read_to_string));
    let errors = std::thread::spawn(move || errors.map(std::io::read_to_string));
    let success = wait(&mut child, limit);
    if success.is_none() {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{name} took longer than {limit:?}"));
    }
    let text = [output, errors].into_iter().filter_map(|reader| reader.join().ok().flatten()?.ok()).collect::<String>();
    Ok(Output { text, success: success == Some(true) })
}

/// Like [`run`], for programs that must succeed.
pub fn must<I: AsRef<OsStr>>(program: &str, arguments: &[I]) -> Result<String, String> {
    let output = run(Command::new(program).args(arguments), Duration::from_secs(10))?;
    if output.success { Ok(output.text) } else { Err(format!("{program}: {}", output.text.trim())) }
}

/// Returns the first line that a program prints, or "unknown".
pub fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = run(Command::new(program).args(arguments), Duration::from_secs(10));
    let text = output.map(|output| output.text).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_string()
}

/// Keeps this thread, and with it what it starts, off the core of the servers under test, and allows as many open
/// files as this user may have.
pub fn prepare() {
    pin(OTHER_CORE);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

pub fn signal(id: u32, signal: i32) {
    // SAFETY: takes no pointers; the id is that of a child that was not waited for yet, so it is still its own.
    unsafe { libc::kill(id as i32, signal) };
}

fn spawn(command: &mut Command, tested: bool) -> Result<Child, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(move || {
            if tested {
                pin(SERVER_CORE);
            }
            // Nothing outlives the suite, however that ends.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        })
    };
    command.spawn().map_err(|error| format!("{name}: {error}"))
}

/// Where there is no such core, the kernel refuses, and everything shares what there is.
fn pin(core: usize) {
    // SAFETY: the set is plain data, and the kernel only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Whether it succeeded, if it has ended within the limit.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(None) => sleep(Duration::from_millis(5)),
            Ok(Some(status)) => return Some(status.success()),
            Err(_) => return Some(false),
        }
    }
    None
}

/// The first so many of the times in /proc/PID/stat: user, system, and both of the children that were waited for.
fn time_of(id: u32, times: usize) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let ticks: u64 = fields(&stat).skip(14 - 3).take(times).filter_map(|field| field.parse::<u64>().ok()).sum();
    // SAFETY: takes no pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    fields(&stat).nth(4 - 3)?.parse().ok()
}

/// The fields of a stat line from the third on. The second is a name in parentheses, which may have spaces in it.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}
