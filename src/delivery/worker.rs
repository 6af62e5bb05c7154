//! The task that delivers one sale's log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::bisection::Bisection;
use super::outage::Outage;
use super::post::PostOutcome;
use super::wire::{self, Event};
use super::{Delivery, LEASE_SPARE};
use crate::ledger::{EventId, LedgerError, LogEntry, Record, Recorded, RefusedEvent, Taken, Work};

/// How often to ask the ledger while no new entries arrive: whether another edge still delivers, and whether an
/// operator wants a retry.
const IDLE: Duration = Duration::from_secs(1);

/// A step reads entries until they have this many lines together, which fills at least one POST.
const LINES_MAX: usize = 2 * wire::EVENTS_MAX;

/// The most set-aside events that one step retries; each is read from the log by itself.
const AGAIN_MAX: usize = 64;

/// The worker of one sale; see the module.
pub struct Worker {
    delivery: Arc<Delivery>,
    shutdown: watch::Receiver<bool>,
    backoff: Backoff,
    outage: Outage,
    /// The lease of this edge, as far as it knows, for a sale of this epoch.
    held: Option<HeldLease>,
    /// True if the ledger was compared with the receiver and has not been interrupted since.
    compared: bool,
}

#[derive(Clone, Copy)]
struct HeldLease {
    epoch: u64,
    until: Instant,
}

/// The result of a step.
enum Progressed {
    /// There is more to do at once.
    More,
    /// Everything up to this entry is delivered.
    Idle(u64),
    /// Another edge has the lease, or the sale is not known.
    Elsewhere,
}

/// Why a step failed.
enum WorkerError {
    /// The receiver did not accept the events.
    Receiver(String),
    /// The ledger failed to give the work or to record the progress.
    Ledger(LedgerError),
    /// Another edge has the lease now.
    Lost,
    /// The edge is stopping.
    Shutdown,
}

impl From<LedgerError> for WorkerError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// Events that are posted in order, and the progress that is recorded when the receiver has them.
struct Row<'a> {
    events: &'a [Event],
    /// The entry up to which everything is delivered once all of them are; none for events that had been set aside.
    up_to: Option<u64>,
}

impl Row<'_> {
    /// The first `end` of them are delivered, the last ones just now.
    fn record(&self, just_now: &[Event], end: usize) -> Record {
        match self.up_to {
            // An entry is delivered when all of its events are.
            Some(up_to) => {
                Record { delivered: self.events.get(end).map_or(up_to, |next| next.id.seq - 1), ..Record::default() }
            }
            None => Record { settled: just_now.iter().map(|event| event.id).collect(), ..Record::default() },
        }
    }
}

impl Worker {
    pub fn new(delivery: Arc<Delivery>, shutdown: watch::Receiver<bool>) -> Self {
        Self { delivery, shutdown, backoff: Backoff::default(), outage: Outage::default(), held: None, compared: false }
    }

    /// Delivers until it is told to stop.
    pub async fn run(mut self) {
        while !self.is_stopping() {
            match self.step().await {
                Ok(Progressed::More) => {
                    self.backoff.succeeded();
                }
                Ok(Progressed::Idle(delivered)) => {
                    self.backoff.succeeded();
                    self.wait_for_news(delivered).await;
                }
                Ok(Progressed::Elsewhere) | Err(WorkerError::Lost) => {
                    self.compared = false;
                    self.wait(IDLE).await;
                }
                Err(WorkerError::Shutdown) => break,
                Err(WorkerError::Receiver(why)) => {
                    self.tell_outage(&why);
                    // An edge that cannot reach the receiver lets others try.
                    self.release().await;
                    let pause = self.backoff.failed(rand::random());
                    self.wait(pause).await;
                }
                Err(WorkerError::Ledger(error)) => {
                    // The sync already logs a ledger that is gone and a sale that has changed.
                    if let LedgerError::Damaged(why) = &error {
                        self.tell_outage(why);
                    }
                    self.compared = false;
                    self.wait(IDLE).await;
                }
            }
        }
        self.release().await;
    }

    /// Reads the next entries and posts them.
    async fn step(&mut self) -> Result<Progressed, WorkerError> {
        let Some(epoch) = self.delivery.sale.epoch() else { return Ok(Progressed::Elsewhere) };
        let taken = self.take(epoch, LINES_MAX).await?;
        let Some(Work { entries, again }) = taken.work else { return Ok(Progressed::Elsewhere) };
        let more_again = again.len() > AGAIN_MAX;
        if !again.is_empty() {
            self.post_again(epoch, &again[..again.len().min(AGAIN_MAX)]).await?;
        }
        let Some(last) = entries.last().map(|entry| entry.seq) else {
            self.compare().await?;
            return Ok(if more_again { Progressed::More } else { Progressed::Idle(taken.progress.delivered) });
        };
        self.look_for_gaps(taken.progress.delivered, &entries);
        let events: Vec<Event> = entries.iter().flat_map(wire::events).collect();
        self.post_all(epoch, &Row { events: &events, up_to: Some(last) }).await?;
        self.compare().await?;
        Ok(if more_again || last < taken.progress.version { Progressed::More } else { Progressed::Idle(last) })
    }

