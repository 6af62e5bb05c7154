//! Reads the books of the sale ten times a second, and reports when they disagree.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::history::History;
use crate::harness::books::Books;
use crate::harness::{Connection, Request};

/// Where a sale can be read.
pub enum Source {
    /// In Redis itself, by its address and not by any network of the story; and whether it may lose something, so that
    /// its log goes back.
    Redis { url: Arc<Mutex<String>>, may_lose: bool },
    /// An edge's control listener.
    Control(std::net::SocketAddr),
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub snapshots: usize,
    pub faults: Vec<String>,
}

const INTERVAL: Duration = Duration::from_millis(100);

/// As long as a snapshot may be waited for; a Redis that is frozen or dead is looked at again later.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks until it is over.
pub fn observe(source: &Source, history: &History, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut kept = (String::new(), None);
    let mut version = 0;
    let goes_on = !matches!(source, Source::Redis { may_lose: true, .. });
    while !over.load(Ordering::Relaxed) {
        let snapshot = match source {
            Source::Redis { url, .. } => {
                let url = url.lock().unwrap().clone();
                if kept.0 != url {
                    kept = (url.clone(), None);
                }
                in_redis(&url, &mut kept.1)
            }
            Source::Control(address) => at_control(*address),
        };
        if let Some((newer, faults)) = snapshot {
            seen.snapshots += 1;
            let at = history.now();
            seen.faults.extend(faults.iter().map(|fault| format!("at {at:?}: {fault}")));
            if goes_on && newer < version {
                seen.faults.push(format!("at {at:?}: the log went back from {version} to {newer}"));
            }
            version = newer;
        }
        std::thread::sleep(INTERVAL);
    }
    seen
}

/// The version, and what is wrong with it; none if it cannot be read now.
fn in_redis(url: &str, kept: &mut Option<::redis::Connection>) -> Option<(u64, Vec<String>)> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => {
            let client = ::redis::Client::open(url).unwrap();
            let connection = client.get_connection_with_timeout(PATIENCE).ok()?;
            connection.set_read_timeout(Some(PATIENCE)).ok()?;
            connection
        }
    };
    let books = Books::read(&mut connection).ok()?;
    *kept = Some(connection);
    Some(match books {
        // Whoever reconciles has not come to the end.
        Some(books) if books.fenced => (books.counters.version, Vec::new()),
        Some(books) => (books.counters.version, books.faults()),
        None => (0, vec!["there is no such sale".to_owned()]),
    })
}

fn at_control(address: std::net::SocketAddr) -> Option<(u64, Vec<String>)> {
    let request = Request::get("/sales/ticket").header("Connection", "close");
    let answer = Connection::try_to(address).ok()?.patience(PATIENCE).ok()?.try_ask(&request).ok()?;
    if answer.status != 200 {
        return None;
    }
    let sale = answer.json();
    let number = |name: &str| sale[name].as_u64().unwrap_or_else(|| panic!("no {name}: {sale}"));
    let adds_up = number("total") == number("available") + number("held") + number("paid");
    let faults = if adds_up { Vec::new() } else { vec![format!("it does not add up: {}", Value::to_string(&sale))] };
    Some((number("version"), faults))
}
