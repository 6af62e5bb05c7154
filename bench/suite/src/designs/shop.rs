//! One design, up and running with all of its servers, as its buyers see it.

use std::fmt::{Display, Formatter};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::designs::crowd::{Timing, crowd};
use crate::http::{Answer, BACKENDS, EDGE, REDIS};
use crate::postgres::Postgres;
use crate::process::{Process, run};
use crate::testbed::{Folder, Places, await_ready, new_folder, number_after, start};

/// Where the order service, or the server of the designs, listens.
const ORDERS: SocketAddr = BACKENDS[0];
/// How long deliveries may take to become rows.
const DELIVERY: Duration = Duration::from_secs(60);

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// An order and its ticket in one transaction of the database.
    OrderFirst,
    /// The same, where no commit waits for the disk; that is what Redis promises as it comes.
    OrderFirstUnsynced,
    /// An order first, and a ticket once it is paid.
    PayFirst,
    /// Spikegate: a ticket in Redis, and the order in the database later.
    PreDeduct,
    /// The same, with a Redis that syncs to disk before every answer; that is what PostgreSQL promises as it comes.
    PreDeductSynced,
}

use Design::{OrderFirst, OrderFirstUnsynced, PayFirst, PreDeduct, PreDeductSynced};

impl Design {
    pub const ALL: [Self; 5] = [OrderFirst, OrderFirstUnsynced, PayFirst, PreDeduct, PreDeductSynced];
    /// Those that differ in what becomes of the tickets.
    pub const MAIN: [Self; 3] = [OrderFirst, PayFirst, PreDeduct];

    pub fn has_edge(self) -> bool {
        matches!(self, PreDeduct | PreDeductSynced)
    }

    /// Its name in the paths of the designs' server.
    fn name(self) -> &'static str {
        if self == PayFirst { "pay-first" } else { "order-first" }
    }
}

impl Display for Design {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            OrderFirst => "order-then-deduct",
            OrderFirstUnsynced => "order-then-deduct, commits not synced",
            PayFirst => "pay-then-deduct",
            PreDeduct => "pre-deduct (Spikegate)",
            PreDeductSynced => "pre-deduct (Spikegate), Redis synced",
        })
    }
}

/// Processor time of each server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub edge: Duration,
    pub redis: Duration,
    pub orders: Duration,
    pub postgres: Duration,
}

impl Cpu {
    pub fn all(&self) -> Duration {
        self.edge + self.redis + self.orders + self.postgres
    }
}

/// What a crowd of buyers came to.
#[derive(Debug, Default)]
pub struct Bought {
    /// Ids of the orders that were made.
    pub orders: Vec<String>,
    /// How many heard "sold out".
    pub refused: usize,
    pub timing: Timing,
}

/// What a crowd of payers came to.
#[derive(Debug, Default)]
pub struct Paid {
    /// How many have a ticket.
    pub paid: usize,
    /// How many have paid for nothing.
    pub refunds: usize,
    pub timing: Timing,
}

/// How long a crowd of buyers goes on.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Buyers(usize),
    Time(Duration),
}

/// Servers are dropped, and so ended, in this order.
pub struct Shop {
    pub design: Design,
    edge: Option<Process>,
    orders: Process,
    redis: Option<Process>,
    postgres: Postgres,
    buyers: usize,
    _folder: Folder,
}

impl Shop {
    /// Opens a sale of so many tickets.
    pub fn open(places: &Places, design: Design, tickets: usize, hold: Duration) -> Result<Self, String> {
        let folder = new_folder(&places.bench.join("conf")).map_err(|error| error.to_string())?;
        let at = folder.path();
        let postgres = Postgres::start(at, design != OrderFirstUnsynced)?;
        let program =
            if design.has_edge() { places.product.join("spikegate-orders") } else { places.tools.join("designs") };
        let mut command = Command::new(program);
        command.current_dir(at).args(["--listen", &ORDERS.to_string(), "--database", &postgres.url()]);
        if design.has_edge() {
            let control = format!("http://{}", crate::http::CONTROL);
            command.args(["--control", &control, "--secret-file", "delivery.secret"]);
            // The demo's payment provider approves at once.
            command.args(["--payment", "demo"]).env("RUST_LOG", "warn");
        }
        let orders = start(&mut command, at, "orders", true, &[ORDERS])?;
        let (mut redis, mut edge) = (None, None);
        if design.has_edge() {
            let mut command = Command::new("redis-server");
            command.current_dir(at).arg("redis.conf");
            if design == PreDeductSynced {
                command.args(["--appendfsync", "always"]);
            }
            redis = Some(start(&mut command, at, "redis", true, &[REDIS])?);
            let file = at.join("spikegate-designs.yaml");
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            let text = text.replace("TOTAL", &tickets.to_string()).replace("HOLD", &format!("{}s", hold.as_secs()));
            fs::write(&file, text).map_err(|error| error.to_string())?;
            let mut command = Command::new(places.product.join("spikegate"));
            command.current_dir(at).args(["run", "--config"]).arg(&file).env("RUST_LOG", "warn");
            edge = Some(start(&mut command, at, "edge", true, &[EDGE])?);
            await_ready()?;
        }
        let shop = Self { design, edge, orders, redis, postgres, buyers: 0, _folder: folder };
        if !design.has_edge() {
            shop.open_at_orders(tickets, hold)?;
        }
        Ok(shop)
    }

