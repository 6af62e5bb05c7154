//! A Redis of the test's own that can be stopped, frozen, killed and started again, and whose books can be checked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use ::redis::{Commands, Connection, FromRedisValue};
use tempfile::TempDir;

use super::process::{Process, free_address};
use super::{PATIENCE, eventually};

/// The name of the article's stock hash.
pub const KEY: &str = "ticket_hash_key";

pub struct Redis {
    process: Option<Process>,
    address: SocketAddr,
    folder: TempDir,
    arguments: &'static [&'static str],
    environment: Vec<(String, String)>,
    password: Option<String>,
}

/// The password that these lines of a configuration ask for.
fn password_in(settings: &str) -> Option<String> {
    settings.lines().find_map(|line| line.strip_prefix("requirepass ")).map(str::to_owned)
}

/// What of its writes is on disk before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every one.
    Always,
    /// None for certain; it is written there every second.
    EverySecond,
    /// None at all: it has forgotten everything when it is started again.
    Nothing,
}

impl Durability {
    fn settings(self) -> &'static str {
        match self {
            Self::Always => "appendonly yes\nappendfsync always\n",
            // Its file tells when it was written, so that it can be cut where a power cut would.
            Self::EverySecond => "appendonly yes\nappendfsync everysec\naof-timestamp-enabled yes\n",
            Self::Nothing => "appendonly no\n",
        }
    }
}

/// Three Sentinels that watch one primary, and fail over when it has been silent for half a second or as they are told.
pub struct Sentinels {
    processes: Vec<Redis>,
}

impl Sentinels {
    /// They know each other, and `replicas` replicas of it.
    pub fn of(primary: &Redis, replicas: u32) -> Self {
        Self::with_settings(primary, replicas, "sentinel down-after-milliseconds mymaster 500\n")
    }

    /// Likewise, with more lines of configuration, how long they wait for an answer among them.
    pub fn with_settings(primary: &Redis, replicas: u32, settings: &str) -> Self {
        let processes: Vec<Redis> = (0..3).map(|_| Redis::start_sentinel_of(primary, settings)).collect();
        for sentinel in &processes {
            eventually("the Sentinels know each other", || {
                let known: HashMap<String, String> = sentinel.command("SENTINEL MASTER mymaster");
                let number = |name: &str| known.get(name).and_then(|number| number.parse::<u32>().ok());
                (number("num-other-sentinels") == Some(2) && number("num-slaves") == Some(replicas)).then_some(())
            });
        }
        Self { processes }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.processes.iter().map(Redis::address).collect()
    }

    /// Waits until all of them name this primary.
    #[track_caller]
    pub fn agree_on(&self, primary: &Redis) {
        eventually("the Sentinels have failed over", || {
            let says =
                |sentinel: &Redis| -> (String, u16) { sentinel.command("SENTINEL get-master-addr-by-name mymaster") };
            self.processes.iter().all(|sentinel| says(sentinel).1 == primary.address.port()).then_some(())
        });
        eventually("it is the primary", || (primary.info("role") == "master").then_some(()));
    }
}

impl Redis {
    fn start_sentinel_of(primary: &Redis, settings: &str) -> Self {
        for _ in 0..5 {
            let folder = TempDir::with_prefix("spikegate-sentinel-").unwrap();
            let address = free_address();
            let config = format!(
                "bind 127.0.0.1\nport {}\ndir {}\nlogfile \"\"\nsentinel monitor mymaster 127.0.0.1 {} 2\n\
                 sentinel failover-timeout mymaster 4000\n{settings}",
                address.port(),
                folder.path().display(),
                primary.address.port(),
            );
            std::fs::write(folder.path().join("redis.conf"), config).unwrap();
            let arguments = &["redis.conf", "--sentinel"];
            let password = password_in(settings);
            let mut sentinel = Self { process: None, address, folder, arguments, environment: Vec::new(), password };
            if sentinel.try_start_again() {
                return sentinel;
            }
        }
        panic!("no Sentinel could be started");
    }

    /// One that has every write on disk before it answers.
    pub fn start() -> Self {
        Self::start_as(Durability::Always)
    }

    /// One that has forgotten everything when it is started again.
    pub fn start_without_persistence() -> Self {
        Self::start_as(Durability::Nothing)
    }

    /// One that has every write on disk a second later.
    pub fn start_everysec() -> Self {
        Self::start_as(Durability::EverySecond)
    }

    /// A replica, in step with its primary. This is not in its configuration file: after a restart it is a primary.
    pub fn start_replica_of(primary: &Self) -> Self {
        let password = primary
            .password
            .as_ref()
            .map_or(String::new(), |password| format!("requirepass {password}\nmasterauth {password}\n"));
        let settings = "appendonly yes\nappendfsync everysec\nrepl-ping-replica-period 1\n";
        let replica = Self::start_settings(&format!("{settings}{password}"), &[]);
        replica.follow(primary);
        replica
    }

    /// One that requires this password.
    pub fn start_with_password(password: &str) -> Self {
        Self::start_settings(&format!("appendonly yes\nrequirepass {password}\nmasterauth {password}\n"), &[])
    }

    /// Makes it a replica of another one, and waits until it is in step.
    #[track_caller]
    pub fn follow(&self, primary: &Self) {
        eventually("it is a replica", || {
            // Sentinels that are not of one mind yet may make it a primary again.
            if self.info("role") == "master" {
                let () = self.command(&format!("REPLICAOF 127.0.0.1 {}", primary.address.port()));
            }
            self.hears(primary).then_some(())
        });
    }

