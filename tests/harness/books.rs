//! The books: everything that a ledger stores about a sale, and the check that all of it agrees. Without I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use spikegate::ledger::{Change, LogEntry, Order, OrderLine};

use super::redis::{KEY, Redis};

/// The counters, as they are kept beside the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub total: u64,
    pub sold: u64,
    pub paid: u64,
    pub version: u64,
}

/// One order's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub state: String,
    pub quantity: u64,
    pub expires_at_ms: u64,
    /// The payment of PAID, the reason of RELEASED.
    pub detail: String,
    pub buyer: String,
}

impl Record {
    fn read(text: &str) -> Self {
        let mut words = text.splitn(5, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_else(|| panic!("the record {text}"));
        Self {
            state: word(),
            quantity: word().parse().unwrap(),
            expires_at_ms: word().parse().unwrap(),
            detail: word(),
            buyer: word(),
        }
    }

    pub fn has_tickets(&self) -> bool {
        self.state != "RELEASED"
    }
}

/// Tickets held or paid, and unpaid orders.
type Holdings = (u64, u64);

/// All that is written of a sale at one instant.
#[derive(Debug, Clone)]
pub struct Books {
    pub counters: Counters,
    pub orders: BTreeMap<String, Record>,
    /// Each order that is listed with a deadline; none if the ledger does not show its list.
    pub deadlines: Option<Vec<(String, u64)>>,
    /// None if the ledger does not show it.
    pub buyers: Option<BTreeMap<String, Holdings>>,
    /// From its first entry on.
    pub log: Vec<LogEntry>,
    /// Whether the ledger has lost something that was not found out yet.
    pub fenced: bool,
}

/// An entry of the log in Redis: its id, its fields and their values in their order.
type Entry = (String, Vec<String>);

/// The hash, the orders, the deadlines, the buyers and the log.
type Read = (HashMap<String, String>, HashMap<String, String>, Vec<(String, f64)>, HashMap<String, String>, Vec<Entry>);

impl Books {
    /// Reads them in one step of Redis, so that no change comes between two of the reads. None if there is no such
    /// sale.
    pub fn read(connection: &mut ::redis::Connection) -> ::redis::RedisResult<Option<Self>> {
        let tagged = format!("{{{KEY}}}");
        let (hash, orders, due, buyers, log): Read = ::redis::pipe()
            .atomic()
            .hgetall(KEY)
            .hgetall(format!("{tagged}:orders"))
            .zrange_withscores(format!("{tagged}:due"), 0, -1)
            .hgetall(format!("{tagged}:buyers"))
            .cmd("XRANGE")
            .arg(format!("{tagged}:log"))
            .arg("-")
            .arg("+")
            .query(connection)?;
        if hash.is_empty() {
            return Ok(None);
        }
        let number = |field: &str| hash.get(field).map_or(0, |value| value.parse::<u64>().unwrap());
        let mut deadlines = Vec::new();
        for (step, at_ms) in &due {
            deadlines.extend(step.split(' ').skip(1).map(|id| (id.to_owned(), *at_ms as u64)));
        }
        let holdings = |text: &str| {
            let (tickets, unpaid) = text.split_once(' ').unwrap();
            (tickets.parse().unwrap(), unpaid.parse().unwrap())
        };
        Ok(Some(Self {
            counters: Counters {
                total: number("ticket_total_nums"),
                sold: number("ticket_sold_nums"),
                paid: number("paid"),
                version: number("version"),
            },
            orders: orders.into_iter().map(|(id, record)| (id, Record::read(&record))).collect(),
            deadlines: Some(deadlines),
            buyers: Some(buyers.into_iter().map(|(buyer, has)| (buyer, holdings(&has))).collect()),
            log: log.iter().map(entry).collect(),
            fenced: hash.contains_key("fence"),
        }))
    }