    fn open_at_orders(&self, tickets: usize, hold: Duration) -> Result<(), String> {
        let body = format!(r#"{{"total":{tickets},"hold_ms":{}}}"#, hold.as_millis());
        let path = format!("/designs/{}", self.design.name());
        let mut asked = false;
        let request = |bytes: &mut Vec<u8>| {
            (!std::mem::replace(&mut asked, true)).then(|| {
                let length = body.len();
                let head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length:";
                let _ = write!(bytes, "PUT {path} HTTP/1.1\r\n{head} {length}\r\n\r\n{body}");
                0
            })
        };
        let opened = crowd(ORDERS, request, |_, answer| if answer.status == 200 { Ok(()) } else { Err(said(answer)) });
        opened.map(drop).map_err(|error| error.to_string())
    }

    /// Where buyers come in.
    fn address(&self) -> SocketAddr {
        if self.design.has_edge() { EDGE } else { ORDERS }
    }

    pub fn cpu(&self) -> Cpu {
        let of = |process: &Option<Process>| process.as_ref().map(Process::cpu).unwrap_or_default();
        Cpu { edge: of(&self.edge), redis: of(&self.redis), orders: self.orders.cpu(), postgres: self.postgres.cpu() }
    }

    /// Buyers who were never here before come, each to buy one ticket.
    pub fn buy(&mut self, until: Until) -> Result<Bought, String> {
        let path = match self.design {
            PreDeduct | PreDeductSynced => "/buy/ticket".to_owned(),
            _ => format!("/designs/{}/purchase", self.design.name()),
        };
        let (first, begun) = (self.buyers, Instant::now());
        let mut next = first;
        let request = |bytes: &mut Vec<u8>| {
            let goes_on = match until {
                Until::Buyers(count) => next < first + count,
                Until::Time(time) => begun.elapsed() < time,
            };
            goes_on.then(|| {
                next += 1;
                let head = "Host: localhost\r\nContent-Length: 0\r\nX-User-Id: buyer";
                let _ = write!(bytes, "POST {path} HTTP/1.1\r\n{head}-{next}\r\n\r\n");
                next
            })
        };
        let mut bought = Bought::default();
        let (orders, refused) = (&mut bought.orders, &mut bought.refused);
        let timing = crowd(self.address(), request, |_, answer| {
            let text = String::from_utf8_lossy(answer.body);
            match answer.status {
                201 => orders.push(id(&text).ok_or_else(|| said(answer))?.to_owned()),
                409 if text.contains(":sold-out\"") => *refused += 1,
                _ => return Err(said(answer)),
            }
            Ok(())
        });
        bought.timing = timing.map_err(|error| format!("a purchase: {error}"))?;
        self.buyers = next;
        Ok(bought)
    }

    /// All of these are paid. Who is told that the payment is still under way asks again.
    pub fn pay(&self, orders: &[String]) -> Result<Paid, String> {
        use std::cell::RefCell;
        let path = match self.design {
            PreDeduct | PreDeductSynced => "/orders".to_owned(),
            _ => format!("/designs/{}/orders", self.design.name()),
        };
        let left: RefCell<Vec<usize>> = RefCell::new((0..orders.len()).rev().collect());
        let request = |bytes: &mut Vec<u8>| {
            let number = left.borrow_mut().pop()?;
            let head = "Host: localhost\r\nContent-Length: 0";
            // The key says that asking again is no second payment.
            let id = &orders[number];
            let _ = write!(bytes, "POST {path}/{id}/pay HTTP/1.1\r\n{head}\r\nIdempotency-Key: {id}\r\n\r\n");
            Some(number)
        };
        let mut outcome = Paid::default();
        let (paid, refunds) = (&mut outcome.paid, &mut outcome.refunds);
        let mut again = 0;
        let timing = crowd(self.address(), request, |number, answer| {
            match answer.status {
                200 => *paid += 1,
                202 if again < 10 * orders.len() => {
                    again += 1;
                    left.borrow_mut().push(number);
                }
                409 if String::from_utf8_lossy(answer.body).contains(":refund-due\"") => *refunds += 1,
                _ => return Err(said(answer)),
            }
            Ok(())
        });
        outcome.timing = timing.map_err(|error| format!("a payment: {error}"))?;
        Ok(outcome)
    }

    /// Rows of the database in this state, whatever the design calls it.
    pub fn rows(&self, state: &str) -> Result<u64, String> {
        let state = if self.design == PayFirst && state == "HELD" { "UNPAID" } else { state };
        self.postgres.count(if self.design.has_edge() { "orders" } else { "design_orders" }, state)
    }

    /// Waits until so many orders are rows of the database in this state, and no more; says how long that took.
    pub fn await_rows(&self, state: &str, count: usize) -> Result<Duration, String> {
        let begun = Instant::now();
        loop {
            let rows = self.rows(state)?;
            if rows == count as u64 {
                return Ok(begun.elapsed());
            }
            if rows > count as u64 || begun.elapsed() > DELIVERY {
                return Err(format!("the database has {rows} orders that are {state}, and there should be {count}"));
            }
            // Asking is work for the database, which is being measured.
            sleep(Duration::from_millis(100));
        }
    }

    /// Sold tickets, as counted by the design that sells them.
    pub fn sold(&self) -> Result<u64, String> {
        if self.design.has_edge() {
            let port = REDIS.port().to_string();
            let mut command = Command::new("redis-cli");
            command.args(["-p", &port, "HGET", "ticket_hash_key", "ticket_sold_nums"]);
            return number_after(&run(&mut command, Duration::from_secs(10))?.text, "");
        }
        self.postgres.number(&format!("SELECT sold FROM design_stock WHERE design = '{}'", self.design.name()))
    }
}

/// The id of the order that this JSON is.
fn id(text: &str) -> Option<&str> {
    text.split_once(r#""order_id":""#)?.1.split('"').next()
}

fn said(answer: &Answer<'_>) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(answer.body))
}
