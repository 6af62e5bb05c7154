//! The model as a ledger in memory for tests of the edge. Tests can inject faults.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::SaleModel;
use crate::ledger::{
    Cancelled, Confirmed, Identity, Ledger, LedgerError, LogEntry, Order, OrderId, PaymentId, Purchase, Reserved,
    SaleState, Swept, SyncAsk, Synced, Terms, View,
};

/// Maximum entries per sync; small, because tests must need more than one sync for a log.
pub const SYNC_ENTRIES: usize = 8;

/// An injected fault of one step of purchases.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Done after a delay.
    Delay(Duration),
    /// Done, but the answer is lost.
    UnknownAfterDoing,
    /// Not done, and the caller gets an unknown outcome.
    UnknownWithoutDoing,
    /// Done, but the call never returns.
    Silence,
    /// Refused with [`LedgerError::Unavailable`].
    Unavailable,
    /// Refused with [`LedgerError::Missing`].
    Missing,
}

/// A ledger with one sale under every key.
#[derive(Default)]
pub struct InMemoryLedger {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    now_ms: u64,
    sale: Option<(Identity, SaleModel)>,
    log: Vec<LogEntry>,
    /// The faults of the next steps; later steps have none.
    faults: VecDeque<Fault>,
    syncs_hang: bool,
    /// Every step, done or not.
    steps: Vec<Vec<Purchase>>,
}

impl Kept {
    fn sale(&self, epoch: Option<u64>) -> Result<&SaleModel, LedgerError> {
        let (identity, sale) = self.sale.as_ref().ok_or(LedgerError::Missing)?;
        if epoch.is_some_and(|epoch| epoch != identity.epoch) {
            return Err(LedgerError::Changed);
        }
        Ok(sale)
    }

    fn commit(&mut self, entries: impl IntoIterator<Item = LogEntry>) {
        for entry in entries {
            if let Some((_, sale)) = &mut self.sale {
                sale.apply(&entry);
            }
            self.log.push(entry);
        }
    }

    fn begin(&mut self, total: u64) -> Identity {
        let identity = Identity { epoch: rand::random::<u64>().max(1), secret: rand::random() };
        let sale = SaleModel::new(identity.epoch);
        let opened = sale.open(self.now_ms, total);
        self.sale = Some((identity, sale));
        self.log.clear();
        self.commit([opened]);
        identity
    }

    fn reserve(&mut self, epoch: Option<u64>, terms: &Terms, batch: &[Purchase]) -> Result<Reserved, LedgerError> {
        let sale = self.sale(epoch)?;
        let version_before = sale.version();
        let reservation = sale.reserve(self.now_ms, terms, batch);
        self.commit(reservation.entry);
        let view = self.sale(epoch)?.view(self.now_ms, terms);
        Ok(Reserved { decisions: reservation.decisions, view, version_before })
    }

    fn sync(&self, ask: &SyncAsk) -> Result<Synced, LedgerError> {
        let sale = self.sale(Some(ask.epoch))?;
        let view = sale.view(self.now_ms, &ask.terms);
        Ok(Synced { view, next_due_ms: sale.next_due_ms(), entries: self.read(ask.read_to, SYNC_ENTRIES) })
    }

    fn read(&self, after: u64, limit: usize) -> Vec<LogEntry> {
        self.log.iter().filter(|entry| entry.seq > after).take(limit).cloned().collect()
    }
}

impl InMemoryLedger {
    /// Each access advances the clock by one millisecond.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.now_ms += 1;
        kept
    }

    /// Injects faults into the next steps.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.kept().faults.extend(faults);
    }

    /// Removes the faults that are still to come.
    pub fn heal(&self) {
        self.kept().faults.clear();
    }

    /// Makes syncs hang, or ends that.
    pub fn hang_syncs(&self, hang: bool) {
        self.kept().syncs_hang = hang;
    }

    /// Replaces the sale by a new one.
    pub fn begin_anew(&self, total: u64) {
        self.kept().begin(total);
    }

    /// Makes orders as another edge would.
    pub fn sell_elsewhere(&self, batch: &[Purchase]) {
        let terms = Terms { hold_ms: 600_000, ..Terms::default() };
        let _decisions = self.kept().reserve(None, &terms, batch);
    }

    /// A copy of the sale.
    pub fn sale(&self) -> SaleModel {
        self.kept().sale.as_ref().map(|(_, sale)| sale.clone()).unwrap_or_default()
    }

    /// Every step, including repeats.
    pub fn steps(&self) -> Vec<Vec<Purchase>> {
        self.kept().steps.clone()
    }
}

