//! Wrong histories, each made from a correct one. The checker finds every fault.

use std::time::Duration;

use serde_json::json;
use spikegate::ledger::LogEntry;

use super::*;
use crate::harness::books::Counters;
use crate::torture::history::{Moment, Receipt};

/// When the sale of these tests was opened.
const BEGIN_MS: u64 = 1_000_000;

/// Order ids of the tests.
fn id(number: u32) -> String {
    format!("{number:032x}")
}

/// What a test lies about.
#[derive(Clone)]
struct Tale {
    rules: Rules,
    calls: Vec<Call>,
    books: Books,
    rows: Vec<(String, String)>,
    settlements: Vec<(String, String)>,
}

impl Tale {
    fn verdict(&self) -> Verdict {
        let Self { rules, calls, books, rows, settlements } = self;
        check(&Case { rules: *rules, calls, books, rows: Some(rows), settlements, losses_ms: &[] })
    }

    /// The promises that are found broken.
    fn broken(&self) -> BTreeSet<&'static str> {
        self.verdict().violations.iter().map(|violation| violation.promise).collect()
    }

    /// Adds a call that is made at this time and lasts a millisecond.
    fn call(&mut self, at_ms: u64, ask: Ask, said: Said) -> &mut Self {
        let moment = |ms: u64| Moment { us: (ms - BEGIN_MS) * 1000, unix_ms: ms };
        let number = self.calls.len();
        self.calls.push(Call {
            number,
            client: "somebody".into(),
            at: "edge a".into(),
            ask,
            invoked: moment(at_ms),
            ended: Some((moment(at_ms + 1), said)),
        });
        self
    }

    /// The call of this number says something else.
    fn says(&mut self, number: usize, said: Said) -> &mut Self {
        self.calls[number].ended.as_mut().unwrap().1 = said;
        self
    }

    /// Adds an entry to the log, and makes the rest of the books follow from it, as a ledger would.
    fn entry(&mut self, at_ms: u64, change: serde_json::Value) -> &mut Self {
        let mut entry = json!({ "seq": self.books.log.len() + 1, "at_ms": at_ms });
        entry.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.books.log.push(serde_json::from_value::<LogEntry>(entry).unwrap());
        self.books = Books::of_log(std::mem::take(&mut self.books.log));
        self.rows = self.books.orders.iter().map(|(id, order)| (id.clone(), order.state.clone())).collect();
        self
    }
}

fn buy(key: Option<&str>, buyer: &str, quantity: u64) -> Ask {
    Ask::Buy { key: key.map(str::to_owned), buyer: buyer.to_owned(), quantity }
}

fn pay(order: u32) -> Ask {
    Ask::Pay { order: id(order), payment: format!("p-{order}") }
}

fn ok(order: u32, buyer: &str, quantity: u64) -> Said {
    Said::Ok(Receipt { order: id(order), buyer: buyer.to_owned(), quantity, state: "HELD".into() })
}

fn held(order: u32, buyer: &str, quantity: u64) -> serde_json::Value {
    let line = json!({ "order": id(order), "quantity": quantity, "buyer": buyer });
    json!({ "kind": "held", "expires_at_ms": BEGIN_MS + 60_000, "orders": [line] })
}

fn paid(order: u32, buyer: &str, quantity: u64) -> serde_json::Value {
    json!({ "kind": "paid", "order": id(order), "quantity": quantity, "buyer": buyer, "payment": format!("p-{order}"), "retaken": false })
}

fn released(order: u32, buyer: &str, quantity: u64) -> serde_json::Value {
    let line = json!({ "order": id(order), "quantity": quantity, "buyer": buyer });
    json!({ "kind": "released", "reason": "cancelled", "orders": [line] })
}

