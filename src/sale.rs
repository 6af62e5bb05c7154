//! A sale at this edge: a purchase comes in, is refused from memory or queued for the next batch, and gets its outcome.
//!
//! Read in this order: [`request`] (what the client asks), [`gate`] (refused from memory?), [`batch`] (the way to the
//! ledger and back), [`reply`] (what the client is told). [`sync`] keeps the gates true. Nothing here knows of HTTP
//! sessions or of the ledger's store.

mod administration;
pub mod batch;
pub mod gate;
pub mod metrics;
mod outcome;
pub mod reply;
pub mod request;
pub mod rules;
pub mod shop;
pub mod stat_log;
pub mod sync;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use self::batch::Pending;
use self::gate::{Gate, Verdict, Visitor};
pub use self::outcome::{Outcome, Refusal};
use self::request::{Ask, RequestRefusal};
use self::rules::Rules;
use self::stat_log::StatLog;
use crate::config::{self, BuyerSource};
use crate::ledger::{Identity, Ledger, LedgerError, OrderId, Purchase, Terms, View};
use crate::limits::Taken;
use crate::observe::trace;
use crate::sale::metrics::SaleMetrics;

/// A purchase in the queue; it is decided, whether its outcome is waited for or not.
pub struct Queued {
    id: OrderId,
    outcome: oneshot::Receiver<Outcome>,
    /// Counts it as one of its buyer's under way.
    taken: Option<Taken>,
    /// If it is traced.
    trace: Option<trace::Purchase>,
}

/// What all sales of an edge share.
pub struct Shared {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Wakes the sync before its time.
    pub sync_now: Notify,
    /// Tells batches that a sync was made.
    pub synced: Notify,
    /// How old what a gate knows may be: longer than from one sync to the end of the next; see [`Gate::new`].
    pub memory: Duration,
}

/// One sale at this edge.
pub struct Sale {
    id: String,
    key: String,
    /// Replaced by a reload; a purchase that has begun keeps those that it began with.
    rules: ArcSwap<Rules>,
    shared: Arc<Shared>,
    gate: Gate,
    /// Which sale the ledger has under our name; none until it was opened.
    identity: ArcSwapOption<Identity>,
    queue: mpsc::Sender<Pending>,
    order_reads: Semaphore,
    stat_log: Option<StatLog>,
    metrics: SaleMetrics,
}

impl Sale {
    /// Sets a sale up, and gives the other end of its queue, for [`batch::run`].
    #[must_use]
    pub fn new(
        settings: config::Sale,
        shared: Arc<Shared>,
        stat_log: Option<StatLog>,
    ) -> (Arc<Self>, mpsc::Receiver<Pending>) {
        let (queue, pending) = mpsc::channel(settings.queue);
        let sale = Arc::new(Self {
            id: settings.id.clone(),
            key: settings.key.clone(),
            rules: ArcSwap::from_pointee(Rules::new(settings, None)),
            gate: Gate::new(shared.memory),
            shared,
            identity: ArcSwapOption::empty(),
            queue,
            order_reads: Semaphore::new(administration::ORDER_READS_MAX),
            stat_log,
            metrics: SaleMetrics::default(),
        });
        (sale, pending)
    }

    /// What the next purchase is judged by.
    #[must_use]
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// From the next purchase on these are the settings. The id, the key, the length of the queue and the stat log stay
    /// what they were, whatever is said here.
    pub fn replace(&self, settings: config::Sale) {
        let before = self.rules.load();
        self.rules.store(Arc::new(Rules::new(settings, Some(&before))));
        // The gate hears of other terms with the next sync.
        self.shared.sync_now.notify_one();
    }

