//! Sends a request to any edge, and classifies the answer.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::fault::edge_name;
use super::history::{Ask, History, Receipt, Said};
use super::schedule::Fate;
use super::site::Doors;
use crate::harness::{Answer, Connection, Request};

/// The longest that a client waits who wants to know. Longer than any answer may take, so that it is the checker who
/// complains.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// One client, with the connections that it keeps.
pub struct Client<'a> {
    name: String,
    doors: &'a Doors,
    history: &'a History,
    kept: HashMap<SocketAddr, Connection>,
}

impl<'a> Client<'a> {
    pub fn new(name: &str, doors: &'a Doors, history: &'a History) -> Self {
        Self { name: name.to_owned(), doors, history, kept: HashMap::new() }
    }

    /// How many doors there are for this.
    pub fn doors(&self, ask: &Ask) -> usize {
        self.doors_of(ask).len()
    }

    fn doors_of(&self, ask: &Ask) -> &'a [SocketAddr] {
        match ask {
            Ask::Buy { .. } => &self.doors.public,
            Ask::Pay { .. } | Ask::Cancel { .. } | Ask::Restock { .. } => &self.doors.control,
            Ask::Settle { .. } => &self.doors.orders,
        }
    }

    /// Asks once, at the door of this number.
    pub fn ask(&mut self, ask: &Ask, door: usize, patience: Duration) -> Said {
        let door = door % self.doors(ask);
        let address = self.doors_of(ask)[door];
        let at = match ask {
            Ask::Settle { .. } => format!("orders {door}"),
            _ => edge_name(door).to_owned(),
        };
        let (history, name) = (self.history, self.name.clone());
        history.call(&name, &at, ask.clone(), || self.say(ask, address, patience))
    }

    fn say(&mut self, ask: &Ask, address: SocketAddr, patience: Duration) -> Said {
        let connection = match self.kept.remove(&address) {
            Some(kept) => Ok(kept),
            None => Connection::try_to(address),
        };
        let Ok(mut connection) = connection.and_then(|connection| connection.patience(patience)) else {
            return Said::no("not connected");
        };
        match connection.try_ask(&request(ask)) {
            Ok(answer) => {
                self.kept.insert(address, connection);
                said(ask, &answer)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Said::unknown("gave up")
            }
            Err(_) => Said::unknown("no answer"),
        }
    }

    /// Asks up to `tries` times, at one door after the other, until it is known what became of it. Some have no
    /// patience.
    pub fn ask_until_known(&mut self, ask: &Ask, tries: u64, fate: &mut Fate) -> Said {
        let first = fate.either();
        let mut said = Said::unknown("no answer");
        for number in 0..tries {
            let patience = if fate.chance(15) { fate.ms(5..300) } else { PATIENCE };
            said = self.ask(ask, first + number as usize, patience);
            if super::checker::is_definite(&said) {
                break;
            }
            std::thread::sleep(fate.ms(10..200));
        }
        said
    }
}

fn request(ask: &Ask) -> Request {
    match ask {
        Ask::Buy { key, buyer, quantity } => {
            let request = Request::post(&format!("/buy/ticket?quantity={quantity}")).header("X-User-Id", buyer);
            match key {
                Some(key) => request.header("Idempotency-Key", &format!("\"{key}\"")),
                None => request,
            }
        }
        Ask::Pay { order, payment } => {
            Request::post(&format!("/sales/ticket/orders/{order}/confirm")).json(&json!({ "payment": payment }))
        }
        Ask::Cancel { order } => Request::post(&format!("/sales/ticket/orders/{order}/cancel")).json(&json!({})),
        Ask::Restock { change, delta } => {
            Request::post("/sales/ticket/stock").json(&json!({ "change_id": change, "delta": delta }))
        }
        Ask::Settle { order, key } => {
            Request::post(&format!("/orders/{order}/pay")).header("Idempotency-Key", &format!("\"{key}\""))
        }
    }
}

fn said(ask: &Ask, answer: &Answer) -> Said {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    match (ask, answer.status) {
        (Ask::Buy { .. }, 201)
        | (Ask::Pay { .. } | Ask::Settle { .. } | Ask::Cancel { .. } | Ask::Restock { .. }, 200) => {
            let quantity = body["quantity"].as_u64().unwrap_or_default();
            Said::Ok(Receipt { order: text("order_id"), buyer: text("buyer"), quantity, state: text("state") })
        }
        (Ask::Settle { .. }, 202) => Said::unknown("under way"),
        (_, status) => {
            let why = text("type").trim_start_matches("urn:spikegate:problem:").to_owned();
            let why = if why.is_empty() {
                format!("status {status}: {}", String::from_utf8_lossy(&answer.body))
            } else {
                why
            };
            let order = body["order_id"].as_str().map(str::to_owned);
            // What fails at the order service may have been begun.
            let may_be_done = why == "outcome-unknown" || (matches!(ask, Ask::Settle { .. }) && status >= 500);
            if may_be_done { Said::Unknown { why, order } } else { Said::No { why, order } }
        }
    }
}
