//! The crowd: buyers who retry, give up, pay, cancel or leave, and an operator who changes the stock meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use super::client::{Client, PATIENCE};
use super::history::{Ask, History, Receipt, Said};
use super::schedule::Fate;
use super::site::Doors;

/// What all of the crowd share.
pub struct Crowd {
    pub seed: u64,
    pub doors: Doors,
    pub history: History,
    /// Nobody begins anything any more.
    pub over: AtomicBool,
    pub till: Till,
    /// Whether the operator adds tickets, too, or only takes some away. What the ledger lost of that is not put right
    /// by itself, and with lost tickets sold there would be more sold than there are.
    pub adds_stock: bool,
}

/// Lets so much be paid as time passes, that something is left to be sold until the end.
pub struct Till {
    begun: Instant,
    time: Duration,
    /// Tickets that may be paid by then.
    most: u64,
    paid: AtomicU64,
}

impl Till {
    pub fn new(most: u64, time: Duration) -> Self {
        Self { begun: Instant::now(), time, most, paid: AtomicU64::new(0) }
    }

    fn takes(&self, quantity: u64) -> bool {
        let part = self.begun.elapsed().as_secs_f64() / self.time.as_secs_f64();
        let by_now = (self.most as f64 * part.min(1.0)) as u64;
        self.paid.load(Ordering::Relaxed) + quantity <= by_now && {
            self.paid.fetch_add(quantity, Ordering::Relaxed);
            true
        }
    }
}

impl Crowd {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Sends everybody off.
    pub fn gather<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, buyers: usize) {
        for number in 0..buyers {
            scope.spawn(move || {
                let name = format!("buyer {number}");
                let client = Client::new(&name, &self.doors, &self.history);
                let fate = Fate::of(self.seed, &name);
                Buyer { number, client, fate, crowd: self }.live();
            });
        }
        scope.spawn(|| operate(self));
    }
}

struct Buyer<'a> {
    number: usize,
    client: Client<'a>,
    fate: Fate,
    crowd: &'a Crowd,
}

impl Buyer<'_> {
    fn live(mut self) {
        for wish in 0.. {
            if self.crowd.is_over() {
                return;
            }
            self.wish(wish);
            if self.fate.chance(70) {
                sleep(self.fate.ms(10..80));
            }
        }
    }

    /// One purchase, and what comes of it.
    fn wish(&mut self, wish: u64) {
        // Some share their name, and with it the limit. Nobody keeps a name for ever, for everybody would be at the
        // limit.
        let shared = self.number - usize::from(self.number % 10 == 1);
        let ask = Ask::Buy {
            key: self.fate.chance(80).then(|| format!("{}-{wish}", self.number)),
            buyer: format!("b{shared}.{}", wish / 20),
            quantity: self.fate.one_of(&[1, 1, 1, 2, 4]),
        };
        let has_key = matches!(&ask, Ask::Buy { key: Some(_), .. });
        let said = if !has_key {
            // It can be asked once only.
            self.client.ask_until_known(&ask, 1, &mut self.fate)
        } else if self.fate.chance(5) {
            self.ask_everywhere_at_once(&ask)
        } else {
            let tries = self.fate.number(1..5);
            self.client.ask_until_known(&ask, tries, &mut self.fate)
        };
        match said {
            Said::Ok(receipt) if receipt.state == "HELD" => {
                if has_key && self.fate.chance(10) {
                    let door = self.fate.either();
                    self.client.ask(&ask, door, PATIENCE);
                }
                self.have(&receipt);
            }
            Said::Ok(_) => {}
            _ => self.wait_for_the_next_rush(),
        }
    }

    /// Those who got nothing come back together, so that many want the last ticket at once.
    fn wait_for_the_next_rush(&mut self) {
        const RUSH_US: u64 = 60_000;
        let rushes = self.fate.number(1..3);
        let now_us = self.crowd.history.now().us;
        sleep(Duration::from_micros((now_us / RUSH_US + rushes) * RUSH_US - now_us));
    }

    /// Two tabs, two edges, one key.
    fn ask_everywhere_at_once(&mut self, ask: &Ask) -> Said {
        let crowd = self.crowd;
        std::thread::scope(|scope| {
            let mut other = Client::new(&format!("buyer {}, second tab", self.number), &crowd.doors, &crowd.history);
            let second = scope.spawn(move || other.ask(ask, 1, PATIENCE));
            let first = self.client.ask(ask, 0, PATIENCE);
            let second = second.join().unwrap();
            if first.is_ok() { first } else { second }
        })
    }

    fn have(&mut self, receipt: &Receipt) {
        let order = receipt.order.clone();
        let choice = self.fate.number(0..100);
        if self.fate.chance(20) {
            sleep(self.fate.ms(10..3000));
        }
        let ask = match choice {
            0..15 => Ask::Cancel { order },
            15..60 if self.crowd.till.takes(receipt.quantity) => {
                if !self.crowd.doors.orders.is_empty() && choice < 30 {
                    Ask::Settle { key: format!("settle-{order}"), order }
                } else {
                    Ask::Pay { payment: format!("payment-{order}"), order }
                }
            }
            // It walks away, and the hold ends.
            _ => return,
        };
        let tries = self.fate.number(1..4);
        self.client.ask_until_known(&ask, tries, &mut self.fate);
    }
}

/// Adds tickets, and takes some away.
fn operate(crowd: &Crowd) {
    let mut fate = Fate::of(crowd.seed, "operator");
    let mut client = Client::new("operator", &crowd.doors, &crowd.history);
    for number in 0.. {
        sleep(fate.ms(200..800));
        if crowd.is_over() {
            return;
        }
        let tickets = fate.number(1..20) as i64;
        let delta = match (crowd.adds_stock, fate.chance(50)) {
            (true, true) => tickets,
            (true, false) => -tickets,
            (false, _) => -(1 + tickets / 8),
        };
        let tries = fate.number(1..4);
        client.ask_until_known(&Ask::Restock { change: format!("lot-{number}"), delta }, tries, &mut fate);
    }
}
