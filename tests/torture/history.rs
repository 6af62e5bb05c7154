//! Every request and every answer with its time: the input of the checker.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct Moment {
    /// Since the history began, on a clock that never goes back.
    pub us: u64,
    /// In ms since 1970, to be laid beside the times of a log.
    pub unix_ms: u64,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Tickets, at an edge.
    Buy { key: Option<String>, buyer: String, quantity: u64 },
    /// That an order be paid by this payment, at the ledger.
    Pay { order: String, payment: String },
    /// That an order be paid, at the order service, which makes the payment; the key lets it be asked again.
    Settle { order: String, key: String },
    /// That an order be cancelled, at the ledger.
    Cancel { order: String },
    /// That the stock grow or shrink.
    Restock { change: String, delta: i64 },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It is done.
    Ok(Receipt),
    /// It is not done, and nothing of this request comes later.
    No {
        why: String,
        /// The order that stands in its way.
        order: Option<String>,
    },
    /// Nobody knows.
    Unknown {
        why: String,
        /// The order that there may be.
        order: Option<String>,
    },
}

impl Said {
    pub fn no(why: &str) -> Self {
        Self::No { why: why.to_owned(), order: None }
    }

    pub fn unknown(why: &str) -> Self {
        Self::Unknown { why: why.to_owned(), order: None }
    }

    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// "ok", or why not.
    pub fn name(&self) -> &str {
        match self {
            Self::Ok(_) => "ok",
            Self::No { why, .. } | Self::Unknown { why, .. } => why,
        }
    }

    pub fn order(&self) -> Option<&str> {
        match self {
            Self::Ok(receipt) => Some(&receipt.order),
            Self::No { order, .. } | Self::Unknown { order, .. } => order.as_deref(),
        }
    }
}

/// The order as an answer shows it; empty for what is no order's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Receipt {
    pub order: String,
    pub buyer: String,
    pub quantity: u64,
    pub state: String,
}

/// One request, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub number: usize,
    /// Who asked.
    pub client: String,
    /// Who was asked.
    pub at: String,
    pub ask: Ask,
    pub invoked: Moment,
    /// None while it is under way.
    pub ended: Option<(Moment, Said)>,
}

impl Call {
    pub fn said(&self) -> Option<&Said> {
        self.ended.as_ref().map(|(_, said)| said)
    }

    pub fn is_ok(&self) -> bool {
        self.said().is_some_and(Said::is_ok)
    }

    /// The outcome is unknown, or there was no answer.
    pub fn is_unknown(&self) -> bool {
        self.said().is_none_or(Said::is_unknown)
    }
}

/// Records calls from many threads, in memory and in a file with a JSON line for each request and each answer.
pub struct History {
    begun: Instant,
    record: Mutex<(Vec<Call>, BufWriter<File>)>,
}

impl History {
    pub fn in_file(path: &Path) -> Self {
        let file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { begun: Instant::now(), record: Mutex::new((Vec::new(), BufWriter::new(file))) }
    }

    pub fn now(&self) -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Moment { us: self.begun.elapsed().as_micros() as u64, unix_ms: unix.as_millis() as u64 }
    }

    /// Sends a request, and records the answer.
    pub fn call(&self, client: &str, at: &str, ask: Ask, answer: impl FnOnce() -> Said) -> Said {
        let number = {
            let mut record = self.record.lock().unwrap();
            let (calls, file) = &mut *record;
            let (number, invoked) = (calls.len(), self.now());
            let line = json!({ "us": invoked.us, "unix_ms": invoked.unix_ms, "call": number, "client": client, "at": at, "invoke": ask });
            writeln!(file, "{line}").unwrap();
            calls.push(Call { number, client: client.to_owned(), at: at.to_owned(), ask, invoked, ended: None });
            number
        };
        let said = answer();
        let mut record = self.record.lock().unwrap();
        let (calls, file) = &mut *record;
        let ended = self.now();
        let mut line = json!({ "us": ended.us, "unix_ms": ended.unix_ms, "call": number });
        line.as_object_mut().unwrap().extend(json!(said).as_object().unwrap().clone());
        writeln!(file, "{line}").unwrap();
        calls[number].ended = Some((ended, said.clone()));
        said
    }

    /// What was recorded so far; the file has all of it, too.
    pub fn calls(&self) -> Vec<Call> {
        let mut record = self.record.lock().unwrap();
        record.1.flush().unwrap();
        record.0.clone()
    }
}
