//! An order service in this process. It keeps deliveries and checks every signature. A test can make it refuse, fail,
//! hang, or keep a delivery without an answer.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use spikegate::auth::secret::Secret;
use spikegate::delivery::sign;

use super::backend::{After, Backend, Received};

/// Its secret, for the edges' configurations.
pub const SECRET: &str = "a-secret-that-both-sides-have";

/// What it does with the next deliveries.
#[derive(Debug, Clone, PartialEq)]
pub enum Mood {
    /// Keeps them, and answers 204.
    Well,
    /// Answers this, and keeps nothing.
    Answers(u16),
    /// Answers 400 to a delivery with one of these events (number and order), and keeps nothing of it.
    Refuses(Vec<(u64, Option<String>)>),
    /// Reads, keeps nothing, and never answers.
    Hangs,
    /// Keeps them, and closes the connection without a word.
    KeepsInSilence,
}

/// One delivery that it kept.
#[derive(Debug, Clone)]
pub struct Batch {
    pub sale: String,
    pub epoch: String,
    pub events: Vec<Value>,
}

#[derive(Default)]
struct Kept {
    batches: Vec<Batch>,
    posts: usize,
    /// What was wrong with any of them.
    faults: Vec<String>,
}

struct Shared {
    mood: Mutex<Mood>,
    kept: Mutex<Kept>,
    pause: Mutex<Duration>,
}

pub struct Receiver {
    backend: Option<Backend>,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    pub fn start() -> Self {
        let shared = Arc::new(Shared { mood: Mutex::new(Mood::Well), kept: Mutex::default(), pause: Mutex::default() });
        let backend = backend_at((std::net::Ipv4Addr::LOCALHOST, 0).into(), &shared);
        Self { address: backend.address(), backend: Some(backend), shared }
    }

    /// Its port refuses connections from now on.
    pub fn stop(&mut self) {
        self.backend = None;
    }

    /// Where it was, with what it had kept.
    pub fn start_again(&mut self) {
        self.backend = Some(backend_at(self.address, &self.shared));
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn is(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// Takes so long for every answer.
    pub fn takes(&self, pause: Duration) {
        *self.shared.pause.lock().unwrap() = pause;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap()
    }

    /// How many POSTs came, whatever became of them.
    pub fn posts(&self) -> usize {
        self.kept().posts
    }

    pub fn batches(&self) -> Vec<Batch> {
        self.kept().batches.clone()
    }

    /// Every event that it kept, as they came, those that came twice among them.
    pub fn events(&self) -> Vec<Value> {
        self.kept().batches.iter().flat_map(|batch| batch.events.clone()).collect()
    }

    /// What an order service makes of them: each order's events without those that are not newer than what it knew.
    #[track_caller]
    pub fn orders(&self) -> HashMap<String, Vec<String>> {
        assert_eq!(self.kept().faults, [""; 0], "every delivery is in good order");
        let mut orders: HashMap<String, (u64, Vec<String>)> = HashMap::new();
        for event in self.events() {
            let Some(order) = event["order_id"].as_str() else { continue };
            let seq = event["seq"].as_u64().unwrap();
            let (newest, kinds) = orders.entry(order.to_owned()).or_default();
            if seq > *newest {
                *newest = seq;
                kinds.push(event["kind"].as_str().unwrap().to_owned());
            }
        }
        orders.into_iter().map(|(order, (_, kinds))| (order, kinds)).collect()
    }

    /// The numbers of all entries of which it kept something, each with how many different orders.
    pub fn entries(&self) -> BTreeMap<u64, usize> {
        let mut orders: BTreeMap<u64, std::collections::BTreeSet<String>> = BTreeMap::new();
        for event in self.events() {
            let order = event["order_id"].as_str().unwrap_or_default().to_owned();
            orders.entry(event["seq"].as_u64().unwrap()).or_default().insert(order);
        }
        orders.into_iter().map(|(seq, orders)| (seq, orders.len())).collect()
    }
}

fn backend_at(address: SocketAddr, shared: &Arc<Shared>) -> Backend {
    let shared = Arc::clone(shared);
    Backend::start_at(address, move |request| receive(&shared, request))
}

fn receive(shared: &Shared, request: &mut Received<'_>) -> After {
    let length: usize = request.header("content-length").unwrap().parse().unwrap();
    let body = request.body(length);
    if body.len() != length {
        // An edge that was killed in the middle of it.
        return After::Close;
    }
    if request.line.starts_with("POST /hooks/spikegate/orders ") {
        // It is not asked for what it knows, as most that people bring.
        request.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        return After::Close;
    }
    let fault = fault_of(request, &body);
    let delivery: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| delivery[name].as_str().unwrap_or_default().to_owned();
    let events = delivery["events"].as_array().cloned().unwrap_or_default();
    let batch = Batch { sale: text("sale"), epoch: text("epoch"), events };
    {
        let mut kept = shared.kept.lock().unwrap();
        kept.posts += 1;
        kept.faults.extend(fault);
    }
    let mood = shared.mood.lock().unwrap().clone();
    let pause = *shared.pause.lock().unwrap();
    std::thread::sleep(pause);
    let keep = |batch| shared.kept.lock().unwrap().batches.push(batch);
    match mood {
        Mood::Well => {
            keep(batch);
            request.send(b"HTTP/1.1 204 No Content\r\n\r\n");
        }
        Mood::Answers(status) => {
            let text = "not what was meant to happen";
            request.send(format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n{text}", text.len()).as_bytes());
        }
        Mood::Refuses(poison) => {
            let is_poison = |event: &Value| {
                let order = event["order_id"].as_str();
                poison.iter().any(|(seq, own)| event["seq"] == *seq && (own.is_none() || own.as_deref() == order))
            };
            if batch.events.iter().any(is_poison) {
                let text = "this event cannot be stored";
                request.send(format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n{text}", text.len()).as_bytes());
            } else {
                keep(batch);
                request.send(b"HTTP/1.1 204 No Content\r\n\r\n");
            }
        }
        // Until the edge has had enough.
        Mood::Hangs => drop(request.rest_of_connection()),
        Mood::KeepsInSilence => keep(batch),
    }
    After::Close
}

/// What a strict order service would not take, or an order service's author not understand.
fn fault_of(request: &Received<'_>, body: &[u8]) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let given = request.header("spikegate-signature").unwrap_or_default();
    let time = given.strip_prefix("t=").and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
    let secret = Secret::of(SECRET).unwrap();
    let parsed = serde_json::from_slice::<Value>(body);
    let events = parsed.as_ref().ok().and_then(|delivery| delivery["events"].as_array());
    let seqs: Option<Vec<u64>> = events.map(|events| events.iter().filter_map(|event| event["seq"].as_u64()).collect());
    let say = |what: &str| Some(format!("{what}: {} {:?}", request.line, String::from_utf8_lossy(body)));
    if request.line != "POST /hooks/spikegate HTTP/1.1" {
        say("the request")
    } else if request.header("content-type") != Some("application/json") || request.header("host").is_none() {
        say("its headers")
    } else if time.is_none_or(|time| time.abs_diff(now) > 300) {
        say(&format!("the time of {given}"))
    } else if given != sign(&secret, time.unwrap_or_default(), body) {
        say(&format!("the signature {given}"))
    } else if body.len() > 1024 * 1024 || events.is_none_or(|events| events.len() > 512) {
        say("its size")
    } else if seqs.is_none_or(|seqs| !seqs.is_sorted()) {
        say("the order of its events")
    } else {
        None
    }
}