    /// A replica says that the link is up up to a second before its primary sends what is new.
    fn hears(&self, primary: &Self) -> bool {
        let listed = format!("port={},state=online", self.address.port());
        self.info("master_link_status") == "up"
            && (0..3).any(|at| primary.info(&format!("slave{at}")).contains(&listed))
    }

    /// Waits until the kernel has all of its file: a disk that is busy makes Redis wait with it, for two seconds at
    /// most.
    #[track_caller]
    pub fn has_written(&self) {
        eventually("all is written", || (self.info("aof_buffer_length") == "0").then_some(()));
    }

    /// One line of INFO; empty if there is none.
    pub fn info(&self, name: &str) -> String {
        // Whoever makes it a replica ends all connections.
        let info = eventually("it answers INFO", || {
            let client = ::redis::Client::open(self.url()).unwrap();
            let mut connection = client.get_connection_with_timeout(PATIENCE).ok()?;
            ::redis::cmd("INFO").query::<String>(&mut connection).ok()
        });
        let value = info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().to_owned()
    }

    /// What a power cut leaves of it: nothing that was written after `unix_s`. It must be dead.
    pub fn forget_since(&self, unix_s: u64) {
        let mut check = Command::new("redis-check-aof");
        check.args(["--truncate-to-timestamp", &unix_s.to_string(), "appendonlydir/appendonly.aof.manifest"]);
        let output = check.current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    pub fn start_as(durability: Durability) -> Self {
        Self::start_in(durability, &[])
    }

    /// With these variables in its environment.
    pub fn start_in(durability: Durability, environment: &[(String, String)]) -> Self {
        Self::start_settings(durability.settings(), environment)
    }

    fn start_settings(persistence: &str, environment: &[(String, String)]) -> Self {
        for _ in 0..5 {
            let folder = TempDir::with_prefix("spikegate-redis-").unwrap();
            let address = free_address();
            let config = format!(
                "bind 127.0.0.1\nport {}\ndir {}\nsave \"\"\nrepl-diskless-sync-delay 0\n{persistence}daemonize no\nlogfile \"\"\n",
                address.port(),
                folder.path().display()
            );
            std::fs::write(folder.path().join("redis.conf"), config).unwrap();
            let (environment, password) = (environment.to_vec(), password_in(persistence));
            let mut redis = Self { process: None, address, folder, arguments: &["redis.conf"], environment, password };
            if redis.try_start_again() {
                return redis;
            }
        }
        panic!("no redis-server could be started");
    }

    /// The same one on the same port and folder.
    pub fn start_again(&mut self) {
        assert!(self.try_start_again(), "redis-server ended at once");
    }

    fn try_start_again(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        // It logs to its standard output, which belongs with what the test shows of it.
        command.args(self.arguments).current_dir(self.folder.path()).stdout(std::process::Stdio::piped());
        command.envs(self.environment.iter().cloned());
        let process = self.process.insert(Process::start("redis-server", &mut command, self.folder.path()));
        let mut output = process.stdout();
        let log = self.folder.path().join("redis.log");
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::fs::File::create(log).unwrap()));
        eventually("redis-server answers", || {
            let process = self.process.as_mut().unwrap();
            if process.ended().is_some() {
                return Some(false);
            }
            let client = ::redis::Client::open(self.url()).unwrap();
            let mut connection = client.get_connection_with_timeout(Duration::from_millis(500)).ok()?;
            ::redis::cmd("PING").query::<String>(&mut connection).ok().map(|_pong| true)
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        let password = self.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        format!("redis://{password}{}", self.address)
    }

    pub fn connection(&self) -> Connection {
        self.try_connection(PATIENCE).unwrap()
    }

    /// One on which no answer is waited for longer than this.
    pub fn try_connection(&self, patience: Duration) -> ::redis::RedisResult<Connection> {
        let client = ::redis::Client::open(self.url())?;
        let connection = client.get_connection_with_timeout(patience)?;
        connection.set_read_timeout(Some(patience))?;
        Ok(connection)
    }

    /// One command, as typed into `redis-cli`.
    #[track_caller]
    pub fn command<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split_whitespace();
        let mut command = ::redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut self.connection()).unwrap()
    }

    /// Ends it in good order, its data on disk.
    pub fn stop(&mut self) {
        let process = self.process.as_mut().unwrap();
        process.signal("TERM");
        process.wait(PATIENCE);
    }

    pub fn kill9(&mut self) {
        self.process.as_mut().unwrap().kill();
    }

    /// Keeps its connections open and answers nothing any more.
    pub fn freeze(&self) {
        self.process.as_ref().unwrap().signal("STOP");
    }

    pub fn thaw(&self) {
        self.process.as_ref().unwrap().signal("CONT");
    }

    /// The article's own way to put tickets on sale.
    pub fn open_by_hand(&self, total: u64) {
        let () = self.command(&format!("HMSET {KEY} ticket_total_nums {total} ticket_sold_nums 0"));
    }

    /// Tickets held or paid; 0 if there is no such sale.
    pub fn sold(&self) -> u64 {
        self.connection().hget::<_, _, Option<u64>>(KEY, "ticket_sold_nums").unwrap().unwrap_or(0)
    }

    /// Order id -> its record.
    pub fn orders(&self) -> HashMap<String, String> {
        self.connection().hgetall(format!("{{{KEY}}}:orders")).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // What it logged goes where the test shows what a process logged.
        if std::thread::panicking() {
            self.process = None;
            let log = std::fs::read_to_string(self.folder.path().join("redis.log")).unwrap_or_default();
            eprintln!("---- redis-server logged:\n{log}\n----");
        }
    }
}