/// Four tickets. Ann (call 0) buys one and pays (1); Bob (2, 3) gets no answer at first, asks again, and cancels (4);
/// Eve (5) buys three without a key and pays (6); then it is sold out (7), and Ann hears of her order again (8).
fn good() -> Tale {
    let counters = Counters { total: 0, sold: 0, paid: 0, version: 0 };
    let books = Books {
        counters,
        orders: BTreeMap::new(),
        deadlines: Some(vec![]),
        buyers: Some(BTreeMap::new()),
        log: vec![],
        fenced: false,
    };
    let rules = Rules {
        per_buyer: 3,
        memory: Some(Duration::from_millis(100)),
        answer: Duration::from_secs(5),
        sells_out: true,
    };
    let mut tale = Tale { rules, calls: vec![], books, rows: vec![], settlements: vec![] };
    let at = |ms: u64| BEGIN_MS + ms;
    tale.entry(at(0), json!({ "kind": "opened", "total": 4, "sold": 0 }))
        .entry(at(1000), held(1, "ann", 1))
        .call(at(1000), buy(Some("k1"), "ann", 1), ok(1, "ann", 1))
        .entry(at(2000), paid(1, "ann", 1))
        .call(at(2000), pay(1), Said::Ok(Receipt::default()))
        .entry(at(3000), held(2, "bob", 1))
        .call(at(3000), buy(Some("k2"), "bob", 1), Said::unknown("no answer"))
        .call(at(4000), buy(Some("k2"), "bob", 1), ok(2, "bob", 1))
        .entry(at(5000), released(2, "bob", 1))
        .call(at(5000), Ask::Cancel { order: id(2) }, Said::Ok(Receipt::default()))
        .entry(at(6000), held(3, "eve", 3))
        .call(at(6000), buy(None, "eve", 3), ok(3, "eve", 3))
        .entry(at(7000), paid(3, "eve", 3))
        .call(at(7000), pay(3), Said::Ok(Receipt::default()))
        .call(at(9000), buy(Some("k4"), "dan", 1), Said::no("sold-out"))
        .call(at(9500), buy(Some("k1"), "ann", 1), ok(1, "ann", 1));
    tale
}

/// Exactly this promise is found broken.
#[track_caller]
fn breaks(promise: &'static str, lie: impl FnOnce(&mut Tale)) {
    let mut tale = good();
    lie(&mut tale);
    assert_eq!(tale.broken(), BTreeSet::from([promise]), "{:#?}", tale.verdict().violations);
}

#[test]
fn a_good_history_breaks_nothing_and_every_promise_is_looked_at() {
    let mut tale = good();
    tale.settlements = vec![(id(1), "paid".into()), (id(2), "cancelled".into())];
    tale.entry(BEGIN_MS + 7500, json!({ "kind": "stock", "change_id": "lot", "delta": 0 })).call(
        BEGIN_MS + 7500,
        Ask::Restock { change: "lot".into(), delta: 0 },
        Said::Ok(Receipt::default()),
    );
    let verdict = tale.verdict();
    assert_eq!(verdict.violations, []);
    let promises = [
        BOOKS,
        LIMIT,
        KEPT,
        HEARD_OF,
        ONE_EACH,
        NEVER_DENIED,
        KNOWN_IN_THE_END,
        PAID_IS_PAID,
        CANCELLED,
        RESTOCKED,
        TRULY_SOLD_OUT,
        IN_TIME,
        WORDS_KNOWN,
        DATABASE,
        SETTLED,
        ALL_SOLD,
    ];
    assert_eq!(verdict.checked.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(promises));
}

#[test]
fn an_answered_order_that_is_lost_is_found() {
    breaks(KEPT, |tale| {
        // Dan was told of an order that is in no book.
        tale.says(7, ok(4, "dan", 1));
    });
    breaks(KEPT, |tale| {
        tale.says(0, ok(1, "ann", 2)).says(8, ok(1, "ann", 1));
    });
}

#[test]
fn an_order_that_nobody_asked_for_is_found() {
    // Eve's one purchase became two orders, the later of which was released.
    breaks(HEARD_OF, |tale| {
        tale.entry(BEGIN_MS + 8000, json!({ "kind": "stock", "change_id": "lot", "delta": 3 }))
            .entry(BEGIN_MS + 8100, held(9, "abe", 3))
            .entry(BEGIN_MS + 8200, released(9, "abe", 3))
            .entry(BEGIN_MS + 8300, json!({ "kind": "stock", "change_id": "lot back", "delta": -3 }));
    });
    // A purchase without a key and without an answer excuses one order, not two.
    let mut tale = good();
    tale.entry(BEGIN_MS + 8000, json!({ "kind": "stock", "change_id": "lot", "delta": 2 }))
        .call(BEGIN_MS + 8000, buy(None, "abe", 1), Said::unknown("no answer"))
        .entry(BEGIN_MS + 8100, held(9, "abe", 1))
        .entry(BEGIN_MS + 8200, released(9, "abe", 1))
        .entry(BEGIN_MS + 8300, held(10, "zoe", 2))
        .entry(BEGIN_MS + 8400, paid(10, "zoe", 2))
        .call(BEGIN_MS + 8400, buy(Some("k10"), "zoe", 2), ok(10, "zoe", 2));
    assert_eq!(tale.broken(), BTreeSet::new(), "{:#?}", tale.verdict().violations);
    tale.entry(BEGIN_MS + 8500, json!({ "kind": "stock", "change_id": "lot 2", "delta": 1 }))
        .entry(BEGIN_MS + 8600, held(11, "abe", 1))
        .entry(BEGIN_MS + 8700, paid(11, "abe", 1));
    assert_eq!(tale.broken(), BTreeSet::from([HEARD_OF]));
}