    /// Takes or renews the lease.
    async fn take(&mut self, epoch: u64, lines_max: usize) -> Result<Taken, LedgerError> {
        // The lease is counted from before the call, so that it never ends later here than in the ledger.
        let asked_at = Instant::now();
        let Delivery { outbox, claim, .. } = &*self.delivery;
        let taken = outbox.take(self.delivery.key(), epoch, claim, lines_max).await?;
        self.delivery.learn(epoch, taken.progress);
        self.held = taken.work.is_some().then(|| HeldLease { epoch, until: asked_at + taken.lease.left });
        Ok(taken)
    }

    /// Compares the ledger with the receiver when this edge begins to deliver; see [`Delivery::compare`]. If the
    /// receiver does not answer, the next step tries again.
    async fn compare(&mut self) -> Result<(), LedgerError> {
        if !self.compared {
            self.compared = self.delivery.compare().await?;
        }
        Ok(())
    }

    /// Makes sure that no other edge posts while the next POST is under way.
    async fn hold(&mut self, epoch: u64) -> Result<(), WorkerError> {
        for _ in 0..2 {
            let needed = Instant::now() + self.delivery.poster.timeout();
            if self.held.is_some_and(|held| held.epoch == epoch && held.until >= needed) {
                return Ok(());
            }
            if self.take(epoch, 0).await?.work.is_none() {
                return Err(WorkerError::Lost);
            }
        }
        Err(LedgerError::Unavailable("it answers too late to keep the delivery".into()).into())
    }

    /// Posts events that had been set aside.
    async fn post_again(&mut self, epoch: u64, again: &[EventId]) -> Result<(), WorkerError> {
        let mut events = Vec::with_capacity(again.len());
        for id in again {
            let entry = self.delivery.sale.log_entry(id.seq).await?;
            let event = entry.and_then(|entry| wire::events(&entry).into_iter().nth(id.part as usize));
            match event {
                Some(event) => events.push(event),
                None => {
                    let why = "its entry is gone from the log".to_owned();
                    let refused = Some(RefusedEvent { event: *id, order: None, why });
                    self.record(epoch, Record { refused, ..Record::default() }).await?;
                }
            }
        }
        self.post_all(epoch, &Row { events: &events, up_to: None }).await
    }

    /// Posts events in order until each is accepted by the receiver or set aside.
    async fn post_all(&mut self, epoch: u64, row: &Row<'_>) -> Result<(), WorkerError> {
        let delivery = Arc::clone(&self.delivery);
        let sale = delivery.sale.id();
        let mut bisection = Bisection::of(row.events.len());
        let mut is_well = false;
        while let Some(range) = bisection.next(|range| wire::fitting(sale, epoch, &row.events[range])) {
            if self.is_stopping() {
                return Err(WorkerError::Shutdown);
            }
            self.hold(epoch).await?;
            let batch = &row.events[range.clone()];
            match self.post(epoch, batch).await {
                PostOutcome::Kept => {
                    self.tell_end_of_outage();
                    delivery.metrics.events.add(batch.len() as u64);
                    self.record(epoch, row.record(batch, range.end)).await?;
                    bisection.done();
                }
                PostOutcome::Failed(why) => return Err(WorkerError::Receiver(why)),
                PostOutcome::Refused(why) => {
                    if !is_well {
                        self.ask_whether_well(epoch, &why).await?;
                        is_well = true;
                    }
                    if bisection.refused() {
                        self.set_aside(epoch, row, range.end, &batch[0], why).await?;
                        bisection.done();
                    }
                }
            }
        }
        if row.events.is_empty()
            && let Some(delivered) = row.up_to
        {
            self.record(epoch, Record { delivered, ..Record::default() }).await?;
        }
        Ok(())
    }

    async fn post(&self, epoch: u64, events: &[Event]) -> PostOutcome {
        let body = wire::body(self.delivery.sale.id(), epoch, events);
        let answer = self.delivery.poster.post(&body).await;
        let metrics = &self.delivery.metrics;
        match &answer {
            PostOutcome::Kept => metrics.kept.add(1),
            PostOutcome::Refused(_) => metrics.refused.add(1),
            PostOutcome::Failed(_) => metrics.failed.add(1),
        }
        answer
    }

    /// A receiver that also refuses a batch without events is itself at fault: a wrong path, or another program.
    /// Otherwise all events would be set aside.
    async fn ask_whether_well(&self, epoch: u64, why: &str) -> Result<(), WorkerError> {
        match self.post(epoch, &[]).await {
            PostOutcome::Kept => Ok(()),
            PostOutcome::Refused(_) => {
                Err(WorkerError::Receiver(format!("it refuses even a batch without events: {why}")))
            }
            PostOutcome::Failed(why) => Err(WorkerError::Receiver(why)),
        }
    }

