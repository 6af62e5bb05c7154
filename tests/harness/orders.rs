//! The order service, the demo's backend, as a real process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::client::{Connection, Request};
use super::process::{Process, binary};

pub struct OrderService {
    process: Process,
    address: SocketAddr,
    name: String,
    _folder: TempDir,
}

impl OrderService {
    /// On a port that the kernel chooses.
    pub fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0")
    }

    /// On this address; for one that comes back after it died.
    pub fn start_at(name: &str, listen: &str) -> Self {
        let folder = TempDir::with_prefix("spikegate-orders-").unwrap();
        let mut command = Command::new(binary("orders"));
        command.args(["--listen", listen, "--name", name]).current_dir(folder.path()).stdout(Stdio::piped());
        let mut process = Process::start("orders", &mut command, folder.path());
        let mut line = String::new();
        BufReader::new(process.stdout()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("orders said {line:?}, and logged:\n{}", process.log()));
        Self { process, address, name: name.to_owned(), _folder: folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it has answered; asking does not count.
    pub fn requests(&self) -> u64 {
        let stats = Connection::to(self.address).ask(&Request::get("/stats").header("Connection", "close")).json();
        assert_eq!(stats["name"], self.name);
        stats["requests"].as_u64().unwrap()
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }
}