#[test]
fn a_no_that_was_none_is_found() {
    // Bob's retry is refused, and the order that his first request made is there all the same.
    breaks(HEARD_OF, |tale| {
        tale.says(3, Said::no("buyer-limit"));
        tale.calls.remove(4);
    });
}

#[test]
fn two_orders_of_one_key_and_two_keys_of_one_order_are_found() {
    breaks(ONE_EACH, |tale| {
        tale.says(8, ok(3, "ann", 1)).says(5, Said::unknown("no answer"));
        tale.books.orders.get_mut(&id(3)).unwrap().buyer = "eve".into();
        // Only the keys are looked at here.
        tale.calls[8].ask = buy(Some("k1"), "eve", 3);
        tale.says(8, ok(3, "eve", 3));
        tale.calls[0].ask = buy(Some("k1"), "ann", 1);
        tale.calls[5].ask = buy(Some("k5"), "eve", 3);
        tale.says(5, ok(3, "eve", 3));
    });
    breaks(ONE_EACH, |tale| {
        tale.calls[8].ask = buy(Some("another"), "ann", 1);
    });
}

#[test]
fn a_denied_order_is_found() {
    for why in DENIALS {
        let mut tale = good();
        tale.says(8, Said::no(why));
        assert!(tale.broken().contains(NEVER_DENIED), "{why}");
    }
    let mut tale = good();
    tale.says(8, Said::no("ledger-unavailable"));
    assert_eq!(tale.broken(), BTreeSet::new(), "that is no denial");

    // Another edge may not have heard of it yet, but only for as long as it remembers.
    let mut tale = good();
    tale.calls[8].at = "edge b".into();
    tale.says(8, Said::no("sold-out"));
    assert_eq!(tale.broken(), BTreeSet::from([NEVER_DENIED]));
    tale.rules.memory = Some(Duration::from_secs(60));
    let verdict = tale.verdict();
    assert_eq!((&verdict.violations[..], verdict.notes[DENIED_FROM_MEMORY]), (&[][..], 1));
}

#[test]
fn an_outcome_that_stays_unknown_is_found() {
    breaks(KNOWN_IN_THE_END, |tale| {
        tale.says(8, Said::Unknown { why: "outcome-unknown".into(), order: Some(id(1)) });
    });
    breaks(KNOWN_IN_THE_END, |tale| {
        tale.calls[8].ask = pay(1);
        tale.says(8, Said::unknown("no answer"));
    });
}

#[test]
fn money_that_is_taken_for_nothing_is_found() {
    breaks(PAID_IS_PAID, |tale| {
        // Bob's order was released; he was told that it is paid.
        tale.call(BEGIN_MS + 9600, pay(2), Said::Ok(Receipt::default()));
    });
    breaks(PAID_IS_PAID, |tale| {
        // Ann was told to take her money back, and it was kept.
        tale.says(1, Said::no("refund-due"));
    });
    breaks(PAID_IS_PAID, |tale| {
        let settle = Ask::Settle { order: id(2), key: "s".into() };
        tale.call(BEGIN_MS + 9600, settle, Said::Ok(Receipt::default()));
    });
    breaks(SETTLED, |tale| tale.settlements = vec![(id(2), "paid".into())]);
    breaks(SETTLED, |tale| tale.settlements = vec![(id(1), "charged".into())]);
}

