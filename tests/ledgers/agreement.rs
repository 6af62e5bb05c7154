//! Model, Redis and embedded ledger give the same results, and a batch of N purchases equals N batches of one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use spikegate::ledger::model::{Holdings, SaleModel};
use spikegate::ledger::{
    BATCH_MAX, Cancelled, Change, Confirmed, Decision, Ledger, LedgerError, LogEntry, Order, OrderId, OrderState,
    PaymentId, Purchase, RefundReason, ReleaseReason, SWEEP_MAX, SYNC_LINES_MAX, SaleState, SyncAsk, TOTAL_MAX, Terms,
    View,
};
use spikegate::stores::embedded::EmbeddedLedger;
use spikegate::stores::redis::RedisLedger;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::harness::redis::Redis;

/// Far from any real time, on either side.
const PAST: u64 = 1_000;
const FUTURE: u64 = 100_000_000_000_000;
const NOW: u64 = 1_700_000_000_000;
const BUYERS: [Option<&str>; 3] = [None, Some("ann"), Some("bob b|1")];

/// One step of a random history.
#[derive(Debug, Clone)]
enum Op {
    Reserve { batch: Vec<Purchase>, hold_ms: u64 },
    Confirm { id: u8, payment: u8 },
    Cancel { id: u8 },
    Sweep,
    State(SaleState),
    Stock { change_id: String, delta: i64 },
}

fn purchase() -> impl Strategy<Value = Purchase> {
    // Few ids and buyers, so that they meet again; quantities from one to more than there is.
    (0u8..40, prop_oneof![6 => 1u32..4, 1 => Just(1_000_000)], prop::sample::select(&BUYERS))
        .prop_map(|(id, quantity, buyer)| Purchase { id: OrderId([id; 16]), buyer: buyer.map(Into::into), quantity })
}

