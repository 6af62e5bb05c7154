//! A sale at this edge. A purchase is refused from memory or queued for the next batch, which brings its outcome.
//!
//! Read in this order: [`request`] (parses a purchase), [`gate`] (refuses from memory), [`batch`] (sends purchases to
//! the ledger), [`reply`] (renders the answer). [`sync`] keeps the gates up to date. Nothing here depends on HTTP
//! sessions or on the ledger's store.
//!
//! One purchase passes the gate up to three times: before and after its token is verified ([`Sale::submit`]), and when
//! it leaves the queue ([`batch`]). A comment at each place gives the reason.

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
use self::rules::SaleRules;
use self::stat_log::StatLog;
use crate::config::{self, BuyerSource};
use crate::ledger::{Identity, Ledger, LedgerError, OrderId, Purchase, Terms, View};
use crate::limits::QuotaGuard;
use crate::observe::trace;
use crate::sale::metrics::SaleMetrics;

/// A purchase in the queue. It is decided even if the caller drops this.
pub struct Queued {
    id: OrderId,
    outcome: oneshot::Receiver<Outcome>,
    /// Counts against the buyer's concurrent purchases until dropped.
    taken: Option<QuotaGuard>,
    trace: Option<trace::Purchase>,
}

/// State that all sales of an edge share.
pub struct SaleContext {
    /// The store that decides purchases.
    pub ledger: Arc<dyn Ledger>,
    /// Starts the next sync immediately.
    pub sync_now: Notify,
    /// Notified after every sync.
    pub synced: Notify,
    /// Maximum age of a gate's counters. Must exceed the time from one sync to the end of the next; see [`Gate::new`].
    pub memory: Duration,
}

/// One sale at this edge.
pub struct Sale {
    id: String,
    key: String,
    /// Replaced by a reload. A purchase keeps the rules that it started with.
    rules: ArcSwap<SaleRules>,
    shared: Arc<SaleContext>,
    gate: Gate,
    /// The sale that the ledger has under this key; none until it is opened.
    identity: ArcSwapOption<Identity>,
    queue: mpsc::Sender<Pending>,
    order_reads: Semaphore,
    stat_log: Option<StatLog>,
    metrics: SaleMetrics,
}