#[test]
fn a_cancellation_that_was_none_is_found() {
    breaks(CANCELLED, |tale| {
        tale.call(BEGIN_MS + 9600, Ask::Cancel { order: id(1) }, Said::Ok(Receipt::default()));
    });
}

#[test]
fn a_stock_change_that_was_made_twice_or_never_is_found() {
    let restock = || Ask::Restock { change: "lot".into(), delta: 0 };
    let change = || json!({ "kind": "stock", "change_id": "lot", "delta": 0 });
    breaks(RESTOCKED, |tale| {
        tale.call(BEGIN_MS + 9600, restock(), Said::Ok(Receipt::default()));
    });
    breaks(RESTOCKED, |tale| {
        tale.entry(BEGIN_MS + 8000, change()).entry(BEGIN_MS + 8001, change());
        tale.call(BEGIN_MS + 8000, restock(), Said::Ok(Receipt::default()));
    });
    breaks(RESTOCKED, |tale| {
        tale.entry(BEGIN_MS + 8000, change()).call(BEGIN_MS + 8000, restock(), Said::no("below-sold"));
    });
}

#[test]
fn a_sold_out_that_is_not_true_is_found() {
    // Three were left from 5 s to 6 s; an edge remembers no longer than 100 ms.
    breaks(TRULY_SOLD_OUT, |tale| {
        tale.call(BEGIN_MS + 5500, buy(Some("k7"), "dan", 1), Said::no("sold-out"));
    });
    breaks(TRULY_SOLD_OUT, |tale| {
        tale.call(BEGIN_MS + 5500, buy(Some("k7"), "dan", 3), Said::no("not-enough-left"));
    });
    let mut tale = good();
    tale.call(BEGIN_MS + 5500, buy(Some("k7"), "dan", 4), Said::no("not-enough-left"));
    tale.call(BEGIN_MS + 5999, buy(Some("k8"), "dan", 1), Said::no("sold-out"));
    assert_eq!(tale.broken(), BTreeSet::new(), "four were never left, and at 6 s nothing was");
}

#[test]
fn an_answer_that_is_late_or_missing_or_makes_no_sense_is_found() {
    breaks(IN_TIME, |tale| tale.calls[7].ended.as_mut().unwrap().0.us += 6_000_000);
    let mut tale = good();
    tale.calls[7].ended = None;
    assert_eq!(tale.broken(), BTreeSet::from([IN_TIME, KNOWN_IN_THE_END]));
    breaks(WORDS_KNOWN, |tale| {
        tale.says(7, Said::no("status 500"));
    });
}

#[test]
fn a_database_that_disagrees_is_found() {
    breaks(DATABASE, |tale| drop(tale.rows.pop()));
    breaks(DATABASE, |tale| tale.rows.push((id(7), "HELD".into())));
    breaks(DATABASE, |tale| tale.rows.push(tale.rows[0].clone()));
    breaks(DATABASE, |tale| tale.rows[0].1 = "HELD".into());
}

#[test]
fn a_ticket_that_is_left_over_is_found() {
    breaks(ALL_SOLD, |tale| {
        tale.entry(BEGIN_MS + 9800, json!({ "kind": "stock", "change_id": "lot", "delta": 1 }));
    });
}

#[test]
fn a_buyer_above_the_limit_is_found() {
    breaks(LIMIT, |tale| tale.rules.per_buyer = 2);
}

/// Changes good books into bad ones.
type Lie = Box<dyn Fn(&mut Books)>;

