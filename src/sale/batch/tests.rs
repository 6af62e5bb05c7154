//! Purchases brought to a ledger in memory, which is told when to misbehave. Time is real here, and short: purchases
//! have their deadlines on the machine's clock, which tokio's paused time does not move.

mod faults;
mod gathering;

use std::collections::HashSet;

use tokio::sync::Notify;

use tokio::task::JoinSet;

use super::*;
use crate::config::{self, Config};
use crate::ledger::model::in_memory::{Fault, InMemoryLedger};
use crate::ledger::{Ledger, OrderId, OrderState, SaleState};
use crate::sale::request::Ask;
use crate::sale::{SaleContext, order_id, sync};

/// The deadline of purchases whose outcome is to be seen; far above what a busy machine needs.
const AMPLE: Duration = Duration::from_secs(20);
/// The deadline of purchases that are to miss it.
const SHORT: Duration = Duration::from_millis(150);
/// How late a busy machine may be.
const SLACK: Duration = Duration::from_millis(1_500);

/// One edge with one sale.
struct Edge {
    sale: Arc<Sale>,
    ledger: Arc<InMemoryLedger>,
}

impl Edge {
    /// With its batches and its sync under way, and its gate open.
    async fn start(ledger: &Arc<InMemoryLedger>, total: u64, edit: impl FnOnce(&mut config::Sale)) -> Self {
        let (edge, queue) = Self::prepare(ledger, total, edit).await;
        tokio::spawn(run(Arc::clone(&edge.sale), queue));
        edge
    }

    /// Without its batches.
    async fn prepare(
        ledger: &Arc<InMemoryLedger>,
        total: u64,
        edit: impl FnOnce(&mut config::Sale),
    ) -> (Self, mpsc::Receiver<Pending>) {
        let mut settings = Config::from_yaml("sales: { ticket: }").expect("it is the smallest one").sales.remove(0);
        settings.deadline = AMPLE;
        edit(&mut settings);
        let shared = Arc::new(SaleContext {
            ledger: Arc::clone(ledger) as _,
            sync_now: Notify::new(),
            synced: Notify::new(),
            memory: Duration::from_secs(60),
        });
        let (sale, queue) = Sale::new(settings, Arc::clone(&shared), None);
        sale.open(Some(total)).await.expect("this ledger opens every sale");
        // Reads once, and then only when asked to.
        tokio::spawn(sync::run(vec![Arc::clone(&sale)], shared, Duration::from_secs(3600)));
        let edge = Self { sale, ledger: Arc::clone(ledger) };
        edge.hears().await;
        (edge, queue)
    }

    async fn hears(&self) {
        while !self.sale.hears() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn buy(&self, ask: Ask<'_>) -> Outcome {
        self.sale.buy(&ask).await
    }

    /// Buys at the same time; the outcomes are in the order of `asks`.
    async fn buy_all(&self, asks: impl IntoIterator<Item = Ask<'static>>) -> Vec<Outcome> {
        let purchases: Vec<_> = asks.into_iter().map(|ask| self.spawn(ask)).collect();
        let mut outcomes = Vec::new();
        for purchase in purchases {
            outcomes.push(purchase.await.expect("a purchase never panics"));
        }
        outcomes
    }

    fn spawn(&self, ask: Ask<'static>) -> tokio::task::JoinHandle<Outcome> {
        let sale = Arc::clone(&self.sale);
        tokio::spawn(async move { sale.buy(&ask).await })
    }

    /// Keeps the ledger busy with one purchase until it is aborted or `delay` is over.
    async fn occupy(&self, delay: Duration) -> tokio::task::JoinHandle<Outcome> {
        self.ledger.fail([Fault::Delay(delay)]);
        let before = self.ledger.steps().len();
        let first = self.spawn(one());
        while self.ledger.steps().len() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first
    }

    fn id_of(&self, key: &str) -> OrderId {
        order_id(&self.sale.identity.load_full().expect("the sale was opened"), None, key)
    }

    /// Purchases that were sent to the ledger, and batches that were sent again.
    fn sent(&self) -> (u64, u64) {
        (self.sale.metrics.attempts.get(), self.sale.metrics.retries.get())
    }
}

fn tickets(quantity: u32) -> Ask<'static> {
    Ask { quantity, buyer: None, key: None, token: None, admission: None, parent: None }
}

