//! Delivery: sends every change in a sale's log to the order service, at least once and in the order of the log.
//!
//! One task per sale. It takes the lease on the sale's delivery unless another edge has it, reads the next entries,
//! posts their events, records the progress, and repeats. Failures are retried without end. An event that the receiver
//! refuses because of its content is set aside and blocks no other event.
//!
//! Read in this order: [`worker`] (the task), [`wire`] (the format), [`bisection`] (finds the refused event), [`post`]
//! (one POST), and [`crate::ledger::Outbox`] (progress and lease).

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

/// How much longer a lease is than the POST under way, to leave time for the ledger's answers.
const LEASE_SPARE: Duration = Duration::from_secs(1);

/// The delivery of one sale at this edge.
pub struct Delivery {
    sale: Arc<Sale>,
    outbox: Arc<dyn Outbox>,
    keeper: Arc<dyn Bookkeeper>,
    poster: Arc<Poster>,
    claim: Claim,
    /// The last answer of the ledger, and the epoch of the sale it was about.
    known: Mutex<Option<(u64, Progress)>>,
    /// Set by an operator who wants set-aside events retried now.
    wanted: Notify,
    metrics: DeliveryMetrics,
}

/// Counters of a sale's delivery at this edge.
#[derive(Debug, Default)]
pub struct DeliveryMetrics {
    /// Events that the receiver accepted.
    pub events: Counter,
    /// POSTs answered with 2xx.
    pub kept: Counter,
    /// POSTs refused because of their content.
    pub refused: Counter,
    /// POSTs without an answer, or with an answer that says nothing about the events.
    pub failed: Counter,
}

/// State of a sale's delivery, whichever edge has the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gauges {
    /// Log entries that are not delivered yet.
    pub lag_entries: u64,
    /// Age of the oldest of them.
    pub oldest_s: u64,
    /// Events set aside.
    pub set_aside: u64,
}

impl Delivery {
    /// The delivery of `sale` by this edge. `edge` names the edge uniquely: 1 to 100 visible ASCII characters.
    #[must_use]
    pub fn new(
        sale: Arc<Sale>,
        outbox: Arc<dyn Outbox>,
        keeper: Arc<dyn Bookkeeper>,
        poster: Arc<Poster>,
        edge: Arc<str>,
    ) -> Self {
        // The lease is renewed at half of its length, so it always outlasts one POST.
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

    /// Delivers until `shutdown` turns true; then finishes the POST under way and gives up the lease.
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

    /// The state as far as this edge knows it.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((epoch, progress)) = known else { return Gauges::default() };
        // The gate reads the log more often than the delivery does, above all while the receiver is down.
        let view = self.sale.view().filter(|view| view.epoch == epoch);
        let (version, now_ms) = view.map_or((0, 0), |view| (view.version, view.now_ms));
        let lag_entries = version.max(progress.version).saturating_sub(progress.delivered);
        let oldest_ms = progress.oldest_at_ms.map_or(0, |at_ms| now_ms.max(progress.now_ms).saturating_sub(at_ms));
        Gauges { lag_entries, oldest_s: oldest_ms / 1_000, set_aside: progress.set_aside }
    }

    /// The state as the ledger has it, with the sale's epoch.
    ///
    /// # Errors
    /// Those of [`Outbox::delivery`], and [`LedgerError::Missing`] while the sale is not opened.
    pub async fn status(&self) -> Result<(u64, DeliveryStatus), LedgerError> {
        let epoch = self.sale.epoch().ok_or(LedgerError::Missing)?;
        Ok((epoch, self.outbox.delivery(self.key(), epoch).await?))
    }

    /// Retries all events that are set aside, at whichever edge has the lease; returns their number. If this edge waits
    /// because the receiver is down, it retries at once.
    ///
    /// # Errors
    /// Those of [`Outbox::retry`], and [`LedgerError::Missing`] while the sale is not opened.
    pub async fn retry(&self) -> Result<u64, LedgerError> {
        let epoch = self.sale.epoch().ok_or(LedgerError::Missing)?;
        let count = self.outbox.retry(self.key(), epoch).await?;
        self.wanted.notify_one();
        Ok(count)
    }

    /// Compares the ledger with the newest entry that the order service has received. A ledger without that entry has
    /// lost it, and the sale is fenced. An edge that has just started has no other source. Returns whether the order
    /// service answered.
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
        // Read after the query: entries written meanwhile may have been delivered meanwhile.
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

    /// What the order service has recorded of the sale of this epoch.
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

    /// A recorded POST changes the known state until the ledger is asked again.
    fn learn_record(&self, record: &Record) {
        if let Some((_, progress)) = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner)
            && record.delivered > progress.delivered
        {
            progress.delivered = record.delivered;
            progress.oldest_at_ms = None;
        }
    }
}

/// Runs a task to its end and restarts it if it panics. Otherwise deliveries would stop without notice.
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