/// Every single number and record of the books is held against the others.
#[test]
fn books_that_disagree_are_found() {
    breaks(BOOKS, |tale| tale.books.counters.sold -= 1);
    breaks(BOOKS, |tale| tale.books.counters.version += 1);
    let mut lies: Vec<Lie> = vec![
        Box::new(|books| books.counters.total += 1),
        Box::new(|books| books.counters.paid -= 1),
        Box::new(|books| drop(books.log.remove(3))),
        Box::new(|books| books.log.swap(2, 3)),
        Box::new(|books| drop(books.orders.remove(&id(1)))),
        Box::new(|books| books.orders.get_mut(&id(1)).unwrap().quantity = 2),
        Box::new(|books| books.orders.get_mut(&id(1)).unwrap().state = "HELD".into()),
        Box::new(|books| books.orders.get_mut(&id(1)).unwrap().detail = "another".into()),
        Box::new(|books| books.buyers.as_mut().unwrap().clear()),
        Box::new(|books| books.deadlines.as_mut().unwrap().push((id(8), 1))),
        Box::new(|books| books.deadlines.as_mut().unwrap().extend([(id(1), 1), (id(1), 1)])),
    ];
    // An order that is made twice, released twice, paid after it was paid, and sold though nothing is left.
    let lies_of_log = [held(1, "ann", 1), released(2, "bob", 1), paid(3, "eve", 3), held(5, "zoe", 1)];
    lies.extend(lies_of_log.map(|change| -> Lie {
        Box::new(move |books| {
            let mut entry = json!({ "seq": books.log.len() + 1, "at_ms": BEGIN_MS + 9900 });
            entry.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            books.log.push(serde_json::from_value(entry).unwrap());
        })
    }));
    for (number, lie) in lies.iter().enumerate() {
        let mut tale = good();
        lie(&mut tale.books);
        assert!(tale.broken().contains(BOOKS), "lie {number}");
    }
    // All that a ledger itself would derive from a log that oversells.
    let mut tale = good();
    tale.entry(BEGIN_MS + 9900, held(5, "zoe", 1));
    assert!(tale.books.faults().iter().any(|fault| fault.starts_with("oversold")), "{:?}", tale.books.faults());
}

fn restored(order: u32, buyer: &str, state: &str) -> serde_json::Value {
    let payment = (state == "PAID").then(|| format!("p-{order}"));
    let reason = (state == "RELEASED").then_some("cancelled");
    let order_of = json!({ "state": state, "quantity": 1, "buyer": buyer, "expires_at_ms": BEGIN_MS + 60_000,
                           "payment": payment, "reason": reason });
    json!({ "kind": "restored", "orders": [[id(order), order_of]] })
}

/// The same tale, of a ledger that has lost what Bob did, and to which it was told again.
#[test]
fn what_was_lost_and_put_right_breaks_nothing() {
    let mut tale = good();
    let log: Vec<LogEntry> = tale.books.log.drain(..).filter(|entry| ![4, 5].contains(&entry.seq)).collect();
    let (before, after) = log.split_at(3);
    tale.books = Books::of_log(before.to_vec());
    tale.entry(BEGIN_MS + 5500, json!({ "kind": "lost" })).entry(BEGIN_MS + 5600, restored(2, "bob", "RELEASED"));
    for entry in after {
        tale.entry(entry.at_ms, serde_json::to_value(&entry.change).unwrap());
    }
    assert_eq!(tale.verdict().violations, []);
    // What was said in the time of which nothing is known any more may have been so; what was said later may not.
    let mut early = tale.clone();
    early.call(BEGIN_MS + 3500, buy(None, "fay", 1), Said::no("sold-out"));
    assert_eq!(early.verdict().violations, []);
    tale.call(BEGIN_MS + 5900, buy(None, "fay", 1), Said::no("sold-out"));
    assert_eq!(tale.broken(), BTreeSet::from([TRULY_SOLD_OUT]));
}

#[test]
fn a_power_cut_excuses_what_was_answered_just_before_it_and_nothing_else() {
    let mut tale = good();
    tale.call(BEGIN_MS + 9600, buy(Some("k9"), "fay", 1), Said::unknown("no answer"))
        .call(BEGIN_MS + 9700, buy(Some("k9"), "fay", 1), ok(9, "fay", 1))
        .call(BEGIN_MS + 9800, pay(9), Said::Ok(Receipt::default()));
    let broken_after = |cut_ms: Option<u64>| {
        let (calls, lost) = forgive(&tale.calls, &tale.books, cut_ms.as_slice());
        let excused = Tale { calls, ..tale.clone() };
        (lost, excused.broken())
    };
    let lies = BTreeSet::from([KEPT, PAID_IS_PAID]);
    assert_eq!(broken_after(None), (0, lies.clone()));
    assert_eq!(broken_after(Some(BEGIN_MS + 9900)), (2, BTreeSet::new()));
    assert_eq!(broken_after(Some(BEGIN_MS + 9500)), (0, lies.clone()), "it was answered after the cut");
    assert_eq!(broken_after(Some(BEGIN_MS + 20_000)), (0, lies), "it was answered long before");
}
