//! The delivery: every change of a sale's log reaches the order service, at least once and in the order of the log.
//!
//! One task a sale. It takes the sale's delivery for this edge unless another edge has it, reads the entries that come
//! next, posts their events, writes down how far it is, and begins again. Whatever fails is tried again for ever; an
//! event that the receiver refuses for what it says is set aside and holds up no other.
//!
//! Read in this order: [`worker`] (the task), [`wire`] (what is sent), [`bisection`] (which event is refused), [`post`]
//! (one POST), and [`crate::ledger::Outbox`] (how far it is, and whose turn).

mod backoff;
mod bisection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod order_service_query;
mod outage;
mod post;
mod signature;
mod wire;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use self::backoff::Backoff;
pub use self::order_service_query::KnownError;
pub use self::post::{PostOutcome, Poster};
pub use self::signature::sign;
use self::worker::Worker;
use crate::ledger::reconcile::{Bookkeeper, Witness};
use crate::ledger::{Claim, DeliveryStatus, LedgerError, Outbox, Progress, Record};
use crate::observe::telemetry::Counter;
use crate::sale::Sale;

/// What a lease has beyond the time of the POST under way, for the ledger's answers.
const LEASE_SPARE: Duration = Duration::from_secs(1);

/// The delivery of one sale at this edge.
pub struct Delivery {
    sale: Arc<Sale>,
    outbox: Arc<dyn Outbox>,
    keeper: Arc<dyn Bookkeeper>,
    poster: Arc<Poster>,
    claim: Claim,
    /// What the ledger said last, and of which sale.
    known: Mutex<Option<(u64, Progress)>>,
    /// An operator wants something to be tried now.
    wanted: Notify,
    metrics: DeliveryMetrics,
}

/// What is counted of a sale's delivery at this edge.
#[derive(Debug, Default)]
pub struct DeliveryMetrics {
    /// Events that the receiver keeps.
    pub events: Counter,
    /// POSTs that it answered with 2xx.
    pub kept: Counter,
    /// POSTs of which it refused what they said.
    pub refused: Counter,
    /// POSTs without an answer, or with one that says nothing of the events.
    pub failed: Counter,
}

/// How a sale's delivery stands, whichever edge has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gauges {
    /// Entries of the log that were not delivered.
    pub lag_entries: u64,
    /// How long ago the first of them was written.
    pub oldest_s: u64,
    /// Events set aside.
    pub set_aside: u64,
}

impl Delivery {
    /// The delivery of `sale` by this edge, of which no other has the name `edge`: 1 to 100 visible ASCII characters.
    #[must_use]
    pub fn new(
        sale: Arc<Sale>,
        outbox: Arc<dyn Outbox>,
        keeper: Arc<dyn Bookkeeper>,
        poster: Arc<Poster>,
        edge: Arc<str>,
    ) -> Self {
        // It is renewed when half of it is gone, and whoever posts has at least the time that a POST may take.
        let lease = 2 * (poster.timeout() + LEASE_SPARE);
        Self {
            sale,
            outbox,
            keeper,
            poster,
            claim: Claim { edge, lease },
            known: Mutex::default(),
            wanted: Notify::new(),
            metrics: DeliveryMetrics::default(),
        }
    }

    /// Delivers until `shutdown` turns true; then ends the POST under way and gives the delivery to other edges.
    pub async fn run(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let name = format!("sale {}: its delivery", self.sale.id());
        keep_running(&name, || Worker::new(Arc::clone(&self), shutdown.clone()).run()).await;
    }

    /// The sale's id.
    #[must_use]
    pub fn sale_id(&self) -> &str {
        self.sale.id()
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> &DeliveryMetrics {
        &self.metrics
    }

    /// How it stands, as far as this edge knows.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((epoch, progress)) = known else { return Gauges::default() };
        // The gate hears of new entries more often than the delivery asks, above all while the receiver is down.
        let view = self.sale.view().filter(|view| view.epoch == epoch);
        let (version, now_ms) = view.map_or((0, 0), |view| (view.version, view.now_ms));
        let lag_entries = version.max(progress.version).saturating_sub(progress.delivered);
        let oldest_ms = progress.oldest_at_ms.map_or(0, |at_ms| now_ms.max(progress.now_ms).saturating_sub(at_ms));
        Gauges { lag_entries, oldest_s: oldest_ms / 1_000, set_aside: progress.set_aside }
    }

