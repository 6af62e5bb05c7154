//! Executes payments and cancellations, and resumes interrupted ones.
//!
//! A request stores its settlement first and executes it in a separate task: a client that disconnects does not
//! interrupt it. The background loop of any process resumes settlements that failed or whose process died.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::clock::now_ms;
use crate::database::Database;
use crate::edge::{CancelOutcome, ConfirmOutcome, EdgeClient};
use crate::orders;
use crate::payment::{Charge, Provider, ProviderError, ReportReceiver, Verdict};
use crate::settlements::{self, BeginResult, LEASE_MS, Lease, OrderRef, Settlement, SettlementKind, SettlementState};

/// Maximum number of settlements that one process executes concurrently.
const CONCURRENT_MAX: usize = 256;

/// Maximum number of settlements that the background loop leases at once.
const CLAIM_MAX: usize = 32;

/// How often the background loop checks for due settlements.
const POLL: Duration = Duration::from_millis(500);

/// How long a request waits for the outcome of its settlement.
const WAIT: Duration = Duration::from_secs(2);

/// How often a waiting request checks the state of its settlement.
const WAIT_POLL: Duration = Duration::from_millis(100);

/// Timeout of a request to the provider; shorter than a lease.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(8);

/// Timeout of one check for due settlements.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of one task: two requests to the provider, one to the edge, and the database in between.
const WORK_MAX: Duration = Duration::from_secs(60);

/// The first and the longest delay before a retry; each retry doubles the delay.
const BACKOFF_MS: (i64, i64) = (250, 15_000);

/// Maximum number of steps in one task; a payment that is charged, rejected and refunded takes three.
const STEPS_MAX: usize = 8;

/// Executes settlements.
pub struct SettlementWorker {
    database: Database,
    edge: Arc<EdgeClient>,
    provider: Box<dyn Provider>,
    permits: Arc<Semaphore>,
    wake: Notify,
}

