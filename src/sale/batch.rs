//! Batches of purchases for the ledger. While one batch is at the ledger, the next one gathers. One task per sale; see
//! [`run`].
//!
//! There is no batching timer: under light load a batch is one purchase, under heavy load it is all purchases that came
//! while the previous batch was at the ledger. A batch has at most `local_stock` tickets. The ledger therefore sees at
//! most as many attempts as tickets sold plus `local_stock`.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::trace::SpanContext;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout_at};

use super::gate::{Verdict, Visitor};
use super::{Outcome, Refusal, Sale};
use crate::ledger::{BATCH_MAX, Decision, LedgerError, Purchase, Reserved};
use crate::observe::trace;

/// Pause before a batch with unknown outcome is sent again; doubles each time, up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// A purchase in the queue.
pub struct Pending {
    pub(super) purchase: Purchase,
    /// The epoch of the sale that the order ID was computed for.
    pub(super) epoch: u64,
    pub(super) has_key: bool,
    /// The client gets an answer by this time, even if the outcome is unknown.
    pub(super) deadline: Instant,
    /// The span of the purchase, if it is traced.
    pub(super) trace: Option<Box<SpanContext>>,
    pub(super) reply: oneshot::Sender<Outcome>,
}

impl Pending {
    fn visitor(&self) -> Visitor<'_> {
        Visitor {
            retry_of: self.has_key.then_some(self.purchase.id),
            buyer: self.purchase.buyer.as_deref(),
            quantity: self.purchase.quantity,
        }
    }

    /// Third gate check: the sale may have sold out, closed or paused while the purchase waited in the queue. Without
    /// it, the ledger would see every queued purchase after the sale sold out. Returns `None` if the client is gone or
    /// got its answer here.
    fn judge(self, sale: &Sale, now: Instant) -> Option<(Verdict, Self)> {
        if self.reply.is_closed() {
            // The client disconnected before the ledger was asked: no order exists.
            sale.metrics.left();
            return None;
        }
        if self.deadline <= now {
            self.expire(sale);
            return None;
        }
        let epoch = sale.identity.load().as_ref().map(|identity| identity.epoch);
        if Some(self.epoch) != epoch {
            // The order ID was computed for a sale that the ledger no longer has under this key.
            self.refuse(sale, if sale.gate.is_missing() { Refusal::Missing } else { Refusal::Unavailable });
            return None;
        }
        Some((sale.gate.judge(&self.visitor(), now), self))
    }

    fn finish(self, sale: &Sale, outcome: Outcome) {
        // The deadline was set on arrival; this computes the time since then.
        sale.metrics
            .waits
            .add((Instant::now() + sale.rules().settings.deadline).saturating_duration_since(self.deadline));
        // If the client disconnected, its order, if any, is released when the hold ends.
        let _ = self.reply.send(sale.record(outcome));
    }

    /// Refuses a purchase whose deadline passed before it was sent to the ledger: the ledger does not answer, or too
    /// many purchases came first.
    fn expire(self, sale: &Sale) {
        let refusal = if sale.gate.hears() { Refusal::Busy } else { Refusal::Unavailable };
        self.refuse(sale, refusal);
    }

    fn refuse(self, sale: &Sale, refusal: Refusal) {
        self.finish(sale, Outcome::Refused(refusal));
    }
}

/// Takes purchases out of the queue, batch after batch, until the process exits.
pub async fn run(sale: Arc<Sale>, mut queue: mpsc::Receiver<Pending>) {
    let mut line = PendingPurchases::default();
    loop {
        if line.is_empty() {
            match queue.recv().await {
                Some(pending) => line.next.push_back(pending),
                None => return,
            }
        }
        while line.next.len() < BATCH_MAX
            && let Ok(pending) = queue.try_recv()
        {
            line.next.push_back(pending);
        }
        // Registered before `gather`: no sync from here on is missed.
        let mut synced = pin!(sale.shared.synced.notified());
        let batch = line.gather(&sale, Instant::now());
        if batch.is_empty() {
            let Some(until) = line.first_deadline() else { continue };
            tokio::select! {
                () = synced => line.look_again(&sale, Instant::now()),
                Some(pending) = queue.recv() => line.next.push_back(pending),
                () = sleep_until(until.into()) => line.drop_expired(&sale, Instant::now()),
            }
            continue;
        }
        let mut step = pin!(decide(&sale, batch));
        loop {
            // Deadlines of waiting purchases also hold while a batch is at the ledger.
            let until = line.first_deadline();
            tokio::select! {
                // The sync comes first: if another edge sells, the step's answer would replace what the sync brought.
                biased;
                () = &mut synced => {
                    synced.set(sale.shared.synced.notified());
                    line.look_again(&sale, Instant::now());
                }
                () = &mut step => break,
                () = sleep_until(until.unwrap_or_else(Instant::now).into()), if until.is_some() => {
                    line.drop_expired(&sale, Instant::now());
                }
            }
        }
    }
}