fn one() -> Ask<'static> {
    tickets(1)
}

fn keyed(key: &str) -> Ask<'static> {
    Ask { key: Some(key.to_owned().into()), ..one() }
}

fn by(buyer: &'static str) -> Ask<'static> {
    Ask { buyer: Some(buyer.into()), ..one() }
}

/// The order that was made, and whether it was made before.
#[track_caller]
fn ordered(outcome: &Outcome) -> (OrderId, bool) {
    match outcome {
        Outcome::Ordered { id, again, .. } => (*id, *again),
        other => panic!("no order, but {other:?}"),
    }
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

#[tokio::test]
async fn each_is_told_what_the_ledger_decided() {
    let ledger = Arc::default();
    let edge = Edge::start(&ledger, 4, |settings| settings.per_buyer = 1).await;
    let (id, again) = ordered(&edge.buy(keyed("k")).await);
    assert_eq!((id, again), (edge.id_of("k"), false));
    let Outcome::Ordered { order, .. } = edge.buy(keyed("k")).await else { panic!("the order is there") };
    assert_eq!((order.state, order.quantity, order.buyer), (OrderState::Held, 1, None));
    assert_eq!(ordered(&edge.buy(keyed("k")).await), (id, true));
    assert_eq!(edge.buy(Ask { quantity: 2, ..keyed("k") }).await, refused(Refusal::KeyReused));

    ordered(&edge.buy(by("ann")).await);
    let over = refused(Refusal::BuyerLimit { limit: 1, have: 1 });
    assert_eq!(edge.buy(by("ann")).await, over);
    let sent = edge.sent();
    assert_eq!(edge.buy(by("ann")).await, over);
    assert_eq!(edge.buy(tickets(3)).await, refused(Refusal::NotEnough { left: 2 }));
    assert_eq!(edge.sent(), sent, "both could be refused from memory");

    ordered(&edge.buy(tickets(2)).await);
    let sent = edge.sent();
    assert_eq!(edge.buy(one()).await, refused(Refusal::SoldOut));
    assert_eq!(edge.buy(keyed("other")).await, refused(Refusal::SoldOut));
    assert_eq!(edge.sent(), sent, "both could be refused from memory");
    assert_eq!(ordered(&edge.buy(keyed("k")).await), (id, true), "an order is never denied");
}

#[tokio::test]
async fn the_ledger_s_word_counts_where_the_gate_did_not_know_better() {
    let ledger = Arc::default();
    let edge = Edge::start(&ledger, 4, |_| {}).await;
    edge.ledger.set_state("", SaleState::Paused).await.expect("it does all");
    assert_eq!(edge.buy(one()).await, refused(Refusal::Paused));
    edge.ledger.set_state("", SaleState::Closed).await.expect("it does all");
    edge.ledger.add_stock("", "more", 1).await.expect("it does all");
    let pending = Pending { deadline: Instant::now() + AMPLE, ..waiting(&edge, one()).0 };
    decide(&edge.sale, vec![pending]).await;
    assert_eq!(edge.buy(one()).await, refused(Refusal::Closed));

    // The clock of this ledger is a few ms after 1970.
    let ledger = Arc::default();
    let edge = Edge::prepare(&ledger, 4, |settings| settings.opens_at_ms = Some(10_000)).await.0;
    let (pending, outcome) = waiting(&edge, one());
    decide(&edge.sale, vec![pending]).await;
    let Ok(Outcome::Refused(Refusal::NotYet { wait })) = outcome.await else { panic!("the sale has not begun") };
    assert!((Duration::from_secs(9)..Duration::from_secs(10)).contains(&wait), "{wait:?}");
}

/// A purchase as it stands in the line, and what hears of its outcome.
fn waiting(edge: &Edge, ask: Ask<'_>) -> (Pending, oneshot::Receiver<Outcome>) {
    let identity = edge.sale.identity.load_full().expect("the sale was opened");
    let (reply, outcome) = oneshot::channel();
    let id = ask.key.as_deref().map_or_else(|| OrderId(rand::random()), |key| edge.id_of(key));
    let pending = Pending {
        purchase: Purchase { id, buyer: ask.buyer.as_deref().map(Into::into), quantity: ask.quantity },
        epoch: identity.epoch,
        has_key: ask.key.is_some(),
        deadline: Instant::now() + AMPLE,
        trace: None,
        reply,
    };
    (pending, outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_gets_what_there_is_and_the_ledger_sees_few_of_it() {
    const TOTAL: u64 = 100;
    const LOCAL_STOCK: u32 = 7;
    for edges in 1..=3u64 {
        let ledger: Arc<InMemoryLedger> = Arc::default();
        let mut crowd = JoinSet::new();
        let mut sales = Vec::new();
        for _ in 0..edges {
            let edge = Edge::start(&ledger, TOTAL, |settings| settings.local_stock = LOCAL_STOCK).await;
            sales.push(Arc::clone(&edge.sale));
        }
        ledger.fail([Fault::Delay(Duration::from_millis(2)); 1_000]);
        for n in 0..600 {
            let sale = Arc::clone(&sales[n % sales.len()]);
            // Every second one has a key of its own.
            let ask = if n % 2 == 0 { one() } else { keyed(&format!("key {n}")) };
            crowd.spawn(async move { sale.buy(&ask).await });
        }
        let outcomes = crowd.join_all().await;

        let orders: HashSet<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Ordered { id, again: false, .. } => Some(*id),
                Outcome::Refused(Refusal::SoldOut) => None,
                other => panic!("{other:?} was not to be expected"),
            })
            .collect();
        let sold: HashSet<_> = ledger.sale().orders().map(|(id, _)| *id).collect();
        assert_eq!((orders.len() as u64, &orders), (TOTAL, &sold));
        let attempts: u64 = sales.iter().map(|sale| sale.metrics.attempts.get()).sum();
        assert!(attempts <= TOTAL + edges * u64::from(LOCAL_STOCK), "{attempts} attempts of {edges} edges");
        let largest = ledger.steps().iter().map(Vec::len).max();
        assert!(largest <= Some(LOCAL_STOCK as usize), "{largest:?} at a time");
    }
}

#[tokio::test]
async fn what_gathers_meanwhile_goes_together_up_to_the_largest_batch() {
    let ledger = Arc::default();
    let edge = Edge::start(&ledger, 5_000, |settings| settings.local_stock = 5_000).await;
    let first = edge.occupy(Duration::from_millis(50)).await;
    let outcomes = edge.buy_all((0..BATCH_MAX + 300).map(|_| one())).await;
    outcomes.iter().chain([&first.await.expect("it does not panic")]).for_each(|outcome| assert!(!ordered(outcome).1));
    assert_eq!(ledger.steps().iter().map(Vec::len).collect::<Vec<_>>(), [1, BATCH_MAX, 300]);
}

#[tokio::test]
async fn a_purchase_above_the_local_stock_goes_alone() {
    let ledger = Arc::default();
    let edge = Edge::start(&ledger, 100, |settings| settings.local_stock = 2).await;
    let first = edge.occupy(Duration::from_millis(50)).await;
    let outcomes = edge.buy_all([1, 5, 1, 1, 1, 2, 3, 1].map(tickets)).await;
    outcomes.iter().chain([&first.await.expect("it does not panic")]).for_each(|outcome| assert!(!ordered(outcome).1));
    let quantities = |step: &Vec<Purchase>| step.iter().map(|purchase| purchase.quantity).collect::<Vec<_>>();
    let steps: Vec<_> = ledger.steps().iter().map(quantities).collect();
    assert_eq!(steps, [vec![1], vec![1], vec![5], vec![1, 1], vec![1], vec![2], vec![3], vec![1]]);
}

#[tokio::test]
async fn a_full_queue_is_busy_and_not_sold_out() {
    let ledger = Arc::default();
    let edge = Edge::start(&ledger, 10, |settings| settings.queue = 1).await;
    let first = edge.occupy(Duration::from_millis(100)).await;
    let outcomes = edge.buy_all([one(), one(), one()]).await;
    assert!(!ordered(&outcomes[0]).1);
    assert_eq!(outcomes[1..], [refused(Refusal::Busy), refused(Refusal::Busy)]);
    ordered(&first.await.expect("it does not panic"));
    assert_eq!(edge.sent(), (2, 0));
}