fn op() -> impl Strategy<Value = Op> {
    let state = prop_oneof![3 => Just(SaleState::Open), 1 => Just(SaleState::Paused), 1 => Just(SaleState::Closed)];
    prop_oneof![
        // A hold ends at once or not while the test runs: the ledgers have clocks of their own.
        12 => (vec(purchase(), 1..9), prop_oneof![Just(0), Just(60_000)])
            .prop_map(|(batch, hold_ms)| Op::Reserve { batch, hold_ms }),
        8 => (0u8..40, 0u8..3).prop_map(|(id, payment)| Op::Confirm { id, payment }),
        4 => (0u8..40).prop_map(|id| Op::Cancel { id }),
        3 => Just(Op::Sweep),
        1 => state.prop_map(Op::State),
        2 => (0u8..4, prop_oneof![-6i64..7, Just(TOTAL_MAX as i64), Just(i64::MIN), Just(i64::MAX)])
            .prop_map(|(id, delta)| Op::Stock { change_id: format!("change {id}"), delta }),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let time = || prop_oneof![8 => Just(None), 1 => Just(Some(PAST)), 1 => Just(Some(FUTURE))];
    (0u32..8, 0u32..4, time(), time()).prop_map(|(per_buyer, unpaid_per_buyer, opens_at_ms, closes_at_ms)| Terms {
        hold_ms: 60_000,
        per_buyer,
        unpaid_per_buyer,
        opens_at_ms,
        closes_at_ms,
    })
}

/// A ledger under test, with a sale of its own.
struct Subject {
    name: &'static str,
    ledger: Arc<dyn Ledger>,
    sale: String,
    epoch: u64,
    /// Whether batches are handed over purchase by purchase.
    singly: bool,
}

impl Subject {
    async fn reserve(&self, terms: &Terms, batch: &[Purchase]) -> Result<(Vec<Decision>, View), LedgerError> {
        let steps: Vec<&[Purchase]> = if self.singly { batch.chunks(1).collect() } else { vec![batch] };
        let (mut decisions, mut view) = (Vec::new(), None);
        for step in steps {
            let reserved = self.ledger.reserve(&self.sale, self.epoch, terms, &Arc::new(step.to_vec())).await?;
            assert!(reserved.version_before <= reserved.view.version);
            decisions.extend(reserved.decisions);
            view = Some(reserved.view);
        }
        Ok((decisions, view.expect("no batch is empty")))
    }
}

/// What must be equal; times differ, since each ledger has its own clock.
fn comparable(decisions: Vec<Decision>) -> Vec<Decision> {
    let comparable = |decision| match decision {
        Decision::Ordered { order, again } => Decision::Ordered { order: timeless(order), again },
        other => other,
    };
    decisions.into_iter().map(comparable).collect()
}

fn timeless(order: Order) -> Order {
    Order { expires_at_ms: 0, ..order }
}

fn comparable_confirmed(confirmed: Confirmed) -> Confirmed {
    match confirmed {
        Confirmed::Paid { order, retaken } => Confirmed::Paid { order: timeless(order), retaken },
        other => other,
    }
}

fn comparable_cancelled(cancelled: Cancelled) -> Cancelled {
    match cancelled {
        Cancelled::Released(order) => Cancelled::Released(timeless(order)),
        Cancelled::AlreadyPaid(order) => Cancelled::AlreadyPaid(timeless(order)),
        Cancelled::GivenUp => Cancelled::GivenUp,
    }
}

fn counters(view: &View) -> (u64, u64, u64, SaleState) {
    (view.total, view.sold, view.paid, view.state)
}

/// The changes of a log, one for each order, so that it does not matter in how many steps they were made.
fn changes(entries: &[LogEntry]) -> Vec<Change> {
    let mut changes = Vec::new();
    for entry in entries {
        match &entry.change {
            Change::Held { orders, .. } => {
                changes.extend(orders.iter().map(|line| Change::Held { expires_at_ms: 0, orders: vec![line.clone()] }))
            }
            Change::Released { reason, orders } => changes
                .extend(orders.iter().map(|line| Change::Released { reason: *reason, orders: vec![line.clone()] })),
            other => changes.push(other.clone()),
        }
    }
    changes
}

/// The model with its log.
struct Model {
    sale: SaleModel,
    log: Vec<LogEntry>,
}

impl Model {
    fn commit(&mut self, entry: Option<LogEntry>) {
        if let Some(entry) = entry {
            self.sale.apply(&entry);
            self.log.push(entry);
        }
    }
}

/// Runs one history at the model and at every subject, comparing after every step.
async fn run_history(subjects: &[Subject], total: u64, terms: &Terms, ops: &[Op]) {
    let mut model = Model { sale: SaleModel::new(1), log: Vec::new() };
    model.commit(Some(model.sale.open(NOW, total)));
    for op in ops {
        step(subjects, &mut model, terms, op).await;
        for subject in subjects {
            let view = subject.ledger.snapshot(&subject.sale, terms).await.unwrap();
            assert_eq!(counters(&view), counters(&model.sale.view(NOW, terms)), "{} after {op:?}", subject.name);
            assert!(subject.singly || view.version == model.sale.version(), "{} after {op:?}", subject.name);
        }
    }
    for subject in subjects {
        let written = subject.ledger.log(&subject.sale, 0, usize::from(u16::MAX)).await.unwrap();
        assert_eq!(changes(&written), changes(&model.log), "the log of {}", subject.name);
        assert!(written.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "the log of {}", subject.name);
        for id in (0..40).map(|id| OrderId([id; 16])) {
            let order = subject.ledger.order(&subject.sale, id).await.unwrap();
            let expected = model.sale.order(&id).cloned();
            assert_eq!(order.map(timeless), expected.map(timeless), "order {id} of {}", subject.name);
        }
    }
    check_books(&model, total);
}

async fn step(subjects: &[Subject], model: &mut Model, terms: &Terms, op: &Op) {
    match op {
        Op::Reserve { batch, hold_ms } => {
            let terms = Terms { hold_ms: *hold_ms, ..*terms };
            let expected = model.sale.reserve(NOW, &terms, batch);
            model.commit(expected.entry);
            for subject in subjects {
                let (decisions, view) = subject.reserve(&terms, batch).await.unwrap();
                let expected = comparable(expected.decisions.clone());
                assert_eq!(comparable(decisions), expected, "{} on {batch:?}", subject.name);
                assert_eq!(counters(&view), counters(&model.sale.view(NOW, &terms)), "{}", subject.name);
            }
        }
        Op::Confirm { id, payment } => {
            let (id, payment) = (OrderId([*id; 16]), format!("payment:{payment}").parse::<PaymentId>().unwrap());
            let (expected, entry) = model.sale.confirm(NOW, terms, id, &payment);
            model.commit(entry);
            for subject in subjects {
                let confirmed = subject.ledger.confirm(&subject.sale, terms, id, &payment).await.unwrap();
                let expected = comparable_confirmed(expected.clone());
                assert_eq!(comparable_confirmed(confirmed), expected, "{} on {op:?}", subject.name);
            }
        }
        Op::Cancel { id } => {
            let id = OrderId([*id; 16]);
            let (expected, entry) = model.sale.cancel(NOW, id);
            model.commit(entry);
            for subject in subjects {
                let cancelled = subject.ledger.cancel(&subject.sale, id).await.unwrap();
                let expected = comparable_cancelled(expected.clone());
                assert_eq!(comparable_cancelled(cancelled), expected, "{} on {op:?}", subject.name);
            }
        }
        Op::Sweep => {
            let sweep = model.sale.sweep(NOW);
            model.commit(sweep.entry.clone());
            model.sale.end(&sweep);
            for subject in subjects {
                let swept = subject.ledger.sweep(&subject.sale, subject.epoch).await.unwrap();
                assert_eq!(swept, sweep.swept, "{}", subject.name);
            }
        }
        Op::State(state) => {
            model.commit(model.sale.set_state(NOW, *state));
            for subject in subjects {
                subject.ledger.set_state(&subject.sale, *state).await.unwrap();
            }
        }
        Op::Stock { change_id, delta } => {
            let expected = model.sale.add_stock(NOW, change_id, *delta);
            model.commit(expected.clone().ok().flatten());
            for subject in subjects {
                let outcome = subject.ledger.add_stock(&subject.sale, change_id, *delta).await;
                assert_eq!(outcome, expected.clone().map(|_| ()), "{} on {op:?}", subject.name);
            }
        }
    }
}

/// What must hold of a sale after any history.
fn check_books(model: &Model, total: u64) {
    let Model { sale, log } = model;
    let view = sale.view(NOW, &Terms::default());
    let sum = |states: &[OrderState]| -> u64 {
        let counted = sale.orders().filter(|(_, order)| states.contains(&order.state));
        counted.map(|(_, order)| u64::from(order.quantity)).sum()
    };
    assert_eq!(view.sold, sum(&[OrderState::Held, OrderState::Paid]), "what is sold is what the orders say");
    assert_eq!(view.paid, sum(&[OrderState::Paid]), "what is paid is what the orders say");
    assert!(view.sold <= view.total, "no more is sold than there is");
    let added: i64 =
        log.iter().map(|entry| if let Change::Stock { delta, .. } = entry.change { delta } else { 0 }).sum();
    assert_eq!(view.total as i64, total as i64 + added);
    let mut has = BTreeMap::<&str, Holdings>::new();
    for (_, order) in sale.orders() {
        if let Some(buyer) = order.buyer.as_deref().filter(|_| order.state != OrderState::Released) {
            let has = has.entry(buyer).or_default();
            has.tickets += u64::from(order.quantity);
            has.unpaid += u64::from(order.state == OrderState::Held);
        }
    }
    for buyer in BUYERS.into_iter().flatten() {
        assert_eq!(sale.held_by(buyer), has.get(buyer).copied().unwrap_or_default());
    }
    let due: Vec<_> = sale.due().map(|(_, id)| id).collect();
    let held = sale.orders().filter(|(_, order)| order.state == OrderState::Held);
    held.for_each(|(id, _)| assert!(due.contains(id), "every held order has a deadline"));
    let mut replayed = SaleModel::new(1);
    log.iter().for_each(|entry| replayed.apply(entry));
    assert_eq!(replayed.view(NOW, &Terms::default()), view, "the log gives the sale again");
}

static SALES: AtomicU32 = AtomicU32::new(0);

fn fresh_sale() -> String {
    format!("sale{}", SALES.fetch_add(1, Ordering::Relaxed))
}

async fn redis_ledger(redis: &Redis) -> Arc<dyn Ledger> {
    Arc::new(RedisLedger::connect(&redis.url(), Duration::from_secs(5), Duration::from_secs(5)).await.unwrap())
}

fn embedded_ledger(folder: &Path) -> Arc<dyn Ledger> {
    Arc::new(EmbeddedLedger::open(folder, || NOW).unwrap())
}

#[test]
fn thousands_of_random_batches_end_alike_in_model_redis_and_embedded() {
    let runtime = Runtime::new().unwrap();
    let redis = Redis::start();
    let folder = TempDir::new().unwrap();
    let in_redis = runtime.block_on(redis_ledger(&redis));
    let embedded = embedded_ledger(folder.path());
    let ledgers = [("redis", &in_redis, false), ("redis, one by one", &in_redis, true), ("embedded", &embedded, false)];
    let mut runner = TestRunner::new(Config { cases: 80, failure_persistence: None, ..Config::default() });
    let histories = (1u64..60, terms(), vec(op(), 20..60));
    runner
        .run(&histories, |(total, terms, ops)| {
            runtime.block_on(async {
                let mut subjects = Vec::new();
                for (name, ledger, singly) in ledgers {
                    let (sale, ledger) = (fresh_sale(), Arc::clone(ledger));
                    let epoch = ledger.open(&sale, Some(total)).await.unwrap().epoch;
                    subjects.push(Subject { name, ledger, sale, epoch, singly });
                }
                run_history(&subjects, total, &terms, &ops).await;
            });
            Ok(())
        })
        .unwrap();
}

/// Both stores, each with a sale of `total`, for tests of what they promise alike.
async fn both(total: u64) -> (Redis, TempDir, [(Arc<dyn Ledger>, &'static str, u64); 2]) {
    let (redis, folder) = (Redis::start(), TempDir::new().unwrap());
    let ledgers = [(redis_ledger(&redis).await, "redis"), (embedded_ledger(folder.path()), "embedded")];
    let mut opened = Vec::new();
    for (ledger, name) in ledgers {
        let epoch = ledger.open("ticket", Some(total)).await.unwrap().epoch;
        opened.push((ledger, name, epoch));
    }
    (redis, folder, opened.try_into().ok().unwrap())
}

fn one(id: u8) -> Arc<Vec<Purchase>> {
    Arc::new(vec![Purchase { id: OrderId([id; 16]), buyer: None, quantity: 1 }])
}

#[tokio::test]
async fn opening_again_changes_nothing_and_a_missing_sale_is_said_to_be_missing() {
    let (_redis, _folder, ledgers) = both(3).await;
    for (ledger, name, epoch) in ledgers {
        ledger.reserve("ticket", epoch, &Terms::default(), &one(1)).await.unwrap();
        let again = ledger.open("ticket", Some(500)).await.unwrap();
        assert_eq!(again, ledger.open("ticket", None).await.unwrap(), "{name}");
        assert_eq!(again.epoch, epoch, "{name}");
        let view = ledger.snapshot("ticket", &Terms::default()).await.unwrap();
        assert_eq!((view.total, view.sold, view.version), (3, 1, 2), "{name}");

        let missing = Err(LedgerError::Missing);
        assert_eq!(ledger.open("nothing", None).await.map(|_| ()), missing, "{name}");
        assert_eq!(ledger.snapshot("nothing", &Terms::default()).await.map(|_| ()), missing, "{name}");
        assert_eq!(ledger.set_state("nothing", SaleState::Paused).await, missing, "{name}");
        assert_eq!(ledger.add_stock("nothing", "x", 1).await, missing, "{name}");
        let lost = ledger.reserve("nothing", epoch, &Terms::default(), &one(1)).await;
        assert_eq!(lost.map(|_| ()), missing, "{name}");
        let other = ledger.reserve("ticket", epoch ^ 1, &Terms::default(), &one(1)).await;
        assert_eq!(other.map(|_| ()), Err(LedgerError::Changed), "{name}");
    }
}

#[tokio::test]
async fn a_sync_brings_counters_and_the_log_since_the_last_one_for_every_sale() {
    let (_redis, _folder, ledgers) = both(10).await;
    for (ledger, name, epoch) in ledgers {
        for id in 1..=3 {
            ledger.reserve("ticket", epoch, &Terms::default(), &one(id)).await.unwrap();
        }
        let ask = |sale: &str, epoch, read_to| SyncAsk { sale: sale.into(), epoch, terms: Terms::default(), read_to };
        let asks =
            [ask("ticket", epoch, 2), ask("nothing", epoch, 0), ask("ticket", epoch ^ 1, 0), ask("ticket", epoch, 4)];
        let answers = ledger.sync(&asks).await.unwrap();
        let synced = answers[0].as_ref().unwrap();
        assert_eq!((synced.view.version, synced.view.available()), (4, 7), "{name}");
        assert_eq!(synced.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 4], "{name}");
        assert_eq!(answers[1], Err(LedgerError::Missing), "{name}");
        assert_eq!(answers[2], Err(LedgerError::Changed), "{name}");
        assert!(answers[3].as_ref().unwrap().entries.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_sale_made_by_hand_is_adopted_with_its_own_rules() {
    let redis = Redis::start();
    let ledger = redis_ledger(&redis).await;
    redis.command::<()>("HMSET ticket_hash_key ticket_total_nums 10 ticket_sold_nums 4");
    let loose = ledger.reserve("ticket_hash_key", 7, &Terms::default(), &one(1)).await;
    assert_eq!(loose.map(|_| ()), Err(LedgerError::Changed), "nothing is sold of a sale that nobody opened");
    let epoch = ledger.open("ticket_hash_key", Some(99)).await.unwrap().epoch;
    redis.command::<()>("HSET ticket_hash_key per_buyer 1 hold_ms 5000");
    let ann = |id| Arc::new(vec![Purchase { id: OrderId([id; 16]), buyer: Some("ann".into()), quantity: 1 }]);
    let terms = Terms { hold_ms: 1, per_buyer: 0, ..Terms::default() };
    let first = ledger.reserve("ticket_hash_key", epoch, &terms, &ann(1)).await.unwrap();
    assert_eq!((first.view.total, first.view.sold, first.view.terms.per_buyer), (10, 5, 1));
    let Decision::Ordered { order, again: false } = &first.decisions[0] else { panic!("{first:?}") };
    assert_eq!(order.expires_at_ms, first.view.now_ms + 5000);
    let second = ledger.reserve("ticket_hash_key", epoch, &terms, &ann(2)).await.unwrap();
    assert_eq!(second.decisions, [Decision::BuyerLimit { have: 1 }]);
}

#[tokio::test]
async fn a_sale_made_anew_by_hand_puts_the_old_ones_orders_away() {
    let redis = Redis::start();
    let ledger = redis_ledger(&redis).await;
    let old = ledger.open("ticket", Some(5)).await.unwrap();
    ledger.reserve("ticket", old.epoch, &Terms::default(), &one(1)).await.unwrap();
    redis.command::<()>("DEL ticket");
    redis.command::<()>("HSET ticket ticket_total_nums 5");
    let new = ledger.open("ticket", None).await.unwrap();
    assert_ne!(old.epoch, new.epoch);
    assert_ne!(old.secret, new.secret);
    assert_eq!(ledger.order("ticket", OrderId([1; 16])).await.unwrap(), None);
    let kept: u64 = redis.command(&format!("HLEN {{ticket}}:orders:before:{:016x}", new.epoch));
    assert_eq!(kept, 1, "no order is thrown away");
    let reserved = ledger.reserve("ticket", new.epoch, &Terms::default(), &one(1)).await.unwrap();
    assert_eq!((reserved.version_before, reserved.view.version, reserved.view.sold), (1, 2, 1));
}

#[tokio::test]
async fn damaged_data_is_named_and_nothing_is_written() {
    let redis = Redis::start();
    let ledger = redis_ledger(&redis).await;
    let epoch = ledger.open("ticket", Some(5)).await.unwrap().epoch;
    let rows = [
        ("HSET ticket ticket_total_nums ten", "HSET ticket ticket_total_nums 5", "ticket_total_nums"),
        ("HSET ticket ticket_total_nums -5", "HSET ticket ticket_total_nums 5", "ticket_total_nums"),
        ("HSET ticket ticket_sold_nums 1.5", "HSET ticket ticket_sold_nums 0", "ticket_sold_nums"),
        ("HSET ticket version x", "HSET ticket version 1", "version"),
        ("HSET ticket state shut", "HSET ticket state open", "state"),
        ("HDEL ticket ticket_total_nums", "HSET ticket ticket_total_nums 5", "ticket_total_nums"),
        ("SET {ticket}:orders x", "DEL {ticket}:orders", "type"),
        ("SET {ticket}:due x", "DEL {ticket}:due", "type"),
        ("HSET {ticket}:orders 01010101010101010101010101010101 CANCELLED", "DEL {ticket}:orders", "order 0101"),
    ];
    for (damage, repair, named) in rows {
        redis.command::<()>(damage);
        match ledger.reserve("ticket", epoch, &Terms::default(), &one(1)).await {
            Err(LedgerError::Damaged(text)) => assert!(text.contains(named), "{damage}: {text}"),
            other => panic!("{damage}: {other:?}"),
        }
        redis.command::<()>(repair);
        let view = ledger.snapshot("ticket", &Terms::default()).await.unwrap();
        assert_eq!((view.sold, view.version), (0, 1), "{damage}");
        assert_eq!(redis.command::<u64>("XLEN {ticket}:log"), 1, "{damage}");
    }
}

#[tokio::test]
async fn forgotten_scripts_and_broken_connections_are_made_good() {
    let redis = Redis::start();
    let ledger = redis_ledger(&redis).await;
    let epoch = ledger.open("ticket", Some(5)).await.unwrap().epoch;
    redis.command::<()>("SCRIPT FLUSH");
    ledger.reserve("ticket", epoch, &Terms::default(), &one(1)).await.unwrap();
    redis.command::<()>("CLIENT KILL TYPE normal SKIPME yes");
    let broken = ledger.reserve("ticket", epoch, &Terms::default(), &one(2)).await;
    assert!(matches!(broken, Err(LedgerError::Unknown(_))), "{broken:?}");
    let reserved = ledger.reserve("ticket", epoch, &Terms::default(), &one(2)).await.unwrap();
    assert!(matches!(reserved.decisions[0], Decision::Ordered { .. }));
    assert_eq!(reserved.view.sold, 2);
}

#[tokio::test]
async fn a_connection_that_was_given_up_is_ended_before_its_successor_is_used() {
    let redis = Redis::start();
    let wait = Duration::from_millis(300);
    let ledger = RedisLedger::connect(&redis.url(), wait, wait).await.unwrap();
    let epoch = ledger.open("ticket", Some(5)).await.unwrap().epoch;
    let edges = || {
        let list = redis.command::<String>("CLIENT LIST");
        list.lines().filter(|line| line.contains("name=spikegate-")).count()
    };
    assert_eq!(edges(), 1);
    // The first step over a connection is preceded by a question, of which it is certain that it sold nothing.
    ledger.sweep("ticket", epoch).await.unwrap();

    // Redis answers nothing for a while; what was asked meanwhile waits in its buffers, or is done when it wakes up.
    redis.freeze();
    let unknown = ledger.reserve("ticket", epoch, &Terms::default(), &one(1)).await;
    assert!(matches!(unknown, Err(LedgerError::Unknown(_))), "{unknown:?}");
    redis.thaw();
    let again = ledger.reserve("ticket", epoch, &Terms::default(), &one(1)).await.unwrap();
    assert_eq!((again.view.sold, edges()), (1, 1), "one order, and only the new connection");
}

#[tokio::test]
async fn the_embedded_ledger_is_as_it_was_when_it_is_opened_again_and_only_one_may_have_it() {
    let folder = TempDir::new().unwrap();
    let first = EmbeddedLedger::open(folder.path(), || NOW).unwrap();
    let identity = first.open("ticket", Some(5)).await.unwrap();
    first.reserve("ticket", identity.epoch, &Terms::default(), &one(1)).await.unwrap();
    first.add_stock("ticket", "more", 3).await.unwrap();
    let second = EmbeddedLedger::open(folder.path(), || NOW);
    assert!(matches!(&second, Err(LedgerError::Unavailable(text)) if text.contains("in use")), "{:?}", second.err());
    drop(first);
    let again = crate::harness::eventually("the folder is free", || EmbeddedLedger::open(folder.path(), || NOW).ok());
    assert_eq!(again.open("ticket", None).await.unwrap(), identity);
    let view = again.snapshot("ticket", &Terms::default()).await.unwrap();
    assert_eq!((view.total, view.sold, view.version), (8, 1, 3));
    assert!(again.order("ticket", OrderId([1; 16])).await.unwrap().is_some());
}

fn batch(from: u64, count: u64) -> Arc<Vec<Purchase>> {
    let purchase = |n: u64| Purchase { id: id(n), buyer: None, quantity: 1 };
    Arc::new((from..from + count).map(purchase).collect())
}

fn id(n: u64) -> OrderId {
    OrderId(u128::from(n).to_be_bytes())
}

#[tokio::test]
async fn a_sweep_and_a_sync_are_bounded_and_go_on_where_they_stopped() {
    let (_redis, _folder, ledgers) = both(10_000).await;
    for (ledger, name, epoch) in ledgers {
        let at_once = Terms { hold_ms: 0, ..Terms::default() };
        for n in 0..7 {
            ledger.reserve("ticket", epoch, &at_once, &batch(n * 1_000, 400)).await.unwrap();
        }
        ledger.reserve("ticket", epoch, &Terms { hold_ms: 600_000, ..at_once }, &batch(9_000, 5)).await.unwrap();
        let payment = "p".parse().unwrap();
        ledger.confirm("ticket", &at_once, id(1_000), &payment).await.unwrap();
        ledger.cancel("ticket", id(1_001)).await.unwrap();

        let mut read_to = 0;
        let mut trips = Vec::new();
        while read_to < 11 {
            let ask = SyncAsk { sale: "ticket".into(), epoch, terms: at_once, read_to };
            let synced = ledger.sync(&[ask]).await.unwrap().remove(0).unwrap();
            assert!(synced.next_due_ms.is_some_and(|due_ms| due_ms <= synced.view.now_ms), "{name}");
            assert_eq!(synced.entries[0].seq, read_to + 1, "{name}");
            read_to = synced.entries.last().unwrap().seq;
            trips.push(synced.entries.iter().map(LogEntry::lines).sum::<usize>());
        }
        assert!(trips.len() > 3 && trips.iter().all(|lines| *lines < SYNC_LINES_MAX + BATCH_MAX), "{name}: {trips:?}");

        let mut released = Vec::new();
        loop {
            let swept = ledger.sweep("ticket", epoch).await.unwrap();
            assert!(swept.ended <= SWEEP_MAX, "{name}");
            if swept.ended == 0 {
                break;
            }
            released.push(swept.released);
        }
        assert_eq!(released, [400, 398, 400, 400, 400, 400, 400], "{name}");
        let view = ledger.snapshot("ticket", &at_once).await.unwrap();
        assert_eq!((view.sold, view.paid), (6, 1), "{name}");
        let ask = SyncAsk { sale: "ticket".into(), epoch, terms: at_once, read_to: view.version };
        let synced = ledger.sync(&[ask]).await.unwrap().remove(0).unwrap();
        assert!(synced.next_due_ms.is_some_and(|due_ms| due_ms > synced.view.now_ms), "{name}");
        assert_eq!(ledger.sweep("ticket", epoch ^ 1).await, Err(LedgerError::Changed), "{name}");
    }
}

#[tokio::test]
async fn an_id_that_was_given_up_never_becomes_an_order() {
    let (_redis, _folder, ledgers) = both(3).await;
    for (ledger, name, epoch) in ledgers {
        assert_eq!(ledger.cancel("ticket", OrderId([1; 16])).await, Ok(Cancelled::GivenUp), "{name}");
        assert_eq!(ledger.cancel("ticket", OrderId([1; 16])).await, Ok(Cancelled::GivenUp), "{name}");
        // The purchase that was under way all the time arrives.
        let late = ledger.reserve("ticket", epoch, &Terms::default(), &one(1)).await.unwrap();
        let [Decision::Ordered { order, again: true }] = &late.decisions[..] else { panic!("{name}: {late:?}") };
        assert_eq!((order.state, order.reason), (OrderState::Released, Some(ReleaseReason::GivenUp)), "{name}");
        assert_eq!((late.view.sold, late.view.version), (0, 2), "{name}");
        let paid = ledger.confirm("ticket", &Terms::default(), OrderId([1; 16]), &"p".parse().unwrap()).await;
        assert_eq!(paid, Ok(Confirmed::RefundDue(RefundReason::GivenUp)), "{name}");
    }
}

#[tokio::test]
async fn a_ledger_that_was_opened_again_knows_who_paid_and_whose_hold_ends() {
    let folder = TempDir::new().unwrap();
    let first = EmbeddedLedger::open(folder.path(), || NOW).unwrap();
    let identity = first.open("ticket", Some(5)).await.unwrap();
    let terms = Terms { hold_ms: 1_000, ..Terms::default() };
    first.reserve("ticket", identity.epoch, &terms, &batch(1, 3)).await.unwrap();
    first.confirm("ticket", &terms, id(1), &"p-1".parse().unwrap()).await.unwrap();
    first.cancel("ticket", id(2)).await.unwrap();
    first.cancel("ticket", id(9)).await.unwrap();
    drop(first);
    let again =
        crate::harness::eventually("the folder is free", || EmbeddedLedger::open(folder.path(), || NOW + 1_000).ok());
    assert_eq!(again.sweep("ticket", identity.epoch).await.map(|swept| (swept.ended, swept.released)), Ok((3, 1)));
    let states =
        [(1, OrderState::Paid), (2, OrderState::Released), (3, OrderState::Released), (9, OrderState::Released)];
    for (n, state) in states {
        assert_eq!(again.order("ticket", id(n)).await.unwrap().map(|order| order.state), Some(state), "{n}");
    }
    let view = again.snapshot("ticket", &terms).await.unwrap();
    assert_eq!((view.sold, view.paid, view.available()), (1, 1, 4));
}
