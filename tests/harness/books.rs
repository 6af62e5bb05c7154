//! What is written of a sale in Redis, and whether all of it says the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::redis::{KEY, Redis};

/// An entry of the log: its id, its fields and their values in their order.
type Entry = (String, Vec<String>);

/// The hash, the orders, the deadlines, the buyers and the log.
type Read = (HashMap<String, String>, HashMap<String, String>, Vec<(String, f64)>, HashMap<String, String>, Vec<Entry>);

/// One order's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub state: String,
    pub quantity: u64,
    pub expires_at_ms: u64,
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

    fn has_tickets(&self) -> bool {
        self.state != "RELEASED"
    }
}

impl Redis {
    /// Checks that all that is written of the sale says the same, and gives the ids of the orders that have tickets.
    #[track_caller]
    pub fn books_agree(&self) -> BTreeSet<String> {
        // One step of Redis, so that no change comes between two of the reads.
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
            .query(&mut self.connection())
            .unwrap();
        let number = |field: &str| hash.get(field).map_or(0, |value| value.parse::<u64>().unwrap());
        let orders: BTreeMap<String, Record> =
            orders.into_iter().map(|(id, record)| (id, Record::read(&record))).collect();

        let with_tickets = || orders.iter().filter(|(_, order)| order.has_tickets());
        let sold: u64 = with_tickets().map(|(_, order)| order.quantity).sum();
        let paid: u64 =
            with_tickets().filter(|(_, order)| order.state == "PAID").map(|(_, order)| order.quantity).sum();
        assert_eq!(number("ticket_sold_nums"), sold, "the hash against the orders");
        assert_eq!(number("paid"), paid, "the hash against the paid orders");
        assert!(sold <= number("ticket_total_nums"), "{sold} of {} are sold", number("ticket_total_nums"));

        let mut bought: HashMap<String, (u64, u64)> = HashMap::new();
        for (_, order) in with_tickets().filter(|(_, order)| !order.buyer.is_empty()) {
            let has = bought.entry(order.buyer.clone()).or_default();
            has.0 += order.quantity;
            has.1 += u64::from(order.state == "HELD");
        }
        let bought: HashMap<String, String> =
            bought.into_iter().map(|(buyer, (tickets, unpaid))| (buyer, format!("{tickets} {unpaid}"))).collect();
        assert_eq!(buyers, bought, "the buyers against the orders");

        let mut deadlines = BTreeMap::new();
        for (step, at_ms) in &due {
            for id in step.split(' ').skip(1) {
                assert_eq!(deadlines.insert(id, *at_ms as u64), None, "two deadlines of one order");
            }
        }
        for (id, order) in with_tickets().filter(|(_, order)| order.state == "HELD") {
            assert_eq!(deadlines.get(id.as_str()), Some(&order.expires_at_ms), "the deadline of order {id}");
        }

        let numbers: Vec<&str> = log.iter().map(|(number, _)| number.as_str()).collect();
        let expected: Vec<String> = (1..=number("version")).map(|seq| format!("{seq}-0")).collect();
        assert_eq!(numbers, expected, "one entry of the log for each version");
        assert_eq!(replay(&log), states(&orders), "the log against the orders");
        with_tickets().map(|(id, _)| id.clone()).collect()
    }
}

fn states(orders: &BTreeMap<String, Record>) -> BTreeMap<String, String> {
    orders.iter().map(|(id, order)| (id.clone(), order.state.clone())).collect()
}

/// Where every order stands if only the log is read.
fn replay(log: &[Entry]) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    for (number, fields) in log {
        let value = |at: usize| fields[at * 2 + 1].clone();
        let mut happens = |id: String, from: &[Option<&str>], to: &str| {
            let before = states.insert(id.clone(), to.to_owned());
            assert!(from.contains(&before.as_deref()), "entry {number} makes order {id} {to}, which was {before:?}");
        };
        // Behind at_ms, kind and one more field comes a pair for each order.
        let orders = fields.iter().skip(6).step_by(2).cloned();
        match fields[3].as_str() {
            "held" => orders.for_each(|id| happens(id, &[None], "HELD")),
            "released" => orders.for_each(|id| happens(id, &[Some("HELD")], "RELEASED")),
            "paid" => happens(value(2), &[Some("HELD"), Some("RELEASED")], "PAID"),
            "given_up" => happens(value(2), &[None], "RELEASED"),
            _ => {}
        }
    }
    states
}