    async fn set_aside(
        &mut self,
        epoch: u64,
        row: &Row<'_>,
        end: usize,
        event: &Event,
        why: String,
    ) -> Result<(), WorkerError> {
        let order = event.order.map_or(String::new(), |order| format!(" (order {order})"));
        let EventId { seq, part } = event.id;
        let text = format!("sale {}: event {seq}/{part}{order} is set aside: {why}", self.delivery.sale.id());
        let refused = Some(RefusedEvent { event: event.id, order: event.order, why });
        self.record(epoch, Record { refused, ..row.record(&[], end) }).await?;
        log::warn!("{text}");
        Ok(())
    }

    async fn record(&self, epoch: u64, record: Record) -> Result<(), WorkerError> {
        let Delivery { outbox, claim, .. } = &*self.delivery;
        match outbox.record(self.delivery.key(), epoch, &claim.edge, &record).await? {
            Recorded::Done => {
                self.delivery.learn_record(&record);
                Ok(())
            }
            Recorded::Lost => Err(WorkerError::Lost),
            Recorded::Full => Err(WorkerError::Receiver(
                "it refuses an event, and no more can be set aside: see to those first".into(),
            )),
        }
    }

    /// An operator who trims the log by hand removes entries that the order service has not received yet.
    fn look_for_gaps(&self, delivered: u64, entries: &[LogEntry]) {
        let mut expected = delivered + 1;
        for entry in entries {
            if entry.seq != expected {
                let (sale, last) = (self.delivery.sale.id(), entry.seq - 1);
                log::error!(
                    "sale {sale}: entries {expected} to {last} are missing from the log and were not delivered"
                );
            }
            expected = entry.seq + 1;
        }
    }

    fn tell_outage(&mut self, why: &str) {
        if self.outage.failed(Instant::now()) {
            let sale = self.delivery.sale.id();
            log::warn!("sale {sale}: cannot deliver the log: {why}; retrying");
        }
    }

    fn tell_end_of_outage(&mut self) {
        let failures = self.backoff.failures();
        self.backoff.succeeded();
        if let Some(time) = self.outage.ended(Instant::now()) {
            let sale = self.delivery.sale.id();
            log::info!("sale {sale}: delivery resumed after {:.1} s and {failures} failures", time.as_secs_f64());
        }
    }

    fn is_stopping(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Waits, unless an operator asks for a retry.
    async fn wait(&mut self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.delivery.wanted.notified() => {}
            // An error means that the sender is gone, which ends the task as well.
            _ = self.shutdown.wait_for(|shutdown| *shutdown) => {}
        }
    }

    /// Waits until the gate learns of entries after `delivered`. It learns with every sync, however many purchases come
    /// between two syncs.
    async fn wait_for_news(&mut self, delivered: u64) {
        let delivery = Arc::clone(&self.delivery);
        let news = async {
            loop {
                delivery.sale.synced().await;
                if delivery.sale.view().is_some_and(|view| view.version > delivered) {
                    return;
                }
            }
        };
        tokio::select! {
            () = news => {}
            () = self.wait(IDLE) => {}
        }
    }

    /// Gives up the lease, so that another edge continues at once.
    async fn release(&mut self) {
        let Some(HeldLease { epoch, .. }) = self.held.take() else { return };
        let Delivery { outbox, claim, .. } = &*self.delivery;
        // If this fails, the lease expires by itself.
        let _ = timeout(LEASE_SPARE, outbox.release(self.delivery.key(), epoch, &claim.edge)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Change, OrderId, OrderLine};

    #[test]
    fn an_entry_is_delivered_when_all_of_its_events_are() {
        let line = |id| OrderLine { order: OrderId([id; 16]), quantity: 1, buyer: None };
        let held = |seq, count| LogEntry {
            seq,
            at_ms: 0,
            change: Change::Held { expires_at_ms: 1, orders: (0..count).map(line).collect() },
        };
        let events: Vec<Event> = [held(7, 3), held(8, 1), held(9, 2)].iter().flat_map(wire::events).collect();
        let row = Row { events: &events, up_to: Some(9) };
        let delivered: Vec<u64> = (1..=6).map(|end| row.record(&events[..end], end).delivered).collect();
        assert_eq!(delivered, [6, 6, 7, 8, 8, 9]);
        assert!(row.record(&events[..2], 2).settled.is_empty());

        let again = Row { events: &events, up_to: None };
        let record = again.record(&events[2..4], 4);
        assert_eq!(record.delivered, 0, "what was set aside says nothing of the log");
        assert_eq!(record.settled, [EventId { seq: 7, part: 2 }, EventId { seq: 8, part: 0 }]);
    }
}
