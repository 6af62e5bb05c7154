//! The way to the ledger: while one batch is there, the next gathers. One task a sale; see [`run`].
//!
//! No timer gathers anything: under light load a batch is one purchase, under heavy load it is whatever came while the
//! last one was away. At most `local_stock` tickets are under way at a time, so whatever comes, the ledger sees no more
//! attempts than what is sold plus `local_stock`.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use super::gate::{Verdict, Visitor};
use super::{Outcome, Refusal, Sale};
use crate::ledger::{BATCH_MAX, Decision, LedgerError, Purchase, Reserved};

/// Pause before a batch whose outcome is unknown is asked again; doubled each time up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long a batch that waits for the log waits for one sync before it looks again.
const SYNC_PATIENCE: Duration = Duration::from_millis(50);

/// A purchase in the queue.
pub struct Pending {
    pub(super) purchase: Purchase,
    /// The sale that the order id was made for.
    pub(super) epoch: u64,
    pub(super) has_key: bool,
    /// When its client is told, whatever is known by then.
    pub(super) deadline: Instant,
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

    fn tell(self, sale: &Sale, outcome: Outcome) {
        // A client that has gone is told nothing; its order, if there is one, ends with its hold.
        let _ = self.reply.send(sale.record(outcome));
    }

    /// Its time is over, and it was never brought to the ledger: because that is silent, or because too many came first.
    fn expire(self, sale: &Sale) {
        let refusal = if sale.gate.hears() { Refusal::Busy } else { Refusal::Unavailable };
        self.refuse(sale, refusal);
    }

    fn refuse(self, sale: &Sale, refusal: Refusal) {
        self.tell(sale, Outcome::Refused(refusal));
    }
}

/// Takes purchases out of the queue, batch after batch, for as long as the process lives.
pub async fn run(sale: Arc<Sale>, mut queue: mpsc::Receiver<Pending>) {
    let mut waiting = VecDeque::with_capacity(BATCH_MAX);
    loop {
        if waiting.is_empty() {
            match queue.recv().await {
                Some(pending) => waiting.push_back(pending),
                None => return,
            }
        }
        while waiting.len() < BATCH_MAX {
            match queue.try_recv() {
                Ok(pending) => waiting.push_back(pending),
                Err(_) => break,
            }
        }
        let batch = gather(&sale, &mut waiting, Instant::now());
        if !batch.is_empty() {
            let mut step = pin!(decide(&sale, batch));
            // Who waits for the log while a batch is away must not wait longer than everybody else.
            while let Some(first) = waiting.front().map(|first| first.deadline) {
                match timeout_at(first.into(), &mut step).await {
                    Ok(()) => break,
                    Err(_elapsed) => drop_expired(&sale, &mut waiting, Instant::now()),
                }
            }
            if waiting.is_empty() {
                step.await;
            }
        } else if let Some(first) = waiting.front() {
            // Only the log keeps the first in line from its answer.
            let patience = first.deadline.min(Instant::now() + SYNC_PATIENCE);
            let synced = sale.shared.synced.notified();
            sale.shared.sync_now.notify_one();
            let _ = timeout_at(patience.into(), synced).await;
        }
    }
}

/// Tells those whose time is over; they were never brought to the ledger.
fn drop_expired(sale: &Sale, line: &mut VecDeque<Pending>, now: Instant) {
    while let Some(pending) = line.pop_front_if(|first| first.deadline <= now) {
        pending.expire(sale);
    }
}

