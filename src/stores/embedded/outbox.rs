//! The outbox of the embedded ledger. Only one edge has the file open, so leases are kept in memory only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::journal::Journal;
use super::{EmbeddedLedger, Keeper};
use crate::ledger::{
    Claim, DeliveryStatus, Lease, LedgerError, Outbox, Progress, Record, Recorded, Taken, Terms, Work,
};

/// The leases of all sales.
#[derive(Default)]
pub(super) struct Leases {
    by_sale: HashMap<String, Held>,
}

struct Held {
    epoch: u64,
    edge: Arc<str>,
    until_ms: u64,
}

impl Leases {
    /// The owner of a sale's lease, even if the lease has expired.
    fn of(&self, sale: &str, epoch: u64) -> Option<&Held> {
        self.by_sale.get(sale).filter(|held| held.epoch == epoch)
    }

    fn is_owner(&self, sale: &str, epoch: u64, edge: &str) -> bool {
        self.of(sale, epoch).is_some_and(|held| &*held.edge == edge)
    }

    fn current(&self, sale: &str, epoch: u64, now_ms: u64) -> Option<Lease> {
        let held = self.of(sale, epoch).filter(|held| held.until_ms > now_ms)?;
        Some(Lease { edge: Arc::clone(&held.edge), left: Duration::from_millis(held.until_ms - now_ms) })
    }
}

/// A sale of this epoch: number in the journal, version and time.
struct StoredOutbox {
    number: i64,
    version: u64,
    now_ms: u64,
}

impl Keeper {
    fn find(&mut self, name: &str, epoch: u64) -> Result<StoredOutbox, LedgerError> {
        let now_ms = (self.clock)();
        let sale = self.sale(name)?;
        if sale.identity.epoch != epoch {
            return Err(LedgerError::Changed);
        }
        let view = sale.model.view(now_ms, &Terms::default());
        Ok(StoredOutbox { number: sale.number, version: view.version, now_ms: view.now_ms })
    }

    fn journal(&mut self) -> Result<&mut Journal, LedgerError> {
        Ok(&mut self.read_all()?.journal)
    }

    fn progress(&mut self, found: &StoredOutbox) -> Result<Progress, LedgerError> {
        let journal = self.journal()?;
        let delivered = journal.delivered(found.number)?;
        let oldest = if delivered < found.version { journal.read(found.number, delivered, 1, 1)?.pop() } else { None };
        Ok(Progress {
            version: found.version,
            delivered,
            oldest_at_ms: oldest.map(|entry| entry.at_ms),
            now_ms: found.now_ms,
            set_aside: journal.set_aside_count(found.number)?,
        })
    }

    fn take(&mut self, name: &str, epoch: u64, claim: &Claim, lines_max: usize) -> Result<Taken, LedgerError> {
        let found = self.find(name, epoch)?;
        let progress = self.progress(&found)?;
        let current = self.leases.current(name, epoch, found.now_ms);
        let lease = match current {
            Some(lease) if lease.edge != claim.edge => return Ok(Taken { progress, lease, work: None }),
            Some(lease) if lease.left > claim.lease / 2 => lease,
            _ => {
                let lease_ms = u64::try_from(claim.lease.as_millis()).unwrap_or(u64::MAX);
                let until_ms = found.now_ms.saturating_add(lease_ms);
                let held = Held { epoch, edge: Arc::clone(&claim.edge), until_ms };
                self.leases.by_sale.insert(name.to_owned(), held);
                Lease { edge: Arc::clone(&claim.edge), left: claim.lease }
            }
        };
        let journal = self.journal()?;
        let entries = if progress.delivered < found.version {
            journal.read(found.number, progress.delivered, usize::MAX, lines_max)?
        } else {
            Vec::new()
        };
        let set_aside = if progress.set_aside > 0 { journal.set_aside(found.number)? } else { Vec::new() };
        let again = set_aside.into_iter().filter(|aside| aside.again).map(|aside| aside.refused.event).collect();
        Ok(Taken { progress, lease, work: Some(Work { entries, again }) })
    }

    fn record(&mut self, name: &str, epoch: u64, edge: &str, record: &Record) -> Result<Recorded, LedgerError> {
        let found = self.find(name, epoch)?;
        if record.delivered > found.version {
            return Err(LedgerError::Damaged(format!("nothing can be delivered up to {}", record.delivered)));
        }
        if !self.leases.is_owner(name, epoch, edge) {
            return Ok(Recorded::Lost);
        }
        match self.journal()?.record(found.number, record, found.now_ms) {
            Ok(recorded) => Ok(recorded),
            Err(error) => Err(self.after_failed_write(name, &error)),
        }
    }

    fn retry(&mut self, name: &str, epoch: u64) -> Result<u64, LedgerError> {
        let found = self.find(name, epoch)?;
        match self.journal()?.retry(found.number) {
            Ok(count) => Ok(count),
            Err(error) => Err(self.after_failed_write(name, &error)),
        }
    }
}

#[async_trait]
impl Outbox for EmbeddedLedger {
    async fn take(&self, sale: &str, epoch: u64, claim: &Claim, lines_max: usize) -> Result<Taken, LedgerError> {
        let (sale, claim) = (sale.to_owned(), claim.clone());
        self.step(move |keeper| keeper.take(&sale, epoch, &claim, lines_max)).await
    }

    async fn record(&self, sale: &str, epoch: u64, edge: &str, record: &Record) -> Result<Recorded, LedgerError> {
        let (sale, edge, record) = (sale.to_owned(), edge.to_owned(), record.clone());
        self.step(move |keeper| keeper.record(&sale, epoch, &edge, &record)).await
    }

    async fn release(&self, sale: &str, epoch: u64, edge: &str) -> Result<(), LedgerError> {
        let (sale, edge) = (sale.to_owned(), edge.to_owned());
        self.step(move |keeper| {
            keeper.find(&sale, epoch)?;
            if keeper.leases.is_owner(&sale, epoch, &edge) {
                keeper.leases.by_sale.remove(&sale);
            }
            Ok(())
        })
        .await
    }

    async fn retry(&self, sale: &str, epoch: u64) -> Result<u64, LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| keeper.retry(&sale, epoch)).await
    }

    async fn delivery(&self, sale: &str, epoch: u64) -> Result<DeliveryStatus, LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| {
            let found = keeper.find(&sale, epoch)?;
            let progress = keeper.progress(&found)?;
            let set_aside = keeper.journal()?.set_aside(found.number)?;
            Ok(DeliveryStatus { progress, lease: keeper.leases.current(&sale, epoch, found.now_ms), set_aside })
        })
        .await
    }
}