/// Purchases taken from the queue, in their order of arrival.
#[derive(Default)]
struct PendingPurchases {
    /// Purchases for the next batch.
    next: VecDeque<Pending>,
    /// Purchases that are refused unless the log contains their order. They wait for the log and do not delay others.
    behind: VecDeque<Pending>,
}

impl PendingPurchases {
    fn is_empty(&self) -> bool {
        self.next.is_empty() && self.behind.is_empty()
    }

    fn first_deadline(&self) -> Option<Instant> {
        [&self.next, &self.behind].into_iter().filter_map(|line| line.front()).map(|first| first.deadline).min()
    }

    /// Refuses purchases whose deadline passed before they were sent to the ledger.
    fn drop_expired(&mut self, sale: &Sale, now: Instant) {
        for line in [&mut self.next, &mut self.behind] {
            while let Some(pending) = line.pop_front_if(|first| first.deadline <= now) {
                pending.expire(sale);
            }
        }
    }

    /// Takes the purchases of the next batch. Answers those that the gate refuses by now.
    fn gather(&mut self, sale: &Sale, now: Instant) -> Vec<Pending> {
        let local_stock = u64::from(sale.rules().settings.local_stock);
        let mut batch = Vec::with_capacity(self.next.len());
        let mut tickets = 0;
        let mut log_is_wanted = false;
        while let Some(pending) = self.next.pop_front() {
            match pending.judge(sale, now) {
                Some((Verdict::Refuse(refusal), pending)) => pending.refuse(sale, refusal),
                Some((Verdict::Wait, pending)) if self.behind.len() >= sale.rules().settings.queue => {
                    pending.refuse(sale, Refusal::Busy);
                }
                Some((Verdict::Wait, pending)) => {
                    log_is_wanted = true;
                    self.behind.push_back(pending);
                }
                Some((Verdict::Ask, pending)) => {
                    // A purchase above the local stock is a batch of its own.
                    let quantity = u64::from(pending.purchase.quantity).min(local_stock);
                    if tickets + quantity > local_stock {
                        self.next.push_front(pending);
                        break;
                    }
                    tickets += quantity;
                    batch.push(pending);
                }
                None => {}
            }
        }
        if log_is_wanted {
            sale.shared.sync_now.notify_one();
        }
        batch
    }

    /// Judges the purchases that waited for the log again. Those that pass go before later purchases.
    fn look_again(&mut self, sale: &Sale, now: Instant) {
        let mut ask = VecDeque::new();
        for pending in std::mem::take(&mut self.behind) {
            match pending.judge(sale, now) {
                Some((Verdict::Refuse(refusal), pending)) => pending.refuse(sale, refusal),
                Some((Verdict::Wait, pending)) => self.behind.push_back(pending),
                Some((Verdict::Ask, pending)) => ask.push_back(pending),
                None => {}
            }
        }
        ask.append(&mut self.next);
        self.next = ask;
    }
}

