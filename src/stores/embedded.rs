//! The ledger of a single edge, in a folder on local disk: the state machine of [`crate::ledger::model`] in memory, and
//! its log in SQLite. A step is decided, its entries are written and synced to disk in one transaction, and only then
//! applied in memory.
//!
//! One thread owns both, so steps run one after the other. The memory always matches the log: if a write fails, its
//! outcome is unknown, and the log is read again before anything else is done.

mod books;
pub(crate) mod journal;
mod outbox;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use self::journal::{Journal, JournalError};
use self::outbox::Leases;
use crate::ledger::model::SaleModel;
use crate::ledger::{
    Cancelled, Confirmed, Identity, Ledger, LedgerError, LogEntry, Order, OrderId, PaymentId, Purchase, Reserved,
    SYNC_LINES_MAX, SaleState, Swept, SyncAsk, Synced, TOTAL_MAX, Terms, View,
};

/// Steps that may wait for the thread. Every sale has at most one batch under way, so a few are enough.
const STEPS_WAITING: usize = 1024;

/// Returns the Unix time in ms. Passed in, so that tests can set it.
pub type Clock = fn() -> u64;

type Job = Box<dyn FnOnce(&mut Keeper) + Send>;

/// The embedded ledger; see the module.
pub struct EmbeddedLedger {
    steps: mpsc::Sender<Job>,
}

impl EmbeddedLedger {
    /// Opens the folder, or creates it, and reads every sale in it.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] if the folder cannot be used or another edge has it open, [`LedgerError::Damaged`]
    /// if its content cannot be read.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, LedgerError> {
        fs::create_dir_all(folder)
            .map_err(|error| LedgerError::Unavailable(format!("{}: {error}", folder.display())))?;
        let path = folder.join("ledger.db");
        let mut keeper = Keeper { path, clock, kept: None, is_given: false, leases: Leases::default() };
        keeper.read_all()?;
        let (steps, mut waiting) = mpsc::channel::<Job>(STEPS_WAITING);
        thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                while let Some(step) = waiting.blocking_recv() {
                    step(&mut keeper);
                }
            })
            .map_err(|error| LedgerError::Unavailable(format!("its thread cannot be started: {error}")))?;
        Ok(Self { steps })
    }

    /// Closes the folder for the next process; until it is taken back, every step is refused. Earlier steps are
    /// finished.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] if the thread is gone.
    pub async fn give_away(&self) -> Result<(), LedgerError> {
        self.step(|keeper| {
            keeper.is_given = true;
            keeper.kept = None;
            Ok(())
        })
        .await
    }

    /// Reopens the folder after the next process has closed it.
    ///
    /// # Errors
    /// As of [`EmbeddedLedger::open`]; the next step tries again.
    pub async fn take_back(&self) -> Result<(), LedgerError> {
        self.step(|keeper| {
            keeper.is_given = false;
            keeper.read_all().map(drop)
        })
        .await
    }

    /// Runs a step on the thread. A caller that stops waiting does not stop the step.
    async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Keeper) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, outcome) = oneshot::channel();
        let step: Job = Box::new(move |keeper| {
            let _ = reply.send(step(keeper));
        });
        let gone = || LedgerError::Unavailable("its thread has ended".into());
        self.steps.send(step).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| LedgerError::Unknown("its thread has ended".into()))?
    }
}

/// The state that the thread owns.
struct Keeper {
    path: PathBuf,
    clock: Clock,
    /// `None` after a write with unknown outcome, until the log has been read again.
    kept: Option<Kept>,
    /// True while another process has the folder.
    is_given: bool,
    leases: Leases,
}

struct Kept {
    journal: Journal,
    sales: HashMap<String, KeptSale>,
}

struct KeptSale {
    /// Its number in the journal.
    number: i64,
    identity: Identity,
    model: SaleModel,
}

impl Keeper {
    /// Opens the journal and replays it, unless it is open.
    fn read_all(&mut self) -> Result<&mut Kept, LedgerError> {
        if self.is_given {
            return Err(LedgerError::Unavailable("it was given to the edge that follows this one".into()));
        }
        let kept = match self.kept.take() {
            Some(kept) => kept,
            None => {
                let journal = Journal::open(&self.path)?;
                let mut sales = HashMap::new();
                for (number, name, identity) in journal.sales()? {
                    let mut model = SaleModel::new(identity.epoch);
                    journal.replay(number, |entry| model.apply(&entry))?;
                    sales.insert(name, KeptSale { number, identity, model });
                }
                Kept { journal, sales }
            }
        };
        Ok(self.kept.insert(kept))
    }

