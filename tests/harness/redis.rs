//! A Redis of the test's own, that can be stopped, frozen, killed and started again, and whose books can be checked.

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
}

impl Redis {
    /// One that has every write on disk before it answers.
    pub fn start() -> Self {
        Self::start_with("appendonly yes\nappendfsync always\n")
    }

    /// One that has forgotten everything when it is started again.
    pub fn start_without_persistence() -> Self {
        Self::start_with("appendonly no\n")
    }

    fn start_with(persistence: &str) -> Self {
        for _ in 0..5 {
            let folder = TempDir::with_prefix("spikegate-redis-").unwrap();
            let address = free_address();
            let config = format!(
                "bind 127.0.0.1\nport {}\ndir {}\nsave \"\"\n{persistence}daemonize no\nlogfile \"\"\n",
                address.port(),
                folder.path().display()
            );
            std::fs::write(folder.path().join("redis.conf"), config).unwrap();
            let mut redis = Self { process: None, address, folder };
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
        command.arg("redis.conf").current_dir(self.folder.path()).stdout(std::process::Stdio::piped());
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
        format!("redis://{}", self.address)
    }

    pub fn connection(&self) -> Connection {
        let client = ::redis::Client::open(self.url()).unwrap();
        let connection = client.get_connection_with_timeout(PATIENCE).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection
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

    pub fn sold(&self) -> u64 {
        self.connection().hget(KEY, "ticket_sold_nums").unwrap()
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