    /// Makes the sale in the ledger if it has none and the configuration names a total; else finds it.
    ///
    /// # Errors
    /// Those of [`Ledger::open`], except that a sale that is not there is no error: it may come.
    pub async fn open(&self, total: Option<u64>) -> Result<(), LedgerError> {
        match self.shared.ledger.open(&self.key, total).await {
            Ok(identity) => {
                if self.identity.swap(Some(Arc::new(identity))).is_none_or(|before| before.epoch != identity.epoch) {
                    self.gate.learn_new_sale(identity.epoch);
                }
                Ok(())
            }
            Err(LedgerError::Missing) => {
                self.identity.store(None);
                self.gate.learn_missing();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses a purchase whose buyer is not told, where a limit for each buyer holds.
    ///
    /// # Errors
    /// [`RequestRefusal::Bad`], naming where the buyer's id has to be.
    pub fn must_know_buyer(&self, rules: &Rules, ask: &Ask<'_>) -> Result<(), RequestRefusal> {
        let (BuyerSource::Header(field) | BuyerSource::Query(field) | BuyerSource::Body(field)) = &rules.settings.buyer
        else {
            return Ok(());
        };
        if ask.buyer.is_some() {
            return Ok(());
        }
        let terms = self.gate.terms().unwrap_or(rules.terms);
        if terms.per_buyer == 0 && terms.unpaid_per_buyer == 0 && !rules.limits_buyers() {
            return Ok(());
        }
        Err(RequestRefusal::Bad {
            field: field.clone(),
            detail: "is needed here: every buyer may have only so many".into(),
        })
    }

    /// A purchase, one way through. Waits at most `deadline` of the configuration.
    pub async fn buy(&self, ask: &Ask<'_>) -> Outcome {
        let submitted = self.submit(&self.rules(), ask);
        match submitted {
            Ok(queued) => self.outcome(queued).await,
            Err(outcome) => outcome,
        }
    }

    /// Refuses from memory, or puts the purchase into the queue.
    ///
    /// # Errors
    /// The outcome of a purchase that was refused.
    pub fn submit(&self, rules: &Rules, ask: &Ask<'_>) -> Result<Queued, Outcome> {
        self.try_submit(rules, ask, Instant::now()).map_err(|refusal| self.record(Outcome::Refused(refusal)))
    }

    /// What became of a purchase in the queue.
    pub async fn outcome(&self, queued: Queued) -> Outcome {
        // The batch records and tells every outcome; should it ever vanish, nobody knows what became of the purchase.
        let Queued { id, outcome, taken: _taken, trace } = queued;
        let outcome = outcome.await.unwrap_or_else(|_| self.record(Outcome::Unknown { id }));
        if let Some(trace) = trace {
            trace.end(SaleMetrics::label(&outcome), outcome.is_fault());
        }
        outcome
    }

    /// What costs least is asked first: memory, then the admission token (one hash), then the token that proves who
    /// buys.
    fn try_submit(&self, rules: &Rules, ask: &Ask, now: Instant) -> Result<Queued, Refusal> {
        let identity = self.identity.load();
        let Some(identity) = identity.as_deref() else {
            return Err(if self.gate.is_missing() { Refusal::Missing } else { Refusal::Unavailable });
        };
        // The one whom a token names is not proven yet. He is believed for as long as it is to his disadvantage: "sold
        // out" is for everybody, and of anybody's limits or orders nothing is told before it is proven who asks.
        let names_buyer = ask.key.is_some() || rules.settings.admission.is_some();
        let named = ask.buyer.as_deref().map(Cow::Borrowed).or_else(|| match (&rules.verifier, ask.token.as_deref()) {
            (Some(verifier), Some(token)) if names_buyer => verifier.claimed(token).map(Cow::Owned),
            _ => None,
        });
        let retry_of = ask.key.as_deref().map(|key| order_id(identity, named.as_deref(), key));
        self.pass_gate(&Visitor { retry_of, buyer: ask.buyer.as_deref(), quantity: ask.quantity }, now)?;
        // An order that is there was admitted when it was made.
        if let Some(keys) = &rules.settings.admission
            && !retry_of.is_some_and(|id| self.gate.knows(id))
        {
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            keys.check(ask.admission.as_deref(), self.id(), named.as_deref(), now_s).map_err(Refusal::NotAdmitted)?;
        }
        let proven = self.prove(rules, ask)?;
        let buyer = proven.as_deref().or(ask.buyer.as_deref());
        if proven.is_some() {
            self.pass_gate(&Visitor { retry_of, buyer, quantity: ask.quantity }, now)?;
        }
        let taken = rules.take_share(buyer)?;
        let id = retry_of.unwrap_or_else(|| OrderId(rand::random()));
        let (reply, outcome) = oneshot::channel();
        let trace = trace::Purchase::begin(self.id(), ask.parent.as_ref());
        let pending = Pending {
            purchase: Purchase { id, buyer: buyer.map(Into::into), quantity: ask.quantity },
            epoch: identity.epoch,
            has_key: retry_of.is_some(),
            deadline: now + rules.settings.deadline,
            trace: trace.as_ref().map(trace::Purchase::context),
            reply,
        };
        self.queue.try_send(pending).map_err(|_| Refusal::Busy)?;
        Ok(Queued { id, outcome, taken, trace })
    }

    fn pass_gate(&self, visitor: &Visitor, now: Instant) -> Result<(), Refusal> {
        match self.gate.judge(visitor, now) {
            Verdict::Refuse(refusal) => {
                self.metrics.refused_at_gate.add(1);
                Err(refusal)
            }
            Verdict::Ask | Verdict::Wait => Ok(()),
        }
    }

    /// The buyer, where a token has to prove who that is; where a proxy of ours has to say it, it must have.
    fn prove(&self, rules: &Rules, ask: &Ask) -> Result<Option<String>, Refusal> {
        let Some(verifier) = &rules.verifier else {
            let must_be_told = matches!(rules.settings.buyer, BuyerSource::ProxyHeader(_));
            return if must_be_told && ask.buyer.is_none() { Err(Refusal::BuyerUnknown) } else { Ok(None) };
        };
        let token = ask.token.as_deref().ok_or(Refusal::TokenMissing)?;
        self.metrics.tokens_checked.add(1);
        verifier.buyer(token).map(Some).map_err(Refusal::TokenInvalid)
    }

    /// Counts an outcome; every one passes here once, whether its client still waits or not. A purchase whose client
    /// left before the ledger was asked has none.
    fn record(&self, outcome: Outcome) -> Outcome {
        self.metrics.outcome(&outcome);
        if let Some(log) = &self.stat_log {
            log.write(matches!(outcome, Outcome::Ordered { again: false, .. }));
        }
        outcome
    }

    /// The sale's id, as in paths and in the configuration.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn terms(&self) -> Terms {
        self.rules.load().terms
    }

    /// What the ledger calls it.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its counters of requests.
    #[must_use]
    pub fn metrics(&self) -> &SaleMetrics {
        &self.metrics
    }

    /// Lines of the stat log that the disk did not take.
    #[must_use]
    pub fn stat_log_dropped(&self) -> u64 {
        self.stat_log.as_ref().map_or(0, StatLog::dropped)
    }

    /// Opens the stat log again, whose file was moved away.
    pub fn reopen_stat_log(&self) {
        if let Some(log) = &self.stat_log {
            log.reopen();
        }
    }

    /// Brings the stat log to its file, for an edge that ends.
    pub fn flush_stat_log(&self, patience: Duration) {
        if let Some(log) = &self.stat_log {
            log.flush(patience);
        }
    }

    /// What the gate knows; see [`Gate::view`].
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.gate.view()
    }

    /// Whether the ledger was heard of late; see [`Gate::hears`].
    #[must_use]
    pub fn hears(&self) -> bool {
        self.gate.hears()
    }

    /// Whether the ledger has no such sale.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.gate.is_missing()
    }

    /// Why the ledger has fenced the sale, if it has.
    #[must_use]
    pub fn fence(&self) -> Option<Arc<str>> {
        self.gate.fence()
    }

    /// Of which sale the ledger keeps under our name; none until it was opened. See [`Identity::epoch`].
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.identity.load().as_ref().map(|identity| identity.epoch)
    }

    /// Waits for the next sync; see [`sync`].
    pub async fn synced(&self) {
        self.shared.synced.notified().await;
    }

    /// Has the sync not wait for its time.
    pub fn sync_soon(&self) {
        self.shared.sync_now.notify_one();
    }
}

/// The id of the order that a key stands for: the same at every edge, and computable only with the sale's secret.
/// Keyed BLAKE3 over buyer and key, the buyer's length in front, so that no two pairs can be mistaken for each other.
fn order_id(identity: &Identity, buyer: Option<&str>, key: &str) -> OrderId {
    let mut hasher = blake3::Hasher::new_keyed(&identity.secret);
    let buyer = buyer.unwrap_or_default();
    hasher.update(&(buyer.len() as u64).to_be_bytes()).update(buyer.as_bytes()).update(key.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    OrderId(id)
}