    fn sale(&mut self, name: &str) -> Result<&KeptSale, LedgerError> {
        self.read_all()?.sales.get(name).ok_or(LedgerError::Missing)
    }

    /// Writes an entry to disk, then applies it.
    fn commit(&mut self, name: &str, entry: Option<&LogEntry>) -> Result<(), LedgerError> {
        let Some(entry) = entry else { return Ok(()) };
        let kept = self.read_all()?;
        let sale = kept.sales.get_mut(name).ok_or(LedgerError::Missing)?;
        match kept.journal.append(sale.number, entry) {
            Ok(()) => {
                sale.model.apply(entry);
                Ok(())
            }
            Err(error) => Err(self.after_failed_write(name, &error)),
        }
    }

    /// Finds out what a failed write left on disk, by reopening the file.
    fn after_failed_write(&mut self, name: &str, error: &JournalError) -> LedgerError {
        log::error!("the embedded ledger: {error}");
        let unknown = LedgerError::Unknown(error.to_string());
        let Some(Kept { journal, sales }) = self.kept.take() else { return unknown };
        // The process that has the file open has locked it.
        drop(journal);
        let Ok(journal) = Journal::open(&self.path) else { return unknown };
        match sales.get(name).map(|sale| (sale.model.version(), journal.last(sale.number))) {
            // Nothing of it is on disk, so the memory is right and the step was certainly not made.
            Some((version, Ok(last))) if last == version => {
                self.kept = Some(Kept { journal, sales });
                LedgerError::Unavailable(error.to_string())
            }
            _ => unknown,
        }
    }

    fn open_sale(&mut self, name: &str, total: Option<u64>) -> Result<Identity, LedgerError> {
        let now_ms = (self.clock)();
        let kept = self.read_all()?;
        if let Some(sale) = kept.sales.get(name) {
            return Ok(sale.identity);
        }
        let total = total.ok_or(LedgerError::Missing)?;
        if total > TOTAL_MAX {
            return Err(LedgerError::AboveMaximum);
        }
        let identity = Identity { epoch: rand::random::<u64>().max(1), secret: rand::random() };
        let mut model = SaleModel::new(identity.epoch);
        let opened = model.open(now_ms, total);
        let number = match kept.journal.begin(name, &identity, &opened) {
            Ok(number) => number,
            Err(error) => {
                self.kept = None;
                return Err(error.into());
            }
        };
        model.apply(&opened);
        kept.sales.insert(name.to_owned(), KeptSale { number, identity, model });
        Ok(identity)
    }

    fn reserve(&mut self, name: &str, epoch: u64, terms: &Terms, batch: &[Purchase]) -> Result<Reserved, LedgerError> {
        let now_ms = (self.clock)();
        let sale = self.sale(name)?;
        if sale.identity.epoch != epoch {
            return Err(LedgerError::Changed);
        }
        let version_before = sale.model.version();
        let reservation = sale.model.reserve(now_ms, terms, batch);
        self.commit(name, reservation.entry.as_ref())?;
        let view = self.sale(name)?.model.view(now_ms, terms);
        Ok(Reserved { decisions: reservation.decisions, view, version_before })
    }

    fn sweep(&mut self, name: &str, epoch: u64) -> Result<Swept, LedgerError> {
        let now_ms = (self.clock)();
        let sale = self.sale(name)?;
        if sale.identity.epoch != epoch {
            return Err(LedgerError::Changed);
        }
        let sweep = sale.model.sweep(now_ms);
        self.commit(name, sweep.entry.as_ref())?;
        if let Some(sale) = self.read_all()?.sales.get_mut(name) {
            sale.model.end(&sweep);
        }
        Ok(sweep.swept)
    }

