//! Brings payments and cancellations to their end, whatever happens on the way.
//!
//! Whoever asks for one writes it down first and then works on it in a task of its own, so that a client that leaves
//! changes nothing. What could not be finished, here or in a process that has died, is taken up by the worker of any
//! process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::clock::now_ms;
use crate::database::Database;
use crate::edge::{Cancelled, Confirmed, Edge};
use crate::orders;
use crate::payment::{Charge, NoAnswer, Provider, Reports, Verdict};
use crate::settlements::{self, Begun, LEASE_MS, Lease, Order, Settlement, SettlementState, Wish};

/// Settlements that one process works on at a time.
const AT_A_TIME: usize = 256;

/// Settlements that are taken up at once.
const CLAIM_MAX: usize = 32;

/// How often the worker looks for something to take up.
const LOOK: Duration = Duration::from_millis(500);

/// How long whoever asked for a settlement waits for its end.
const WAIT: Duration = Duration::from_secs(2);

/// How often somebody who waits for another's settlement looks.
const WAIT_LOOK: Duration = Duration::from_millis(100);

/// The longest wait for the provider; less than a lease.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(8);

/// The longest that the database is waited for at once.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that one piece of work takes: two answers of the provider, one of the edge, and the database in between.
const WORK_MAX: Duration = Duration::from_secs(60);

/// The first wait before something is tried again, doubled each time up to the second.
const BACKOFF_MS: (i64, i64) = (250, 15_000);

/// The most steps of one piece of work; a payment that is charged, refused and refunded takes three.
const STEPS_MAX: usize = 8;

/// Works on settlements.
pub struct Cashier {
    database: Database,
    edge: Arc<Edge>,
    provider: Box<dyn Provider>,
    places: Arc<Semaphore>,
    look: Notify,
}