    /// All that the ledger knows of it; with the sale's epoch.
    ///
    /// # Errors
    /// Those of [`Outbox::delivery`], and [`LedgerError::Missing`] while the sale is not opened.
    pub async fn status(&self) -> Result<(u64, DeliveryStatus), LedgerError> {
        let epoch = self.sale.epoch().ok_or(LedgerError::Missing)?;
        Ok((epoch, self.outbox.delivery(self.key(), epoch).await?))
    }

    /// Has all events that are set aside tried again, by whichever edge has the delivery; says how many. If this one
    /// waits for a receiver that is down, it tries at once.
    ///
    /// # Errors
    /// Those of [`Outbox::retry`], and [`LedgerError::Missing`] while the sale is not opened.
    pub async fn retry(&self) -> Result<u64, LedgerError> {
        let epoch = self.sale.epoch().ok_or(LedgerError::Missing)?;
        let count = self.outbox.retry(self.key(), epoch).await?;
        self.wanted.notify_one();
        Ok(count)
    }

    /// Holds the ledger against the newest entry that the order service has heard of; a ledger that has no such entry
    /// has lost it, and is fenced. An edge that has just started knows it from nobody else. Says whether the order
    /// service could be asked.
    ///
    /// # Errors
    /// Those of the ledger; [`LedgerError::Fenced`] if it was behind.
    pub async fn compare(&self) -> Result<bool, LedgerError> {
        let Some(epoch) = self.sale.epoch() else { return Ok(true) };
        let newest = match order_service_query::newest(&self.poster, self.sale.id(), Some(epoch)).await {
            Ok(newest) => newest,
            Err(KnownError::Unsupported(_)) => return Ok(true),
            Err(KnownError::Failed(_)) => return Ok(false),
        };
        // Read afterwards: what was written meanwhile may have been delivered meanwhile, too.
        let view = self.sale.snapshot().await?;
        if view.epoch != epoch || newest <= view.version {
            return Ok(true);
        }
        let why = format!("the newest entry is {}, and the order service has heard of a {newest}", view.version);
        match self.keeper.fence(self.key(), epoch, &why).await {
            Ok(()) => Err(LedgerError::Fenced(why)),
            Err(LedgerError::Unsupported) => {
                log::error!("sale {}: cannot fence the sale although the ledger lost changes: {why}", self.sale.id());
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// What the order service knows of the sale of this epoch.
    ///
    /// # Errors
    /// See [`KnownError`].
    pub async fn known(&self, epoch: u64) -> Result<Witness, KnownError> {
        order_service_query::all(&self.poster, self.sale.id(), epoch).await
    }

    /// The sale's name in the ledger.
    fn key(&self) -> &str {
        self.sale.key()
    }

    fn learn(&self, epoch: u64, progress: Progress) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, progress));
    }

    /// What was written down changes what is known until the ledger is asked again.
    fn learn_record(&self, record: &Record) {
        if let Some((_, progress)) = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner)
            && record.delivered > progress.delivered
        {
            progress.delivered = record.delivered;
            progress.oldest_at_ms = None;
        }
    }
}

/// Runs a task to its end, anew whenever it panics: without it nothing would be delivered, and nobody would notice.
async fn keep_running<F>(name: &str, start: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::default();
    while let Err(panic) = tokio::spawn(start()).await {
        if panic.is_cancelled() {
            return;
        }
        log::error!("{name} panicked and restarts: {panic}");
        tokio::time::sleep(backoff.failed(rand::random())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_anew_until_it_ends_by_itself() {
        let starts = Arc::new(AtomicUsize::new(0));
        keep_running("a test's task", || {
            let start = starts.fetch_add(1, Ordering::SeqCst);
            async move { assert!(start >= 3, "this panic is meant") }
        })
        .await;
        assert_eq!(starts.load(Ordering::SeqCst), 4);
    }
}