    /// The books of a ledger that has done exactly what this log says.
    pub fn of_log(log: Vec<LogEntry>) -> Self {
        let told = Told::by(&log, &mut Faults::default());
        let version = log.last().map_or(0, |entry| entry.seq);
        let unpaid = told.orders.iter().filter(|(_, order)| order.state == "HELD");
        Self {
            counters: Counters { total: told.total, sold: told.sold, paid: told.paid, version },
            deadlines: Some(unpaid.map(|(id, order)| (id.clone(), order.expires_at_ms)).collect()),
            buyers: Some(holdings_of(&told.orders)),
            orders: told.orders,
            log,
            fenced: false,
        }
    }

    /// Everything in which they disagree: the counters, the orders, the buyers, the deadlines, and what follows from
    /// the log alone.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Faults::default();
        let told = Told::by(&self.log, &mut faults);
        let Counters { total, sold, paid, version } = self.counters;
        let with_tickets = || self.orders.iter().filter(|(_, order)| order.has_tickets());
        let sum = |orders: &mut dyn Iterator<Item = (&String, &Record)>| -> u64 {
            orders.map(|(_, order)| order.quantity).sum()
        };
        faults.differ("sold: the counter, the orders", &sold, &(told.sold_before + sum(&mut with_tickets())));
        let mut paid_orders = with_tickets().filter(|(_, order)| order.state == "PAID");
        faults.differ("paid: the counter, the orders", &paid, &sum(&mut paid_orders));
        faults.unless(sold <= total, || format!("oversold: {sold} of {total} are sold"));
        faults.unless(paid <= sold, || format!("{paid} are paid, and {sold} sold"));
        let from_log = (told.total, told.sold, told.paid, self.log.last().map_or(0, |entry| entry.seq));
        faults.differ("total, sold, paid, version: the counters, the log", &(total, sold, paid, version), &from_log);

        for (id, order) in &self.orders {
            match told.orders.get(id) {
                None => faults.say(format!("order {id} is in no entry of the log: {order:?}")),
                Some(logged) => faults.differ(&format!("order {id}: its record, the log"), order, logged),
            }
        }
        for (id, logged) in &told.orders {
            faults.unless(self.orders.contains_key(id), || format!("order {id} of the log has no record: {logged:?}"));
        }
        if let Some(buyers) = &self.buyers {
            faults.differ("the buyers, their orders", buyers, &holdings_of(&self.orders));
        }
        if let Some(listed) = &self.deadlines {
            let mut deadlines = BTreeMap::new();
            for (id, at_ms) in listed {
                faults.unless(deadlines.insert(id, *at_ms).is_none(), || format!("order {id} has two deadlines"));
                faults.unless(self.orders.contains_key(id), || format!("order {id} has a deadline and no record"));
            }
            for (id, order) in with_tickets().filter(|(_, order)| order.state == "HELD") {
                faults.differ(
                    &format!("order {id}: its deadline, its record"),
                    &deadlines.get(id).copied(),
                    &Some(order.expires_at_ms),
                );
            }
        }
        faults.0
    }

    /// Whether the stock was changed under this id.
    pub fn has_change(&self, id: &str) -> bool {
        self.log.iter().any(|entry| matches!(&entry.change, Change::Stock { change_id, .. } if **change_id == *id))
    }

    /// The ids of the orders that have tickets.
    pub fn with_tickets(&self) -> BTreeSet<String> {
        self.orders.iter().filter(|(_, order)| order.has_tickets()).map(|(id, _)| id.clone()).collect()
    }
}

fn holdings_of(orders: &BTreeMap<String, Record>) -> BTreeMap<String, Holdings> {
    let mut bought: BTreeMap<String, Holdings> = BTreeMap::new();
    for order in orders.values().filter(|order| order.has_tickets() && !order.buyer.is_empty()) {
        let has = bought.entry(order.buyer.clone()).or_default();
        has.0 += order.quantity;
        has.1 += u64::from(order.state == "HELD");
    }
    bought
}