/// Why a settlement could not be brought further for now.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error("{0}")]
    Provider(#[from] NoAnswer),
    #[error("{0}")]
    Edge(#[from] crate::edge::NoAnswer),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

impl Cashier {
    /// One that takes money from this provider.
    pub fn new(database: Database, edge: Arc<Edge>, provider: Box<dyn Provider>) -> Self {
        Self { database, edge, provider, places: Arc::new(Semaphore::new(AT_A_TIME)), look: Notify::new() }
    }

    /// Begins a settlement, or joins the one that there is, and waits a while for its outcome. Says what there was
    /// before, if there was anything, and how far it has come.
    ///
    /// # Errors
    ///
    /// The database failed. If something was begun, it is going on.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        wish: Wish,
        order: Order<'_>,
        key: Option<&str>,
    ) -> sqlx::Result<(Option<SettlementState>, Settlement)> {
        let until = Instant::now() + WAIT;
        let lease = Lease::new();
        let (before, mut settlement) = match settlements::begin(&self.database, wish, order, key, &lease).await? {
            Begun::New(settlement) => {
                let id = settlement.id.clone();
                match Arc::clone(&self.places).try_acquire_owned() {
                    Ok(place) => {
                        let work = self.spawn(settlement.clone(), lease, place);
                        // Whether it is done or goes on, the database says how far it has come.
                        let _ = tokio::time::timeout_at(until, work).await;
                    }
                    // All hands are busy: the worker will come to it.
                    Err(_) => settlements::put_off(&self.database, &id, &lease, 0).await?,
                }
                (None, settlement)
            }
            Begun::Existing(settlement) => (Some(settlement.state), settlement),
        };
        loop {
            if let Some(now) = settlements::get(&self.database, &settlement.id).await? {
                settlement = now;
            }
            if settlement.state.is_decided() || Instant::now() >= until {
                return Ok((before, settlement));
            }
            sleep(WAIT_LOOK).await;
        }
    }

    /// Takes up what nobody works on, for as long as the process lives.
    pub async fn work(self: Arc<Self>) {
        loop {
            // Processes that were started at once should not look at once.
            let wait = LOOK.mul_f64(rand::random_range(0.5..1.5));
            let _ = timeout(wait, self.look.notified()).await;
            match timeout(DATABASE_TIMEOUT, self.take_up()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::warn!("what is left to settle cannot be read: {error}"),
                Err(_) => log::warn!("what is left to settle cannot be read: no answer in {DATABASE_TIMEOUT:?}"),
            }
        }
    }

    async fn take_up(self: &Arc<Self>) -> sqlx::Result<()> {
        let mut places = Vec::new();
        while places.len() < CLAIM_MAX
            && let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
        {
            places.push(place);
        }
        if places.is_empty() {
            return Ok(());
        }
        let lease = Lease::new();
        let claimed = settlements::claim(&self.database, places.len(), &lease).await?;
        if claimed.len() == places.len() {
            // There may be more.
            self.look.notify_one();
        }
        for (settlement, place) in claimed.into_iter().zip(places) {
            self.spawn(settlement, lease.clone(), place);
        }
        Ok(())
    }

    fn spawn(
        self: &Arc<Self>,
        settlement: Settlement,
        lease: Lease,
        place: OwnedSemaphorePermit,
    ) -> tokio::task::JoinHandle<()> {
        let cashier = Arc::clone(self);
        tokio::spawn(async move {
            // A database that has fallen silent must not keep the place; the lease ends by itself.
            if timeout(WORK_MAX, cashier.drive(settlement, &lease)).await.is_err() {
                log::warn!("a settlement was given up after {WORK_MAX:?}; it is taken up again");
            }
            drop(place);
        })
    }

    /// Brings a settlement as far as it will go.
    async fn drive(&self, settlement: Settlement, lease: &Lease) {
        let id = settlement.id.clone();
        let attempts = settlement.attempts;
        let mut now = settlement;
        for _ in 0..STEPS_MAX {
            match self.advance(&now, lease).await {
                Ok(Some(next)) => now = next,
                Ok(None) => return,
                Err(stuck) => {
                    let wait_ms = backoff_ms(attempts);
                    log::warn!("settlement {id} is {:?}, and is tried again in {wait_ms} ms: {stuck}", now.state);
                    // If this fails too, the lease ends by itself.
                    if let Err(error) = settlements::put_off(&self.database, &id, lease, wait_ms).await {
                        log::warn!("settlement {id} cannot be put off: {error}");
                    }
                    return;
                }
            }
        }
    }

    /// One step. Gives the settlement as it is then, or none if there is nothing left to do here.
    async fn advance(&self, settlement: &Settlement, lease: &Lease) -> Result<Option<Settlement>, Stuck> {
        use SettlementState::{Cancelled as IsCancelled, Charged, Declined, Paid, RefundDue, Refunded, Refused};
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
                    Confirmed::Paid => {
                        settlements::step(&mut transaction, settlement, Paid, None).await?;
                        orders::paid(&mut transaction, sale, order, id, now_ms).await?;
                    }
                    Confirmed::RefundDue { reason, payment } => {
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
                    Cancelled::Released { reason } => {
                        settlements::step(&mut transaction, settlement, IsCancelled, None).await?;
                        orders::released(&mut transaction, sale, order, reason.as_deref(), now_ms).await?;
                    }
                    Cancelled::AlreadyPaid { payment } => {
                        settlements::step(&mut transaction, settlement, Refused, None).await?;
                        if let Some(payment) = payment {
                            orders::paid(&mut transaction, sale, order, payment, now_ms).await?;
                        }
                    }
                }
                transaction.commit().await?;
            }
            Paid | Declined | Refunded | IsCancelled | Refused => return Ok(None),
        }
        // A report may have come between, or another may have taken over; what the database says now counts.
        if !settlements::is_leased(&self.database, id, lease).await? {
            return Ok(None);
        }
        Ok(settlements::get(&self.database, id).await?)
    }
}

#[async_trait]
impl Reports for Cashier {
    async fn report(&self, payment: &str, verdict: Verdict) -> Result<(), NoAnswer> {
        settlements::report(&self.database, payment, verdict).await.map_err(|error| NoAnswer(error.to_string()))
    }
}

async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, NoAnswer>>) -> Result<T, NoAnswer> {
    timeout(time, answer).await.unwrap_or_else(|_| Err(NoAnswer(format!("the provider gave no answer in {time:?}"))))
}

fn backoff_ms(attempts: i64) -> i64 {
    let (first, most) = BACKOFF_MS;
    let doublings = attempts.clamp(1, 16) - 1;
    let wait = (first << doublings).min(most);
    // Half of it at random, so that what got stuck together does not come back together.
    wait / 2 + rand::random_range(0..=wait / 2)
}

const _: () = assert!(PROVIDER_TIMEOUT.as_millis() < LEASE_MS as u128);