#[async_trait]
impl Ledger for InMemoryLedger {
    async fn open(&self, _sale: &str, total: Option<u64>) -> Result<Identity, LedgerError> {
        let mut kept = self.kept();
        match (&kept.sale, total) {
            (Some((identity, _)), _) => Ok(*identity),
            (None, Some(total)) => Ok(kept.begin(total)),
            (None, None) => Err(LedgerError::Missing),
        }
    }

    async fn reserve(
        &self,
        _sale: &str,
        epoch: u64,
        terms: &Terms,
        batch: &Arc<Vec<Purchase>>,
    ) -> Result<Reserved, LedgerError> {
        let fault = {
            let mut kept = self.kept();
            kept.steps.push(batch.to_vec());
            kept.faults.pop_front()
        };
        match fault {
            Some(Fault::Unavailable) => return Err(LedgerError::Unavailable("told so".into())),
            Some(Fault::Missing) => return Err(LedgerError::Missing),
            Some(Fault::UnknownWithoutDoing) => return Err(LedgerError::Unknown("not done".into())),
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::UnknownAfterDoing | Fault::Silence) | None => {}
        }
        let done = self.kept().reserve(Some(epoch), terms, batch);
        match fault {
            Some(Fault::UnknownAfterDoing) => Err(LedgerError::Unknown("done".into())),
            Some(Fault::Silence) => pending().await,
            _ => done,
        }
    }

    async fn sync(&self, asks: &[SyncAsk]) -> Result<Vec<Result<Synced, LedgerError>>, LedgerError> {
        if self.kept().syncs_hang {
            pending::<()>().await;
        }
        let kept = self.kept();
        Ok(asks.iter().map(|ask| kept.sync(ask)).collect())
    }

    async fn snapshot(&self, _sale: &str, terms: &Terms) -> Result<View, LedgerError> {
        let kept = self.kept();
        Ok(kept.sale(None)?.view(kept.now_ms, terms))
    }

    async fn order(&self, _sale: &str, id: OrderId) -> Result<Option<Order>, LedgerError> {
        Ok(self.kept().sale(None)?.order(&id).cloned())
    }

    async fn confirm(
        &self,
        _sale: &str,
        terms: &Terms,
        order: OrderId,
        payment: &PaymentId,
    ) -> Result<Confirmed, LedgerError> {
        let mut kept = self.kept();
        let (confirmed, entry) = kept.sale(None)?.confirm(kept.now_ms, terms, order, payment);
        kept.commit(entry);
        Ok(confirmed)
    }

    async fn cancel(&self, _sale: &str, order: OrderId) -> Result<Cancelled, LedgerError> {
        let mut kept = self.kept();
        let (cancelled, entry) = kept.sale(None)?.cancel(kept.now_ms, order);
        kept.commit(entry);
        Ok(cancelled)
    }

    async fn sweep(&self, _sale: &str, epoch: u64) -> Result<Swept, LedgerError> {
        let mut kept = self.kept();
        let sweep = kept.sale(Some(epoch))?.sweep(kept.now_ms);
        kept.commit(sweep.entry.clone());
        if let Some((_, sale)) = &mut kept.sale {
            sale.end(&sweep);
        }
        Ok(sweep.swept)
    }

    async fn set_state(&self, _sale: &str, state: SaleState) -> Result<(), LedgerError> {
        let mut kept = self.kept();
        let entry = kept.sale(None)?.set_state(kept.now_ms, state);
        kept.commit(entry);
        Ok(())
    }

    async fn add_stock(&self, _sale: &str, change_id: &str, delta: i64) -> Result<(), LedgerError> {
        let mut kept = self.kept();
        let entry = kept.sale(None)?.add_stock(kept.now_ms, change_id, delta)?;
        kept.commit(entry);
        Ok(())
    }

    async fn log(&self, _sale: &str, after: u64, limit: usize) -> Result<Vec<LogEntry>, LedgerError> {
        Ok(self.kept().read(after, limit))
    }
}
