//! The course of every test: it starts a site and a crowd, and breaks the site by a schedule. Then it repairs the site,
//! retries every unknown outcome, sells the rest to the last ticket, and runs the checker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::buyers::{Crowd, Till};
use super::checker::{self, Case, Rules, Verdict, Violation, identity, is_definite};
use super::client::{Client, PATIENCE};
use super::embedded;
use super::history::{Ask, Call, History};
use super::observer::{Source, observe};
use super::report::Report;
use super::schedule::{self, Schedule};
use super::site::{self, Doors, Site, in_time};
use crate::harness::books::Books;
use crate::harness::{Connection, PATIENCE as HARNESS_PATIENCE, Request};

/// How long an unpaid order keeps its tickets in every test.
const HOLD: &str = "2s";

/// Tickets that one buyer may have.
const PER_BUYER: u64 = 12;

/// What an edge remembers is replaced every 100 ms, and forgotten when the ledger is silent for 2 s.
const MEMORY: Duration = Duration::from_secs(3);

/// The purchase's deadline of 1.5 s, and what a busy machine adds.
const ANSWER: Duration = Duration::from_secs(20);

/// The default duration of a test: short enough for every run.
const SECONDS: u64 = 3;

/// A number out of the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

pub struct Story {
    name: &'static str,
    seed: u64,
    time: Duration,
    buyers: usize,
    site: site::Plan,
    rules: Rules,
    loss: Loss,
}

/// Whether Redis loses what it answered, and the sale has to be reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    None,
    Possible,
    Certain,
}

impl Story {
    /// With two edges, Redis with everything on disk before it answers, and one order service. A name begins with the
    /// one word by which the story is called.
    pub fn of(name: &'static str) -> Self {
        let seconds = setting("TORTURE_SECONDS").unwrap_or(SECONDS);
        let is_long = seconds > 2 * SECONDS;
        let sale = json!({
            "total": if is_long { 500 } else { 100 },
            "hold": HOLD,
            "deadline": "1500ms",
            "local_stock": 50,
            "per_buyer": PER_BUYER,
            "buyer": { "header": "X-User-Id" },
        });
        Self {
            name,
            seed: setting("TORTURE_SEED").unwrap_or(1),
            time: Duration::from_secs(seconds),
            buyers: setting("TORTURE_BUYERS").map_or(if is_long { 200 } else { 40 }, |buyers| buyers as usize),
            site: site::Plan::of(sale),
            rules: Rules { per_buyer: PER_BUYER, memory: Some(MEMORY), answer: ANSWER, sells_out: true },
            loss: Loss::None,
        }
    }

    pub fn site(mut self, change: impl FnOnce(&mut site::Plan)) -> Self {
        change(&mut self.site);
        self
    }

    pub fn rules(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self
    }

    /// What Redis answered is lost. It is noticed, and the operator puts it right.
    pub fn loses(mut self, loss: Loss) -> Self {
        self.loss = loss;
        self
    }

    pub fn time(&self) -> Duration {
        self.time
    }

    /// Tells it, and fails if a promise was broken.
    pub fn tell(self, faults: impl FnMut(&mut schedule::Plan)) {
        self.tell_and(faults, |_, _| {});
    }

    /// The same, with promises that only this test makes.
    pub fn tell_and(self, faults: impl FnMut(&mut schedule::Plan), also: impl FnOnce(&[Call], &mut Verdict)) {
        let schedule = Schedule::draw(self.seed, self.name, self.time, faults);
        let file = history_file(self.name, self.seed);
        println!("{}, seed {}: history in {}\n{schedule}", self.name, self.seed, file.display());
        let mut site = Site::start(&self.site);
        let total = self.site.sale["total"].as_u64().unwrap();
        let crowd = Crowd {
            seed: self.seed,
            doors: site.doors(),
            history: History::in_file(&file),
            over: AtomicBool::new(false),
            // What is not paid comes back and is sold again, until the end.
            till: Till::new(total * 7 / 10, self.time),
            adds_stock: self.loss == Loss::None,
        };
        let source = match &site.redis {
            Some(_) => {
                // A replica has not yet what nobody was answered.
                let may_lose = self.loss != Loss::None || self.site.replica.is_some();
                Source::Redis { url: Arc::clone(&site.ledger_at), may_lose }
            }
            None => Source::Control(crowd.doors.control[0]),
        };
        let all_over = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            // Whatever fails here, the others stop.
            let _ends = [EndsWithMe(&crowd.over), EndsWithMe(&all_over)];
            let observer = scope.spawn(|| observe(&source, &crowd.history, &all_over));
            let begun = Instant::now();
            std::thread::scope(|scope| {
                let _ends = EndsWithMe(&crowd.over);
                crowd.gather(scope, self.buyers);
                site.suffer(&schedule);
                site.heal();
            });
            let recovered = begun.elapsed().saturating_sub(self.time);
            ask_again(&crowd);
            change_stock_again(&crowd, &site);
            sell_out(&crowd);
            all_is_delivered(&crowd.doors, &site);
            println!("well again after {recovered:?}, all sold and delivered after {:?}", begun.elapsed() - self.time);
            all_over.store(true, Ordering::Relaxed);
            observer.join().unwrap()
        });
        let books = match &site.redis {
            Some(redis) => Books::read(&mut redis.connection()).unwrap().expect("there is a sale"),
            None => embedded::books(&site.edges[0], &site.ledger_folder()),
        };
        site.look_into_logs();
        let (rows, settlements) = match self.site.orders {
            0 => (None, Vec::new()),
            _ => (Some(site.shelf.rows("orders")), site.shelf.rows("settlements")),
        };
        let calls = crowd.history.calls();
        let (judged, lost) = checker::forgive(&calls, &books, &site.cuts_ms);
        let case = Case {
            rules: self.rules,
            calls: &judged,
            books: &books,
            rows: rows.as_deref(),
            settlements: &settlements,
            losses_ms: &site.losses_ms,
        };
        let mut verdict = checker::check(&case);
        if lost > 0 {
            verdict.notes.insert(checker::LOST, lost);
        }
        let reconciled = site.operator.reconciled;
        let as_lost = match self.loss {
            Loss::None => reconciled == 0,
            Loss::Possible => true,
            Loss::Certain => reconciled > 0,
        };
        verdict.expect("the sale is stopped if something was lost, and only then", as_lost, || {
            format!("it was reconciled {reconciled} times")
        });
        let also_seen =
            seen.faults.into_iter().map(|what| Violation { promise: "the books agree at every instant", what });
        verdict.violations.extend(also_seen);
        let by_themselves = std::mem::take(&mut site.faults);
        let processes = by_themselves.into_iter().map(|what| Violation { promise: "no process fails by itself", what });
        verdict.violations.extend(processes);
        also(&calls, &mut verdict);
        let report = Report {
            name: self.name,
            seed: self.seed,
            schedule: &schedule,
            injected: &site.injected,
            calls: &calls,
            snapshots: seen.snapshots,
            operator: &site.operator,
            verdict: &verdict,
        };
        println!("{report}");
        std::fs::write(file.with_extension("report"), format!("{report}\nschedule:\n{schedule}")).unwrap();
        assert!(seen.snapshots > 0 && calls.iter().any(Call::is_ok), "nothing happened:\n{report}");
        assert!(verdict.violations.is_empty(), "{report}");
    }
}