/// Takes as many from the line as may go to the ledger together, and answers those on the way whom the gate refuses by
/// now. Whoever has to wait for the log stays, in order, in the line.
fn gather(sale: &Sale, line: &mut VecDeque<Pending>, now: Instant) -> Vec<Pending> {
    let local_stock = u64::from(sale.settings.local_stock);
    let epoch = sale.identity.load().as_ref().map(|identity| identity.epoch);
    let mut batch = Vec::with_capacity(line.len());
    let mut tickets = 0;
    let mut stay = VecDeque::new();
    while let Some(pending) = line.pop_front() {
        if pending.reply.is_closed() {
            // Its client has gone, and the ledger was never asked: nothing is lost.
            continue;
        }
        if pending.deadline <= now {
            pending.expire(sale);
            continue;
        }
        if Some(pending.epoch) != epoch {
            // Its id was made for a sale that the ledger no longer has under this name.
            pending.refuse(sale, if sale.gate.is_missing() { Refusal::Missing } else { Refusal::Unavailable });
            continue;
        }
        match sale.gate.admit(&pending.visitor(), now) {
            Verdict::Refuse(refusal) => pending.refuse(sale, refusal),
            Verdict::Wait => stay.push_back(pending),
            Verdict::Ask => {
                // A purchase above the local stock goes alone.
                let quantity = u64::from(pending.purchase.quantity).min(local_stock);
                if tickets + quantity > local_stock {
                    line.push_front(pending);
                    break;
                }
                tickets += quantity;
                batch.push(pending);
            }
        }
    }
    stay.append(line);
    *line = stay;
    batch
}

/// Brings one batch to the ledger and tells every client in it how its purchase ended.
async fn decide(sale: &Sale, mut batch: Vec<Pending>) {
    let epoch = batch[0].epoch;
    let purchases = Arc::new(batch.iter().map(|pending| pending.purchase.clone()).collect::<Vec<_>>());
    let deadline = batch.iter().map(|pending| pending.deadline).min().unwrap_or_else(Instant::now);
    sale.metrics.batches.add(1);
    sale.metrics.attempts.add(purchases.len() as u64);

    match reserve_until(sale, epoch, &purchases, deadline).await {
        Ok(reserved) => {
            for (pending, decision) in batch.drain(..).zip(&reserved.decisions) {
                let outcome = outcome(&pending, decision, &reserved);
                pending.tell(sale, outcome);
            }
        }
        Err(Fault::Unknown) => batch.drain(..).for_each(|pending| {
            let id = pending.purchase.id;
            pending.tell(sale, Outcome::Unknown { id });
        }),
        Err(Fault::NotDone(refusal)) => batch.drain(..).for_each(|pending| pending.refuse(sale, refusal.clone())),
    }
}

/// Why a batch has no decisions.
enum Fault {
    /// It was certainly not done.
    NotDone(Refusal),
    /// Nobody knows.
    Unknown,
}

/// Asks until there is an answer, or until the deadline. Asking again is safe: every purchase is known by its id.
async fn reserve_until(
    sale: &Sale,
    epoch: u64,
    purchases: &Arc<Vec<Purchase>>,
    deadline: Instant,
) -> Result<Reserved, Fault> {
    let mut pause = RETRY_PAUSE;
    let mut may_be_done = false;
    loop {
        let asked_at = Instant::now();
        let step = sale.shared.ledger.reserve(&sale.settings.key, epoch, &sale.terms, purchases);
        let error = match timeout_at(deadline.into(), step).await {
            Ok(Ok(reserved)) => {
                sale.gate.learn_step(purchases, &reserved, asked_at..Instant::now());
                return Ok(reserved);
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => LedgerError::Unknown("the deadline of its purchases came first".into()),
        };
        log::warn!("sale {}: a batch of {}: {error}", sale.id(), purchases.len());
        may_be_done |= matches!(error, LedgerError::Unknown(_));
        let refusal = match error {
            LedgerError::Missing => Refusal::Missing,
            _ => Refusal::Unavailable,
        };
        // Whatever the fault is, the gate's counters cannot be trusted until the ledger has been heard again.
        match refusal {
            Refusal::Missing => sale.gate.learn_missing(),
            _ => sale.gate.forget(),
        }
        sale.shared.sync_now.notify_one();
        if !may_be_done {
            return Err(Fault::NotDone(refusal));
        }
        if Instant::now() + pause >= deadline {
            return Err(Fault::Unknown);
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
            // Without a key the id was made for this very request, so asking twice was ours: its first answer was lost.
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