impl Sale {
    /// Creates a sale and the receiving end of its queue, for [`batch::run`].
    #[must_use]
    pub fn new(
        settings: config::Sale,
        shared: Arc<SaleContext>,
        stat_log: Option<StatLog>,
    ) -> (Arc<Self>, mpsc::Receiver<Pending>) {
        let (queue, pending) = mpsc::channel(settings.queue);
        let sale = Arc::new(Self {
            id: settings.id.clone(),
            key: settings.key.clone(),
            rules: ArcSwap::from_pointee(SaleRules::new(settings, None)),
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

    /// The rules for the next purchase.
    #[must_use]
    pub fn rules(&self) -> Guard<Arc<SaleRules>> {
        self.rules.load()
    }

    /// Applies new settings from the next purchase on. The id, the key, the queue length and the stat log do not
    /// change.
    pub fn replace(&self, settings: config::Sale) {
        let before = self.rules.load();
        self.rules.store(Arc::new(SaleRules::new(settings, Some(&before))));
        // The next sync brings the new terms to the gate.
        self.shared.sync_now.notify_one();
    }

    /// Opens the sale in the ledger. Creates it if the ledger has none and `total` is given.
    ///
    /// # Errors
    /// Those of [`Ledger::open`], except [`LedgerError::Missing`]: the sale may be created later.
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

    /// Refuses a purchase without a buyer ID if the sale has a limit per buyer.
    ///
    /// # Errors
    /// [`RequestRefusal::Bad`] with the field that must carry the buyer ID.
    pub fn require_buyer(&self, rules: &SaleRules, ask: &Ask<'_>) -> Result<(), RequestRefusal> {
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
        Err(RequestRefusal::Bad { field: field.clone(), detail: "is required: this sale has a limit per buyer".into() })
    }

    /// Submits a purchase and waits for its outcome, at most for the configured `deadline`.
    pub async fn buy(&self, ask: &Ask<'_>) -> Outcome {
        let submitted = self.submit(&self.rules(), ask);
        match submitted {
            Ok(queued) => self.outcome(queued).await,
            Err(outcome) => outcome,
        }
    }

    /// Refuses the purchase from memory or queues it.
    ///
    /// # Errors
    /// The outcome of a refused purchase.
    pub fn submit(&self, rules: &SaleRules, ask: &Ask<'_>) -> Result<Queued, Outcome> {
        self.try_submit(rules, ask, Instant::now()).map_err(|refusal| self.record(Outcome::Refused(refusal)))
    }

    /// Waits for the outcome of a queued purchase.
    pub async fn outcome(&self, queued: Queued) -> Outcome {
        // The batch records and sends every outcome. If its task ended without one, the outcome is unknown.
        let Queued { id, outcome, taken: _taken, trace } = queued;
        let outcome = outcome.await.unwrap_or_else(|_| self.record(Outcome::Unknown { id }));
        if let Some(trace) = trace {
            trace.end(SaleMetrics::label(&outcome), outcome.is_fault());
        }
        outcome
    }

    /// Runs the cheapest check first: the gate (memory), the admission token (one hash), the buyer token (a signature).
    fn try_submit(&self, rules: &SaleRules, ask: &Ask, now: Instant) -> Result<Queued, Refusal> {
        let identity = self.identity.load();
        let Some(identity) = identity.as_deref() else {
            return Err(if self.gate.is_missing() { Refusal::Missing } else { Refusal::Unavailable });
        };
        // The token is not verified yet. Trust the claimed buyer only where a forged token cannot gain anything: "sold
        // out" applies to all buyers, and nothing about a buyer's limits or orders is disclosed before verification.
        let needs_claimed_buyer = ask.key.is_some() || rules.settings.admission.is_some();
        let named = ask.buyer.as_deref().map(Cow::Borrowed).or_else(|| match (&rules.verifier, ask.token.as_deref()) {
            (Some(verifier), Some(token)) if needs_claimed_buyer => verifier.claimed(token).map(Cow::Owned),
            _ => None,
        });
        let retry_of = ask.key.as_deref().map(|key| order_id(identity, named.as_deref(), key));
        // First gate check: after the sale is sold out, most purchases are refused here, without the cost of a hash or
        // a signature.
        self.pass_gate(&Visitor { retry_of, buyer: ask.buyer.as_deref(), quantity: ask.quantity }, now)?;
        // An existing order was admitted when it was made.
        if let Some(keys) = &rules.settings.admission
            && !retry_of.is_some_and(|id| self.gate.knows(id))
        {
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            keys.check(ask.admission.as_deref(), self.id(), named.as_deref(), now_s).map_err(Refusal::NotAdmitted)?;
        }
        let proven = self.prove(rules, ask)?;
        let buyer = proven.as_deref().or(ask.buyer.as_deref());
        if proven.is_some() {
            // Second gate check: the buyer's own limits may be applied only now that the token is verified.
            self.pass_gate(&Visitor { retry_of, buyer, quantity: ask.quantity }, now)?;
        }
        let taken = rules.take_quota(buyer)?;
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

    /// Verifies the buyer's token and returns the buyer, if the sale requires a token. If a trusted proxy must supply
    /// the buyer ID, refuses a purchase without one.
    fn prove(&self, rules: &SaleRules, ask: &Ask) -> Result<Option<String>, Refusal> {
        let Some(verifier) = &rules.verifier else {
            let proxy_supplies_buyer = matches!(rules.settings.buyer, BuyerSource::ProxyHeader(_));
            return if proxy_supplies_buyer && ask.buyer.is_none() { Err(Refusal::BuyerUnknown) } else { Ok(None) };
        };
        let token = ask.token.as_deref().ok_or(Refusal::TokenMissing)?;
        self.metrics.tokens_checked.add(1);
        verifier.buyer(token).map(Some).map_err(Refusal::TokenInvalid)
    }

    /// Counts an outcome. Every outcome is recorded once, even if the client has disconnected. A purchase whose client
    /// disconnected before the ledger was asked has no outcome.
    fn record(&self, outcome: Outcome) -> Outcome {
        self.metrics.outcome(&outcome);
        if let Some(log) = &self.stat_log {
            log.write(matches!(outcome, Outcome::Ordered { again: false, .. }));
        }
        outcome
    }

    /// The sale's ID in paths and in the configuration.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn terms(&self) -> Terms {
        self.rules.load().terms
    }

    /// The sale's key in the ledger.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The sale's request counters.
    #[must_use]
    pub fn metrics(&self) -> &SaleMetrics {
        &self.metrics
    }

    /// Stat log lines that were dropped because the disk was too slow.
    #[must_use]
    pub fn stat_log_dropped(&self) -> u64 {
        self.stat_log.as_ref().map_or(0, StatLog::dropped)
    }

    /// Reopens the stat log after a rotation.
    pub fn reopen_stat_log(&self) {
        if let Some(log) = &self.stat_log {
            log.reopen();
        }
    }

    /// Writes the buffered stat log lines to the file, before the process exits. Waits at most `patience`.
    pub fn flush_stat_log(&self, patience: Duration) {
        if let Some(log) = &self.stat_log {
            log.flush(patience);
        }
    }

    /// See [`Gate::view`].
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.gate.view()
    }

    /// See [`Gate::hears`].
    #[must_use]
    pub fn hears(&self) -> bool {
        self.gate.hears()
    }

    /// See [`Gate::is_missing`].
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.gate.is_missing()
    }

    /// See [`Gate::fence`].
    #[must_use]
    pub fn fence(&self) -> Option<Arc<str>> {
        self.gate.fence()
    }

    /// The epoch of the opened sale; none until it is opened. See [`Identity::epoch`].
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.identity.load().as_ref().map(|identity| identity.epoch)
    }

    /// Waits for the next sync; see [`sync`].
    pub async fn synced(&self) {
        self.shared.synced.notified().await;
    }

    /// Starts the next sync immediately.
    pub fn sync_soon(&self) {
        self.shared.sync_now.notify_one();
    }
}

/// The order ID for an idempotency key: the same at every edge, and computable only with the sale's secret. It is keyed
/// BLAKE3 over the buyer's length, the buyer and the key. The length prefix keeps different pairs apart.
fn order_id(identity: &Identity, buyer: Option<&str>, key: &str) -> OrderId {
    let mut hasher = blake3::Hasher::new_keyed(&identity.secret);
    let buyer = buyer.unwrap_or_default();
    hasher.update(&(buyer.len() as u64).to_be_bytes()).update(buyer.as_bytes()).update(key.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    OrderId(id)
}