/// Why a step failed; it will be retried.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{0}")]
    Provider(#[from] ProviderError),
    #[error("{0}")]
    Edge(#[from] crate::edge::EdgeError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

impl SettlementWorker {
    /// Creates a worker that charges through this provider.
    pub fn new(database: Database, edge: Arc<EdgeClient>, provider: Box<dyn Provider>) -> Self {
        Self { database, edge, provider, permits: Arc::new(Semaphore::new(CONCURRENT_MAX)), wake: Notify::new() }
    }

    /// Starts a settlement, or joins the existing one, and waits at most 2 s for its outcome. Returns the state of a
    /// settlement that existed before, and the settlement's current state.
    ///
    /// # Errors
    ///
    /// The database failed. A settlement that was started continues in the background.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        kind: SettlementKind,
        order: OrderRef<'_>,
        key: Option<&str>,
    ) -> sqlx::Result<(Option<SettlementState>, Settlement)> {
        let until = Instant::now() + WAIT;
        let lease = Lease::new();
        let (before, mut settlement) = match settlements::begin(&self.database, kind, order, key, &lease).await? {
            BeginResult::New(settlement) => {
                let id = settlement.id.clone();
                match Arc::clone(&self.permits).try_acquire_owned() {
                    Ok(permit) => {
                        let work = self.spawn(settlement.clone(), lease, permit);
                        // The loop below reads the state, whether the task has ended or not.
                        let _ = tokio::time::timeout_at(until, work).await;
                    }
                    // Too many tasks: the background loop executes it later.
                    Err(_) => settlements::postpone(&self.database, &id, &lease, 0).await?,
                }
                (None, settlement)
            }
            BeginResult::Existing(settlement) => (Some(settlement.state), settlement),
        };
        loop {
            if let Some(now) = settlements::get(&self.database, &settlement.id).await? {
                settlement = now;
            }
            if settlement.state.is_decided() || Instant::now() >= until {
                return Ok((before, settlement));
            }
            sleep(WAIT_POLL).await;
        }
    }

    /// The background loop: resumes settlements that are due, until the process ends.
    pub async fn work(self: Arc<Self>) {
        loop {
            // Processes that start together should not poll together.
            let wait = POLL.mul_f64(rand::random_range(0.5..1.5));
            let _ = timeout(wait, self.wake.notified()).await;
            match timeout(DATABASE_TIMEOUT, self.claim_due()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::warn!("cannot read due settlements: {error}"),
                Err(_) => log::warn!("cannot read due settlements: no response within {DATABASE_TIMEOUT:?}"),
            }
        }
    }

    async fn claim_due(self: &Arc<Self>) -> sqlx::Result<()> {
        let mut permits = Vec::new();
        while permits.len() < CLAIM_MAX
            && let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
        {
            permits.push(permit);
        }
        if permits.is_empty() {
            return Ok(());
        }
        let lease = Lease::new();
        let claimed = settlements::claim(&self.database, permits.len(), &lease).await?;
        if claimed.len() == permits.len() {
            // There may be more.
            self.wake.notify_one();
        }
        for (settlement, permit) in claimed.into_iter().zip(permits) {
            self.spawn(settlement, lease.clone(), permit);
        }
        Ok(())
    }

    fn spawn(
        self: &Arc<Self>,
        settlement: Settlement,
        lease: Lease,
        permit: OwnedSemaphorePermit,
    ) -> tokio::task::JoinHandle<()> {
        let worker = Arc::clone(self);
        tokio::spawn(async move {
            // An unresponsive database must not block the permit forever; the lease expires on its own.
            if timeout(WORK_MAX, worker.drive(settlement, &lease)).await.is_err() {
                log::warn!("settlement timed out after {WORK_MAX:?} and will be retried");
            }
            drop(permit);
        })
    }

    /// Executes steps until the settlement is done or a step fails.
    async fn drive(&self, settlement: Settlement, lease: &Lease) {
        let id = settlement.id.clone();
        let attempts = settlement.attempts;
        let mut now = settlement;
        for _ in 0..STEPS_MAX {
            match self.advance(&now, lease).await {
                Ok(Some(next)) => now = next,
                Ok(None) => return,
                Err(error) => {
                    let wait_ms = backoff_ms(attempts);
                    log::warn!(
                        "settlement {id} failed in state {:?}, next attempt in {wait_ms} ms: {error}",
                        now.state
                    );
                    // If this fails, too, the lease expires on its own.
                    if let Err(error) = settlements::postpone(&self.database, &id, lease, wait_ms).await {
                        log::warn!("cannot postpone settlement {id}: {error}");
                    }
                    return;
                }
            }
        }
    }

    /// Executes one step. Returns the settlement after it, or `None` if nothing is left to do here.
    async fn advance(&self, settlement: &Settlement, lease: &Lease) -> Result<Option<Settlement>, StepError> {
        use SettlementState::{Cancelled, Charged, Declined, Paid, RefundDue, Refunded, Refused};
        let Settlement { id, order, sale, quantity, .. } = settlement;
        let now_ms = now_ms();
        match settlement.state {
            SettlementState::Pending => {
                let (payment, order) = (id.clone(), order.as_str().to_owned());
                let charge = Charge { payment, order, sale: sale.clone(), quantity: *quantity };
                let verdict = within(PROVIDER_TIMEOUT, self.provider.charge(&charge, self)).await?;
                let to = if verdict == Verdict::Paid { Charged } else { Declined };
                let mut transaction = self.database.write().await?;
                settlements::step(&mut transaction, settlement, to, None).await?;
                transaction.commit().await?;
            }
            SettlementState::Charged => {
                let confirmed = self.edge.confirm(sale, order, id).await?;
                let mut transaction = self.database.write().await?;
                match &confirmed {
                    ConfirmOutcome::Paid => {
                        settlements::step(&mut transaction, settlement, Paid, None).await?;
                        orders::paid(&mut transaction, sale, order, id, now_ms).await?;
                    }
                    ConfirmOutcome::RefundDue { reason, payment } => {
                        settlements::step(&mut transaction, settlement, RefundDue, Some(reason)).await?;
                        match payment {
                            Some(other) => orders::paid(&mut transaction, sale, order, other, now_ms).await?,
                            None => orders::released(&mut transaction, sale, order, None, now_ms).await?,
                        }
                    }
                }
                transaction.commit().await?;
            }
            SettlementState::RefundDue => {
                within(PROVIDER_TIMEOUT, self.provider.refund(id)).await?;
                let mut transaction = self.database.write().await?;
                settlements::step(&mut transaction, settlement, Refunded, None).await?;
                transaction.commit().await?;
            }
            SettlementState::Cancelling => {
                let cancelled = self.edge.cancel(sale, order).await?;
                let mut transaction = self.database.write().await?;
                match &cancelled {
                    CancelOutcome::Released { reason } => {
                        settlements::step(&mut transaction, settlement, Cancelled, None).await?;
                        orders::released(&mut transaction, sale, order, reason.as_deref(), now_ms).await?;
                    }
                    CancelOutcome::AlreadyPaid { payment } => {
                        settlements::step(&mut transaction, settlement, Refused, None).await?;
                        if let Some(payment) = payment {
                            orders::paid(&mut transaction, sale, order, payment, now_ms).await?;
                        }
                    }
                }
                transaction.commit().await?;
            }
            Paid | Declined | Refunded | Cancelled | Refused => return Ok(None),
        }
        // A provider's report or another worker may have changed the settlement: read it again.
        if !settlements::is_leased(&self.database, id, lease).await? {
            return Ok(None);
        }
        Ok(settlements::get(&self.database, id).await?)
    }
}

#[async_trait]
impl ReportReceiver for SettlementWorker {
    async fn report(&self, payment: &str, verdict: Verdict) -> Result<(), ProviderError> {
        settlements::report(&self.database, payment, verdict).await.map_err(|error| ProviderError(error.to_string()))
    }
}

async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
    timeout(time, answer)
        .await
        .unwrap_or_else(|_| Err(ProviderError(format!("the provider did not respond within {time:?}"))))
}

fn backoff_ms(attempts: i64) -> i64 {
    let (first, most) = BACKOFF_MS;
    let doublings = attempts.clamp(1, 16) - 1;
    let wait = (first << doublings).min(most);
    // Random up to half of the delay: settlements that failed together should not retry together.
    wait / 2 + rand::random_range(0..=wait / 2)
}

const _: () = assert!(PROVIDER_TIMEOUT.as_millis() < LEASE_MS as u128);