/// Sends one batch to the ledger and answers every client in it.
async fn decide(sale: &Sale, mut batch: Vec<Pending>) {
    let epoch = batch[0].epoch;
    let purchases = Arc::new(batch.iter().map(|pending| pending.purchase.clone()).collect::<Vec<_>>());
    let deadline = batch.iter().map(|pending| pending.deadline).min().unwrap_or_else(Instant::now);
    sale.metrics.batches.add(1);
    sale.metrics.attempts.add(purchases.len() as u64);
    sale.metrics.batch_size.add(purchases.len());

    let traced = batch.iter().filter_map(|pending| pending.trace.as_deref());
    let trace = trace::Batch::begin(sale.id(), purchases.len(), traced);

    let decided = reserve_until(sale, epoch, &purchases, deadline).await;
    if let Some(trace) = trace {
        trace.end(match &decided {
            Ok(_) => None,
            Err(BatchError::Unknown) => Some("outcome unknown"),
            Err(BatchError::NotDone(_)) => Some("not done"),
        });
    }
    match decided {
        Ok(reserved) => {
            for (pending, decision) in batch.drain(..).zip(&reserved.decisions) {
                let outcome = outcome(&pending, decision, &reserved);
                pending.finish(sale, outcome);
            }
        }
        Err(BatchError::Unknown) => batch.drain(..).for_each(|pending| {
            let id = pending.purchase.id;
            pending.finish(sale, Outcome::Unknown { id });
        }),
        Err(BatchError::NotDone(refusal)) => batch.drain(..).for_each(|pending| pending.refuse(sale, refusal.clone())),
    }
}

/// Why a batch has no decisions.
enum BatchError {
    /// The ledger certainly changed nothing.
    NotDone(Refusal),
    /// The ledger may have made the orders.
    Unknown,
}

/// Sends a batch until there is an answer or the deadline passes. Retries are safe: purchases are idempotent by ID.
async fn reserve_until(
    sale: &Sale,
    epoch: u64,
    purchases: &Arc<Vec<Purchase>>,
    deadline: Instant,
) -> Result<Reserved, BatchError> {
    let mut pause = RETRY_PAUSE;
    let mut may_be_done = false;
    loop {
        let asked_at = Instant::now();
        let terms = sale.terms();
        let step = sale.shared.ledger.reserve(&sale.key, epoch, &terms, purchases);
        let answer = timeout_at(deadline.into(), step).await;
        let answered_at = Instant::now();
        sale.metrics.ledger.add(answered_at - asked_at);
        let error = match answer {
            Ok(Ok(reserved)) => {
                sale.gate.learn_step(purchases, &reserved, asked_at..answered_at);
                return Ok(reserved);
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => LedgerError::Unknown("the deadline of its purchases passed".into()),
        };
        log::warn!("sale {}: batch of {} purchases failed: {error}", sale.id(), purchases.len());
        may_be_done |= matches!(error, LedgerError::Unknown(_));
        let refusal = match error {
            LedgerError::Missing => Refusal::Missing,
            LedgerError::Fenced(_) => Refusal::LostData,
            _ => Refusal::Unavailable,
        };
        // After any fault, the gate's counters are not trusted until the ledger answers again.
        match refusal {
            Refusal::Missing => sale.gate.learn_missing(),
            _ => sale.gate.forget(),
        }
        sale.shared.sync_now.notify_one();
        if !may_be_done {
            return Err(BatchError::NotDone(refusal));
        }
        if Instant::now() + pause >= deadline {
            return Err(BatchError::Unknown);
        }
        sale.metrics.retries.add(1);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

fn outcome(pending: &Pending, decision: &Decision, reserved: &Reserved) -> Outcome {
    let terms = &reserved.view.terms;
    Outcome::Refused(match decision {
        Decision::Ordered { order, again } => {
            // Without a key, the ID is random and belongs to this request alone: the edge itself sent the batch again.
            let again = *again && pending.has_key;
            return Outcome::Ordered { id: pending.purchase.id, order: order.clone(), again };
        }
        Decision::KeyReused => Refusal::KeyReused,
        Decision::Closed => Refusal::Closed,
        Decision::NotYet => {
            let wait_ms = terms.opens_at_ms.unwrap_or(0).saturating_sub(reserved.view.now_ms);
            Refusal::NotYet { wait: Duration::from_millis(wait_ms) }
        }
        Decision::Paused => Refusal::Paused,
        Decision::SoldOut => Refusal::SoldOut,
        Decision::BuyerLimit { have } => Refusal::BuyerLimit { limit: u64::from(terms.per_buyer), have: *have },
        Decision::UnpaidLimit { have } => {
            Refusal::UnpaidLimit { limit: u64::from(terms.unpaid_per_buyer), have: *have }
        }
        Decision::NotEnough { left } => Refusal::NotEnough { left: *left },
    })
}

#[cfg(test)]
mod tests;