/// What is wrong, in words.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn say(&mut self, what: String) {
        self.0.push(what);
    }

    fn unless(&mut self, well: bool, what: impl FnOnce() -> String) {
        if !well {
            self.say(what());
        }
    }

    fn differ<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, left: &T, right: &T) {
        self.unless(left == right, || format!("{what}: {left:?}, {right:?}"));
    }
}

/// Where everything stands if only the log is read.
#[derive(Default)]
struct Told {
    total: u64,
    sold: u64,
    paid: u64,
    /// Sold before the sale came under the ledger's care; there are no orders of these.
    sold_before: u64,
    orders: BTreeMap<String, Record>,
}

impl Told {
    fn by(log: &[LogEntry], faults: &mut Faults) -> Self {
        let mut told = Self::default();
        for (at, entry) in log.iter().enumerate() {
            let seq = entry.seq;
            faults.unless(seq == at as u64 + 1, || format!("entry {} of the log has number {seq}", at + 1));
            told.apply(entry, faults);
            // Many orders are restored in several steps, with nothing sold between two.
            let is_restoring = matches!(log.get(at + 1), Some(LogEntry { change: Change::Restored { .. }, .. }));
            faults.unless(is_restoring || told.sold <= told.total, || {
                format!("oversold: {} of {} are sold after entry {seq}", told.sold, told.total)
            });
        }
        told
    }

    fn apply(&mut self, entry: &LogEntry, faults: &mut Faults) {
        let seq = entry.seq;
        let mut happens = |orders: &BTreeMap<String, Record>, id: &str, from: &[Option<&str>], to: &str| {
            let before = orders.get(id).map(|order| order.state.as_str());
            faults
                .unless(from.contains(&before), || format!("entry {seq} makes order {id} {to}, which was {before:?}"));
        };
        match &entry.change {
            Change::Opened { total, sold } => {
                (self.total, self.sold, self.sold_before) = (*total, *sold, *sold);
            }
            Change::Held { expires_at_ms, orders } => {
                for line in orders {
                    let id = line.order.to_string();
                    happens(&self.orders, &id, &[None], "HELD");
                    self.sold += u64::from(line.quantity);
                    self.orders.insert(id, record(line, "HELD", *expires_at_ms, "-"));
                }
            }
            Change::Released { reason, orders } => {
                for line in orders {
                    let id = line.order.to_string();
                    happens(&self.orders, &id, &[Some("HELD")], "RELEASED");
                    self.sold = self.sold.saturating_sub(u64::from(line.quantity));
                    let expires_at_ms = self.orders.get(&id).map_or(0, |order| order.expires_at_ms);
                    let reason = json!(reason);
                    let reason = reason.as_str().unwrap_or_default();
                    self.orders.insert(id, record(line, "RELEASED", expires_at_ms, reason));
                }
            }
            Change::Paid { line, payment, retaken } => {
                let id = line.order.to_string();
                happens(&self.orders, &id, &[Some(if *retaken { "RELEASED" } else { "HELD" })], "PAID");
                if *retaken {
                    self.sold += u64::from(line.quantity);
                }
                self.paid += u64::from(line.quantity);
                let expires_at_ms = self.orders.get(&id).map_or(0, |order| order.expires_at_ms);
                self.orders.insert(id, record(line, "PAID", expires_at_ms, payment.as_str()));
            }
            Change::GivenUp { order } => {
                let id = order.to_string();
                happens(&self.orders, &id, &[None], "given up");
                let given_up = Record {
                    state: "RELEASED".into(),
                    quantity: 0,
                    expires_at_ms: 0,
                    detail: "given_up".into(),
                    buyer: String::new(),
                };
                self.orders.insert(id, given_up);
            }
            // What was restored stands as it says, whatever was known before.
            Change::Restored { orders } => {
                for (id, order) in orders {
                    let id = id.to_string();
                    let before = self.orders.remove(&id).filter(Record::has_tickets);
                    let (sold, paid) = before.map_or((0, 0), |order| {
                        (order.quantity, if order.state == "PAID" { order.quantity } else { 0 })
                    });
                    let now = restored(order);
                    self.sold = self.sold - sold + if now.has_tickets() { now.quantity } else { 0 };
                    self.paid = self.paid - paid + if now.state == "PAID" { now.quantity } else { 0 };
                    self.orders.insert(id, now);
                }
            }
            Change::State { .. } | Change::Lost => {}
            Change::Stock { delta, .. } => self.total = self.total.saturating_add_signed(*delta),
        }
    }
}

