//! Both designs sell what they should, from two processes on one PostgreSQL. Otherwise the comparison would be
//! worthless.

#[path = "../../suite/src/postgres.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the suite, which uses all of it")]
mod postgres;
#[path = "../../suite/src/process.rs"]
#[allow(dead_code, missing_docs, reason = "shared with the suite, which uses all of it")]
mod process;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::Postgres;
use process::Process;
use serde_json::{Value, json};
use tempfile::TempDir;

const CLIENTS: usize = 16;

/// How long anything may take on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// One PostgreSQL with two servers of the designs; they end before it does.
struct Services {
    processes: [Process; 2],
    addresses: [SocketAddr; 2],
    database: Postgres,
    _folder: TempDir,
}

impl Services {
    /// Starts the servers and opens a sale.
    fn open(design: &str, total: u32, hold_ms: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("spikegate-designs-").permissions(readable()).tempdir().unwrap();
        let database = Postgres::start(folder.path(), true).unwrap();
        let [first, second] = ["first", "second"].map(|name| start(folder.path(), name, &database.url()));
        let services =
            Self { processes: [first.0, second.0], addresses: [first.1, second.1], database, _folder: folder };
        let sale = json!({ "total": total, "hold_ms": hold_ms }).to_string();
        let answer = ask(services.addresses[0], "PUT", &format!("/designs/{design}"), "", &sale);
        assert_eq!(answer.status, 200, "{answer:?}");
        services
    }

    /// Sends `count` POSTs from 16 clients to both servers in turn, and returns the responses in the order of their
    /// numbers.
    fn crowd(&self, count: usize, path: impl Fn(usize) -> String + Sync) -> Vec<Answer> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut answers = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return answers;
                }
                let buyer = format!("X-User-Id: buyer-{number}\r\n");
                answers.push((number, ask(self.addresses[number % 2], "POST", &path(number), &buyer, "")));
            }
        };
        let mut answers: Vec<(usize, Answer)> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    fn buy(&self, design: &str, buyers: usize) -> Vec<Answer> {
        self.crowd(buyers, |_| format!("/designs/{design}/purchase"))
    }

    fn pay(&self, design: &str, id: &str) -> Answer {
        ask(self.addresses[1], "POST", &format!("/designs/{design}/orders/{id}/pay"), "", "")
    }

    /// The number of orders in this state.
    fn count(&self, state: &str) -> u64 {
        self.database.count("design_orders", state).unwrap()
    }

    fn number(&self, query: &str) -> u64 {
        self.database.number(query).unwrap()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for process in &self.processes {
            process::signal(process.id(), libc::SIGTERM);
        }
    }
}

/// PostgreSQL runs as another user if the test runs as root.
fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

fn start(folder: &Path, name: &str, database: &str) -> (Process, SocketAddr) {
    let log = folder.join(format!("{name}.log"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_designs"));
    let process =
        Process::start(command.args(["--listen", "127.0.0.1:0", "--database", database]), &log, false).unwrap();
    let address = eventually("the server listens", || {
        let text = fs::read_to_string(&log).unwrap();
        text.lines().find_map(|line| line.strip_prefix("listening on ")?.parse().ok())
    });
    (process, address)
}

#[track_caller]
fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WAIT_MAX;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {WAIT_MAX:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    /// The status and the name of the problem.
    fn problem(&self) -> (u16, &str) {
        let name = self.body["type"].as_str().unwrap_or_default();
        (self.status, name.strip_prefix("urn:spikegate:problem:").unwrap_or_default())
    }
}

fn ask(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let json = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}{json}");
    write!(connection, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Answer { status, body: serde_json::from_str(body).unwrap() }
}

/// Returns the ids of the orders; all other responses must be "sold out".
fn ids(answers: &[Answer]) -> Vec<String> {
    let (orders, others): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 201);
    for answer in others {
        assert_eq!(answer.problem(), (409, "sold-out"), "{answer:?}");
    }
    orders.into_iter().map(|answer| answer.body["order_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn order_first_sells_what_there_is_and_no_more() {
    let services = Services::open("order-first", 50, 600_000);
    let orders = ids(&services.buy("order-first", 200));
    assert_eq!((orders.len(), services.count("HELD")), (50, 50));
    // Every buyer pays twice.
    let paid = services.crowd(100, |number| format!("/designs/order-first/orders/{}/pay", orders[number / 2]));
    assert!(paid.iter().all(|answer| answer.status == 200 && answer.body["state"] == "PAID"), "{paid:?}");
    assert_eq!((services.count("PAID"), services.number("SELECT count(*) FROM design_orders")), (50, 50));
    let unknown = services.pay("order-first", &"0".repeat(32));
    assert_eq!(unknown.problem(), (404, "order-unknown"));
}

#[test]
fn order_first_releases_each_unpaid_ticket_once() {
    let services = Services::open("order-first", 5, 1_000);
    let orders = ids(&services.buy("order-first", 5));
    assert_eq!(orders.len(), 5);
    eventually("all holds have ended", || (services.count("RELEASED") == 5).then_some(()));
    let late = services.pay("order-first", &orders[0]);
    assert_eq!(late.problem(), (409, "order-released"), "{late:?}");

    let stock = ["sold", "total"]
        .map(|column| services.number(&format!("SELECT {column} FROM design_stock WHERE design = 'order-first'")));
    assert_eq!(stock, [0, 5], "two processes that sweep release each ticket once");
}

#[test]
fn pay_first_accepts_every_order_and_pays_as_many_as_there_are_tickets() {
    let services = Services::open("pay-first", 50, 600_000);
    let orders = ids(&services.buy("pay-first", 200));
    assert_eq!(orders.len(), 200, "nothing is sold out before it is paid");
    // Every buyer pays twice and gets the same response twice.
    let paid = services.crowd(400, |number| format!("/designs/pay-first/orders/{}/pay", orders[number / 2]));
    for twice in paid.chunks(2) {
        assert_eq!(twice[0].status, twice[1].status, "{twice:?}");
        assert!(twice[0].status == 200 || twice[0].problem().1 == "refund-due", "{twice:?}");
    }
    assert_eq!(paid.iter().filter(|answer| answer.status == 200).count(), 2 * 50);
    assert_eq!((services.count("PAID"), services.count("REFUND_DUE")), (50, 150));
    assert!(ids(&services.buy("pay-first", 20)).is_empty(), "now it is sold out");
}

#[test]
fn other_databases_are_rejected() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_designs"));
    let output = command.args(["--listen", "127.0.0.1:0", "--database", "sqlite:orders.db"]).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("designs: --database must be postgres://"), "{text}");
}
