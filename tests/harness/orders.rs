//! The order service as a real process, and what several of them share: a database, a secret, an edge.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use super::answer::Answer;
use super::client::{Connection, Request};
use super::postgres::Postgres;
use super::process::{Process, binary};

/// The secret that signs the deliveries of the tests.
pub const SECRET: &str = "a-secret-of-some-length";

/// The epoch of the deliveries of the tests.
pub const EPOCH: &str = "0123456789abcdef";

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
        Self::spawn(name, listen, &[]).ready()
    }

    fn spawn(name: &str, listen: &str, more: &[String]) -> Starting {
        let folder = TempDir::with_prefix("spikegate-orders-").unwrap();
        let mut command = Command::new(binary("spikegate-orders"));
        command.args(["--listen", listen, "--name", name]).args(more);
        command.current_dir(folder.path()).stdout(Stdio::piped());
        Starting { process: Process::start("orders", &mut command, folder.path()), name: name.to_owned(), folder }
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

    /// One request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Answer {
        Connection::to(self.address).ask(&request.clone().header("Connection", "close"))
    }

    #[track_caller]
    pub fn deliver(&self, events: &[Value]) -> Answer {
        self.ask(&delivery(events))
    }

    /// Delivers what must be kept.
    #[track_caller]
    pub fn keep(&self, events: &[Value]) {
        let answer = self.deliver(events);
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// `GET /orders/ID`.
    #[track_caller]
    pub fn show(&self, id: &str) -> Answer {
        self.ask(&Request::get(&format!("/orders/{id}")))
    }

    /// The order, which must be in the database.
    #[track_caller]
    pub fn order(&self, id: &str) -> Value {
        let answer = self.show(id);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    #[track_caller]
    pub fn pay(&self, id: &str) -> Answer {
        self.ask(&Request::post(&format!("/orders/{id}/pay")))
    }

    #[track_caller]
    pub fn cancel(&self, id: &str) -> Answer {
        self.ask(&Request::post(&format!("/orders/{id}/cancel")))
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// One that has been started and may not be ready yet.
struct Starting {
    process: Process,
    name: String,
    folder: TempDir,
}

impl Starting {
    fn ready(mut self) -> OrderService {
        let mut line = String::new();
        BufReader::new(self.process.stdout()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("orders said {line:?}, and logged:\n{}", self.process.log()));
        OrderService { process: self.process, address, name: self.name, _folder: self.folder }
    }
}

/// A database, a secret and the way to an edge, which order services share.
pub struct Shelf {
    folder: TempDir,
    postgres: Option<Postgres>,
    control: String,
}

impl Shelf {
    /// A SQLite file. No edge answers.
    pub fn sqlite() -> Self {
        let folder = TempDir::with_prefix("spikegate-shelf-").unwrap();
        let shelf = Self { folder, postgres: None, control: "http://127.0.0.1:1".to_owned() };
        std::fs::write(shelf.secret_file(), format!("{SECRET}\n")).unwrap();
        shelf
    }

    /// A PostgreSQL. No edge answers.
    pub fn postgres() -> Self {
        Self { postgres: Some(Postgres::start()), ..Self::sqlite() }
    }

    /// The same, with the edge whose control listener has this address.
    pub fn with_control(self, control: SocketAddr) -> Self {
        Self { control: format!("http://{control}"), ..self }
    }

    pub fn secret_file(&self) -> PathBuf {
        self.folder.path().join("delivery.secret")
    }

    /// Where the orders are, if in SQLite.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("data/orders.db")
    }

    /// Order services with these payment providers, started all at once.
    pub fn services<const COUNT: usize>(&self, payments: [&str; COUNT]) -> [OrderService; COUNT] {
        payments.map(|payment| self.spawn("127.0.0.1:0", payment)).map(Starting::ready)
    }

    /// One order service at this address, for an edge that knows it already.
    pub fn service_at(&self, address: SocketAddr, payment: &str) -> OrderService {
        self.spawn(&address.to_string(), payment).ready()
    }

    fn spawn(&self, listen: &str, payment: &str) -> Starting {
        let database = match &self.postgres {
            Some(postgres) => postgres.url(),
            None => format!("sqlite:{}", self.file().display()),
        };
        let secret = self.secret_file().display().to_string();
        let arguments = ["--database", &database, "--control", &self.control];
        let arguments = arguments.into_iter().chain(["--secret-file", &secret, "--payment", payment]);
        OrderService::spawn(payment, listen, &arguments.map(str::to_owned).collect::<Vec<_>>())
    }

    /// Every row that a query of two columns of text gives.
    pub fn pairs(&self, query: &str) -> Vec<(String, String)> {
        if let Some(postgres) = &self.postgres {
            return postgres.pairs(query);
        }
        let database = rusqlite::Connection::open(self.file()).unwrap();
        database.busy_timeout(super::PATIENCE).unwrap();
        let mut statement = database.prepare(query).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Every row of the orders, and of what was done to settle them: order and state, sorted.
    pub fn rows(&self, table: &str) -> Vec<(String, String)> {
        self.pairs(&format!("SELECT order_id, state FROM {table} ORDER BY order_id, state"))
    }

    /// One order service.
    pub fn service(&self, payment: &str) -> OrderService {
        let [service] = self.services([payment]);
        service
    }

    /// The states of all payments and cancellations in SQLite, in the order in which they were begun.
    pub fn settlements(&self) -> Vec<String> {
        let database = rusqlite::Connection::open(self.file()).unwrap();
        let mut statement = database.prepare("SELECT state FROM settlements ORDER BY created_at_ms, id").unwrap();
        let states = statement.query_map([], |row| row.get(0)).unwrap();
        states.map(Result::unwrap).collect()
    }
}

/// A signed delivery of the sale `ticket`.
pub fn delivery(events: &[Value]) -> Request {
    let body = json!({ "sale": "ticket", "epoch": EPOCH, "events": events }).to_string();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    signed(&body, now_s, SECRET)
}

/// A question of the sale `ticket` about the orders behind `after`, signed.
pub fn question(after: Option<&str>, limit: u32) -> Request {
    let body = json!({ "sale": "ticket", "epoch": EPOCH, "after": after, "limit": limit }).to_string();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    signed_to("/hooks/spikegate/orders", &body, now_s, SECRET)
}

/// A body with its signature.
pub fn signed(body: &str, unix_seconds: u64, secret: &str) -> Request {
    signed_to("/hooks/spikegate", body, unix_seconds, secret)
}

fn signed_to(path: &str, body: &str, unix_seconds: u64, secret: &str) -> Request {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    let mac = mac.chain_update(format!("{unix_seconds}.{body}")).finalize().into_bytes();
    let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = format!("t={unix_seconds},v1={hex}");
    Request::post(path).body("application/json", body).header("Spikegate-Signature", &signature)
}