fn restored(order: &Order) -> Record {
    let text = |value: Value| value.as_str().unwrap_or("-").to_owned();
    Record {
        state: text(json!(order.state)),
        quantity: order.quantity.into(),
        expires_at_ms: order.expires_at_ms,
        detail: order.payment.as_ref().map_or_else(|| text(json!(order.reason)), |payment| payment.as_str().to_owned()),
        buyer: order.buyer.as_deref().unwrap_or_default().to_owned(),
    }
}

fn record(line: &OrderLine, state: &str, expires_at_ms: u64, detail: &str) -> Record {
    Record {
        state: state.to_owned(),
        quantity: line.quantity.into(),
        expires_at_ms,
        detail: detail.to_owned(),
        buyer: line.buyer.as_deref().unwrap_or_default().to_owned(),
    }
}

/// An entry of the log in Redis, read without the product's own reader of them.
fn entry((id, fields): &Entry) -> LogEntry {
    let seq: u64 = id.strip_suffix("-0").and_then(|seq| seq.parse().ok()).unwrap_or_else(|| panic!("the entry {id}"));
    let mut document = json!({ "seq": seq });
    let kind = fields[3].as_str();
    let mut lines = Vec::new();
    for pair in fields.chunks_exact(2) {
        let (name, value) = (pair[0].as_str(), pair[1].as_str());
        match name {
            "kind" | "order" | "payment" | "reason" | "state" | "change_id" => document[name] = json!(value),
            "buyer" if value.is_empty() => {}
            "buyer" => document[name] = json!(value),
            "retaken" => document[name] = json!(value == "1"),
            "delta" => document[name] = json!(value.parse::<i64>().unwrap()),
            "at_ms" | "expires_at_ms" | "total" | "sold" | "quantity" => {
                document[name] = json!(value.parse::<u64>().unwrap());
            }
            "orders" => {}
            order if kind == "restored" => lines.push(json!([order, order_of(value)])),
            order => lines.push(line(order, value)),
        }
    }
    if matches!(kind, "held" | "released" | "restored") {
        document["orders"] = json!(lines);
    }
    serde_json::from_value(document).unwrap_or_else(|error| panic!("the entry {id} {fields:?}: {error}"))
}

/// A whole record; see `lua/sale.lua`.
fn order_of(text: &str) -> Value {
    let Record { state, quantity, expires_at_ms, detail, buyer } = Record::read(text);
    let buyer = (!buyer.is_empty()).then_some(buyer);
    let payment = (state == "PAID").then_some(&detail);
    let reason = (state == "RELEASED").then_some(&detail);
    json!({ "state": state, "quantity": quantity, "buyer": buyer, "expires_at_ms": expires_at_ms,
            "payment": payment, "reason": reason })
}

/// `ID`, `QUANTITY BUYER`
fn line(order: &str, text: &str) -> Value {
    let (quantity, buyer) = text.split_once(' ').unwrap_or_else(|| panic!("the line {text} of order {order}"));
    let buyer = (!buyer.is_empty()).then_some(buyer);
    json!({ "order": order, "quantity": quantity.parse::<u64>().unwrap(), "buyer": buyer })
}

impl Redis {
    /// Checks that all books of the sale agree, and returns the IDs of the orders that have tickets.
    #[track_caller]
    pub fn books_agree(&self) -> BTreeSet<String> {
        let books = Books::read(&mut self.connection()).unwrap().expect("there is such a sale");
        assert_eq!(books.faults(), [""; 0]);
        books.with_tickets()
    }
}
