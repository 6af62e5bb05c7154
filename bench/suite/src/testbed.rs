//! One running contestant with Redis and backends, in a temporary folder of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::contestant::Contestant;
use crate::http::{BACKENDS, CONTROL, EDGE, REDIS, get};
use crate::process::{Process, START, must};

/// What the names of temporary folders begin with; then comes the suite's process id.
const FOLDERS: &str = "spikegate-bench-";
/// The large answer of the backends.
pub const LARGE: usize = 100 * 1024;
/// The small one.
pub const SMALL: &str = "hello from a backend\n";

/// Where the programs and configuration files are.
#[derive(Debug)]
pub struct Places {
    /// bench/
    pub bench: PathBuf,
    /// The folder of `spikegate`.
    pub product: PathBuf,
    /// The folder of `floor` and `designs`.
    pub tools: PathBuf,
}

/// Servers are dropped, and so ended, in this order.
pub struct Testbed {
    pub contestant: Contestant,
    pub edge: Process,
    redis: Option<Process>,
    _backends: Option<Process>,
    spikegate: PathBuf,
    folder: Folder,
}

/// A temporary folder, removed when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Testbed {
    /// Starts a contestant with this number of tickets, with backends if `backends` is set.
    pub fn start(places: &Places, contestant: Contestant, tickets: u64, backends: bool) -> Result<Self, String> {
        let folder = new_folder(&places.bench.join("conf")).map_err(|error| error.to_string())?;
        let at = folder.0.as_path();
        let backends = if backends {
            fs::write(at.join("large"), vec![b'x'; LARGE]).map_err(|error| error.to_string())?;
            Some(start(&mut nginx(at, "nginx-backends.conf"), at, "backends", false, &BACKENDS)?)
        } else {
            None
        };
        let redis = if contestant.has_redis() {
            let mut command = Command::new("redis-server");
            command.current_dir(at).arg("redis.conf");
            if contestant == Contestant::RedisSynced {
                command.args(["--appendfsync", "always"]);
            }
            let redis = start(&mut command, at, "redis", false, &[REDIS])?;
            let total = tickets.to_string();
            redis_cli(&["HSET", "ticket_hash_key", "ticket_total_nums", &total, "ticket_sold_nums", "0"])?;
            Some(redis)
        } else {
            None
        };

        let spikegate = places.product.join("spikegate");
        let mut command = match contestant {
            Contestant::Floor => Command::new(places.tools.join("floor")),
            Contestant::FloorClosing => {
                let mut command = Command::new(places.tools.join("floor"));
                command.args([&EDGE.to_string(), "--close"]);
                command
            }
            _ if contestant.is_nginx() => nginx(at, contestant.configuration()),
            _ => {
                let mut command = Command::new(&spikegate);
                command.current_dir(at).args(["run", "--config", contestant.configuration()]);
                command
            }
        };
        let mut edge = start(&mut command, at, "edge", true, &[EDGE])?;
        if contestant.is_nginx() {
            edge.find_worker();
        }
        let testbed = Self { contestant, edge, redis, _backends: backends, spikegate, folder };
        if contestant == Contestant::Embedded {
            testbed.sale(&["open", "ticket", "--total", &tickets.to_string()])?;
        }
        if contestant.is_spikegate() {
            await_ready()?;
        }
        Ok(testbed)
    }

    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Processor time so far of the edge, and of Redis where there is one.
    pub fn cpu(&self) -> (Duration, Option<Duration>) {
        (self.edge.cpu(), self.redis.as_ref().map(Process::cpu))
    }

    /// Returns the number of sold tickets from the ledger. Spikegate must also have recorded one order for each.
    pub fn sold(&self) -> Result<u64, String> {
        if self.redis.is_none() {
            return number_after(&self.sale(&["show", "ticket"])?, "\"sold\":");
        }
        // Both at one instant: a purchase may still be under way when the generator has stopped.
        const BOTH: &str = "return { redis.call('HGET', KEYS[1], 'ticket_sold_nums'), redis.call('HLEN', KEYS[2]) }";
        let both = redis_cli(&["EVAL", BOTH, "2", "ticket_hash_key", "{ticket_hash_key}:orders"])?;
        let (sold, orders) = both.split_once('\n').ok_or_else(|| format!("not two numbers: {both}"))?;
        let (sold, orders) = (number_after(sold, "")?, number_after(orders, "")?);
        if self.contestant.is_spikegate() && orders != sold {
            return Err(format!("{sold} are sold, but there are {orders} orders"));
        }
        Ok(sold)
    }

    /// Purchases that reached the ledger, as Spikegate counts them.
    pub fn attempts(&self) -> Result<u64, String> {
        let (_, metrics) = get(CONTROL, "/metrics").map_err(|error| error.to_string())?;
        number_after(&String::from_utf8_lossy(&metrics), "spikegate_ledger_attempts_total{sale=\"ticket\"} ")
    }

    fn sale(&self, step: &[&str]) -> Result<String, String> {
        let control = CONTROL.to_string();
        let arguments = [&["sale"][..], step, &["--control", &control]].concat();
        must(&self.spikegate.to_string_lossy(), &arguments)
    }
}