    fn sync(&mut self, ask: &SyncAsk) -> Result<Synced, LedgerError> {
        let now_ms = (self.clock)();
        let kept = self.read_all()?;
        let sale = kept.sales.get(&*ask.sale).ok_or(LedgerError::Missing)?;
        if sale.identity.epoch != ask.epoch {
            return Err(LedgerError::Changed);
        }
        let view = sale.model.view(now_ms, &ask.terms);
        let entries = if ask.read_to < view.version {
            kept.journal.read(sale.number, ask.read_to, usize::MAX, SYNC_LINES_MAX)?
        } else {
            Vec::new()
        };
        Ok(Synced { view, next_due_ms: sale.model.next_due_ms(), entries })
    }
}

impl From<JournalError> for LedgerError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::InUse(_) | JournalError::Store(_) => Self::Unavailable(error.to_string()),
            JournalError::Damaged(_) => Self::Damaged(error.to_string()),
        }
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn open(&self, sale: &str, total: Option<u64>) -> Result<Identity, LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| keeper.open_sale(&sale, total)).await
    }

    async fn reserve(
        &self,
        sale: &str,
        epoch: u64,
        terms: &Terms,
        batch: &Arc<Vec<Purchase>>,
    ) -> Result<Reserved, LedgerError> {
        let (sale, terms, batch) = (sale.to_owned(), *terms, Arc::clone(batch));
        self.step(move |keeper| keeper.reserve(&sale, epoch, &terms, &batch)).await
    }

    async fn sync(&self, asks: &[SyncAsk]) -> Result<Vec<Result<Synced, LedgerError>>, LedgerError> {
        let asks = asks.to_vec();
        self.step(move |keeper| {
            keeper.read_all()?;
            Ok(asks.iter().map(|ask| keeper.sync(ask)).collect())
        })
        .await
    }

    async fn snapshot(&self, sale: &str, terms: &Terms) -> Result<View, LedgerError> {
        let (sale, terms) = (sale.to_owned(), *terms);
        self.step(move |keeper| {
            let now_ms = (keeper.clock)();
            Ok(keeper.sale(&sale)?.model.view(now_ms, &terms))
        })
        .await
    }

    async fn order(&self, sale: &str, id: OrderId) -> Result<Option<Order>, LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| Ok(keeper.sale(&sale)?.model.order(&id).cloned())).await
    }

    async fn confirm(
        &self,
        sale: &str,
        terms: &Terms,
        order: OrderId,
        payment: &PaymentId,
    ) -> Result<Confirmed, LedgerError> {
        let (sale, terms, payment) = (sale.to_owned(), *terms, payment.clone());
        self.step(move |keeper| {
            let now_ms = (keeper.clock)();
            let (confirmed, entry) = keeper.sale(&sale)?.model.confirm(now_ms, &terms, order, &payment);
            keeper.commit(&sale, entry.as_ref())?;
            Ok(confirmed)
        })
        .await
    }

    async fn cancel(&self, sale: &str, order: OrderId) -> Result<Cancelled, LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| {
            let now_ms = (keeper.clock)();
            let (cancelled, entry) = keeper.sale(&sale)?.model.cancel(now_ms, order);
            keeper.commit(&sale, entry.as_ref())?;
            Ok(cancelled)
        })
        .await
    }

    async fn sweep(&self, sale: &str, epoch: u64) -> Result<Swept, LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| keeper.sweep(&sale, epoch)).await
    }

    async fn set_state(&self, sale: &str, state: SaleState) -> Result<(), LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| {
            let now_ms = (keeper.clock)();
            let entry = keeper.sale(&sale)?.model.set_state(now_ms, state);
            keeper.commit(&sale, entry.as_ref())
        })
        .await
    }

    async fn add_stock(&self, sale: &str, change_id: &str, delta: i64) -> Result<(), LedgerError> {
        let (sale, change_id) = (sale.to_owned(), change_id.to_owned());
        self.step(move |keeper| {
            let now_ms = (keeper.clock)();
            let entry = keeper.sale(&sale)?.model.add_stock(now_ms, &change_id, delta)?;
            keeper.commit(&sale, entry.as_ref())
        })
        .await
    }

    async fn log(&self, sale: &str, after: u64, limit: usize) -> Result<Vec<LogEntry>, LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| {
            let number = keeper.sale(&sale)?.number;
            Ok(keeper.read_all()?.journal.read(number, after, limit, usize::MAX)?)
        })
        .await
    }
}