/// Says that it is over, also when something fails.
struct EndsWithMe<'a>(&'a AtomicBool);

impl Drop for EndsWithMe<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn history_file(name: &str, seed: u64) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("torture");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{}-{seed}.jsonl", name.split(' ').next().unwrap()))
}

/// Whoever was left without an answer asks again, until there is one.
pub fn ask_again(crowd: &Crowd) {
    let calls = crowd.history.calls();
    let mut wondering: BTreeMap<(&str, &str), &Call> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.is_unknown()) {
        if let Some(identity) = identity(&call.ask) {
            wondering.insert(identity, call);
        }
    }
    let mut client = Client::new("asks again", &crowd.doors, &crowd.history);
    for (number, call) in wondering.values().enumerate() {
        let mut door = number;
        in_time(|| {
            door += 1;
            is_definite(&client.ask(&call.ask, door, PATIENCE)).then_some(())
        });
    }
}

/// Repeats the stock changes that the ledger has lost. No process does so by itself.
fn change_stock_again(crowd: &Crowd, site: &Site) {
    let Some(redis) = site.redis.as_ref().filter(|_| site.operator.reconciled > 0) else { return };
    let books = Books::read(&mut redis.connection()).unwrap().expect("there is a sale");
    let mut client = Client::new("operator", &crowd.doors, &crowd.history);
    for call in crowd.history.calls().iter().filter(|call| call.is_ok()) {
        if matches!(&call.ask, Ask::Restock { change, .. } if !books.has_change(change)) {
            in_time(|| is_definite(&client.ask(&call.ask, 0, PATIENCE)).then_some(()));
        }
    }
}

/// Buys and pays all that is left; what is held comes back meanwhile.
fn sell_out(crowd: &Crowd) {
    let mut client = Client::new("buys the rest", &crowd.doors, &crowd.history);
    let mut number = 0;
    in_time(|| {
        let sale = at_control(crowd.doors.control[0], "/sales/ticket")?;
        let count = |name: &str| sale[name].as_u64().unwrap();
        if count("paid") == count("total") {
            return Some(());
        }
        let quantity = count("available").min(PER_BUYER);
        if quantity == 0 {
            std::thread::sleep(Duration::from_millis(20));
            return None;
        }
        number += 1;
        let key = Some(format!("last-{number}"));
        let bought = client.ask(&Ask::Buy { key, buyer: format!("last {number}"), quantity }, number, PATIENCE);
        if let Some(order) = bought.order().filter(|_| bought.is_ok()) {
            let ask = Ask::Pay { order: order.to_owned(), payment: format!("payment-{order}") };
            client.ask(&ask, number + 1, PATIENCE);
        }
        None
    });
    // Payments or purchases of the last buyers that went wrong after all.
    ask_again(crowd);
}

fn at_control(address: std::net::SocketAddr, path: &str) -> Option<Value> {
    let request = Request::get(path).header("Connection", "close");
    let answer = Connection::try_to(address).ok()?.patience(HARNESS_PATIENCE).ok()?.try_ask(&request).ok()?;
    (answer.status == 200).then(|| answer.json())
}

/// Waits until everything is delivered to the order service and settled.
fn all_is_delivered(doors: &Doors, site: &Site) {
    if doors.orders.is_empty() {
        return;
    }
    in_time(|| {
        let status = at_control(doors.control[0], "/sales/ticket/delivery")?;
        assert_eq!(status["set_aside"], json!([]), "nothing of this is to be refused");
        (status["lag_entries"] == 0).then_some(())
    });
    in_time(|| {
        let settlements = site.shelf.rows("settlements");
        let under_way = ["pending", "charged", "refund_due", "cancelling"];
        settlements.iter().all(|(_, state)| !under_way.contains(&state.as_str())).then_some(())
    });
}