fn nginx(folder: &Path, configuration: &str) -> Command {
    let mut command = Command::new("nginx");
    // Its word on stderr is also about what it finds before it has read where its log is.
    command.arg("-p").arg(folder).arg("-c").arg(folder.join(configuration)).args(["-e", "stderr"]);
    command
}

/// Starts a server and waits until it takes connections at each of these addresses.
pub fn start(
    command: &mut Command,
    folder: &Path,
    name: &str,
    tested: bool,
    addresses: &[SocketAddr],
) -> Result<Process, String> {
    for address in addresses {
        // A server that is already there would be measured instead.
        TcpListener::bind(address).map_err(|error| format!("{address} is needed by the {name}: {error}"))?;
    }
    let log = folder.join(format!("{name}.log"));
    let mut process = Process::start(command, &log, tested)?;
    let end = Instant::now() + START;
    for address in addresses {
        while TcpStream::connect(address).is_err() {
            if process.has_ended() || Instant::now() > end {
                return Err(format!("the {name} does not start: {}", fs::read_to_string(&log).unwrap_or_default()));
            }
            sleep(Duration::from_millis(10));
        }
    }
    Ok(process)
}

/// Waits until Spikegate is ready.
pub fn await_ready() -> Result<(), String> {
    let end = Instant::now() + START;
    while !matches!(get(CONTROL, "/readyz"), Ok((200, _))) {
        if Instant::now() > end {
            return Err("the edge does not become ready".to_string());
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

pub fn redis_cli(command: &[&str]) -> Result<String, String> {
    must("redis-cli", &[&["-p", &REDIS.port().to_string()][..], command].concat())
}

/// Removes the folders of suites that were ended before they could do so themselves.
pub fn clear_up() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let suite = name.to_str().and_then(|name| name.strip_prefix(FOLDERS)?.split('-').next()?.parse::<u32>().ok());
        if suite.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A new folder with a copy of the configuration files in it; readable by all, since nginx's workers are nobody.
pub fn new_folder(configuration: &Path) -> std::io::Result<Folder> {
    let mut number = 0;
    let folder = loop {
        let path = std::env::temp_dir().join(format!("{FOLDERS}{}-{number}", std::process::id()));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            made => break made.map(|()| Folder(path))?,
        }
    };
    for file in fs::read_dir(configuration)? {
        let file = file?;
        fs::copy(file.path(), folder.0.join(file.file_name()))?;
    }
    Ok(folder)
}

/// The whole number that follows `name`.
pub fn number_after(text: &str, name: &str) -> Result<u64, String> {
    let rest = text.find(name).map_or("", |at| &text[at + name.len()..]).trim_start();
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().map_err(|_| format!("no number after {name:?} in {text:?}"))
}
