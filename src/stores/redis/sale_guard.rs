//! What this edge knows of each sale, and whether the ledger still has it: no step of a sale uses a connection before
//! `lua/authorize.lua` has compared the two.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::keys::Keys;
use super::link::Line;
use super::memory::Memory;
use super::scripts::{Call, SCRIPTS};
use super::{RedisLedger, reply};
use crate::ledger::{
    Cancelled, Change, Confirmed, Decision, Identity, LedgerError, LogEntry, Order, OrderId, OrderLine, Purchase,
    Reserved, Synced,
};

/// How long nothing is sold under a new primary or after a reconciliation. Within that time (ten syncs by default)
/// every edge that reaches Redis has reconnected, and has reported if it knows more than the ledger.
const QUIET: Duration = Duration::from_secs(1);

/// Orders looked up in one command.
const PAGE: usize = 512;

/// An opened sale.
pub(super) struct SaleGuard {
    pub(super) epoch: u64,
    pub(super) memory: Memory,
    /// The connection that is authorized for its steps, and from when on.
    authorization: Option<(u64, Instant)>,
}

/// Why a step may not use a connection; the step was not made.
pub(super) enum GuardError {
    /// The connection is broken, for all sales.
    Broken(String),
    /// The ledger refused the authorization.
    Refused(LedgerError),
}

impl From<GuardError> for LedgerError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Broken(why) => Self::Unavailable(why),
            GuardError::Refused(error) => error,
        }
    }
}

impl RedisLedger {
    fn guards(&self) -> MutexGuard<'_, HashMap<String, SaleGuard>> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` on an opened sale; none if it is not opened.
    pub(super) fn with<T>(&self, sale: &str, act: impl FnOnce(&mut SaleGuard) -> T) -> Option<T> {
        self.guards().get_mut(sale).map(act)
    }

    pub(super) fn take_charge(&self, sale: &str, identity: &Identity) {
        let mut guards = self.guards();
        if guards.get(sale).is_none_or(|ward| ward.epoch != identity.epoch) {
            let ward = SaleGuard { epoch: identity.epoch, memory: Memory::default(), authorization: None };
            guards.insert(sale.to_owned(), ward);
        }
    }

    /// Makes sure that the sale may be sold over this connection. A sale that is not opened is refused by the scripts.
    pub(super) async fn pass(&self, line: &Line, sale: &str) -> Result<(), GuardError> {
        let authorization = |ward: &mut SaleGuard| ward.authorization.filter(|(number, _)| *number == line.number);
        let from = match self.with(sale, authorization) {
            None => return Ok(()),
            Some(Some((_, from))) => from,
            Some(None) => self.authorize(line, sale).await?,
        };
        let left = from.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let why = format!("Redis was started, promoted or reconciled; edges have {left:.0?} to say what it has lost");
        Err(GuardError::Refused(LedgerError::Unavailable(why)))
    }

    /// Asks for authorization; returns from when on it holds.
    async fn authorize(&self, line: &Line, sale: &str) -> Result<Instant, GuardError> {
        let Some(call) = self.authorize_call(line, sale) else {
            return Err(GuardError::Refused(LedgerError::Missing));
        };
        let answered = self.ask_over(line, &call.command()).await.map_err(|error| match error {
            // An error here concerns no step yet.
            LedgerError::Unknown(why) => GuardError::Broken(why),
            error => GuardError::Refused(error),
        })?;
        let (generation, wait) = reply::authorized(&answered).map_err(GuardError::Refused)?;
        let known = self.with(sale, |ward| ward.memory.generation()).flatten();
        if known.is_some_and(|known| known != generation) {
            self.look_for_all(line, sale).await.map_err(GuardError::Refused)?;
            self.with(sale, |ward| ward.memory.begin_anew(generation));
            // The log must be read again after a reconciliation.
            let why = "it was reconciled, and is read anew".to_owned();
            return Err(GuardError::Refused(LedgerError::Fenced(why)));
        }
        let from = Instant::now() + wait;
        self.with(sale, |ward| {
            if known.is_none() {
                ward.memory.begin_anew(generation);
            }
            ward.authorization = Some((line.number, from));
        });
        Ok(from)
    }

    /// The call that compares, which also writes; none for a sale that is not opened.
    pub(super) fn authorize_call(&self, line: &Line, sale: &str) -> Option<Call> {
        self.with(sale, |ward| {
            let keys = Keys::of(sale);
            let (seq, at_ms) = ward.memory.mark();
            Call::new(&SCRIPTS.authorize, &[keys.hash(), &keys.log()])
                .arg(format!("{:016x}", ward.epoch))
                .arg(&*line.primary_id)
                .arg(ward.memory.generation().map_or(String::new(), |generation| generation.to_string()))
                .arg(ward.memory.acknowledged_version())
                .arg(seq)
                .arg(at_ms)
                .arg(QUIET.as_millis() as u64)
        })
    }

    /// Runs after a reconciliation. Orders that this edge remembers and the ledger still lacks were not known to the
    /// edge that reconciled.
    async fn look_for_all(&self, line: &Line, sale: &str) -> Result<(), LedgerError> {
        let Some((epoch, orders)) = self.with(sale, |ward| (ward.epoch, ward.memory.orders())) else { return Ok(()) };
        let orders: Vec<(OrderId, Order)> = orders.into_iter().map(|(id, (order, _))| (id, order)).collect();
        let mut lacking = 0;
        for page in orders.chunks(PAGE) {
            let mut command = ::redis::cmd("HMGET");
            command.arg(Keys::of(sale).orders());
            page.iter().for_each(|(id, _)| {
                command.arg(&id.hex()[..]);
            });
            let found = reply::orders(&self.ask_over(line, &command).await?)?;
            let lacks = |(known, found): &(&(OrderId, Order), &Option<Order>)| {
                found.as_ref().is_none_or(|found| found.rank() < known.1.rank())
            };
            lacking += page.iter().zip(&found).filter(lacks).count();
        }
        if lacking == 0 {
            return Ok(());
        }
        let why = format!("an edge remembers {lacking} orders that the ledger lacks after it was reconciled");
        self.fence_over(line, sale, epoch, &why).await?;
        Err(LedgerError::Fenced(why))
    }

    /// Fences the sale, unless it is fenced already.
    pub(super) async fn fence_over(&self, line: &Line, sale: &str, epoch: u64, why: &str) -> Result<(), LedgerError> {
        let call = Call::new(&SCRIPTS.fence, &[Keys::of(sale).hash()]).arg(format!("{epoch:016x}")).arg(why);
        self.ask_over(line, &call.command()).await.map(|_new| ())
    }

    /// The version acknowledged so far; later acknowledgements are never older.
    pub(super) fn acknowledged_version(&self, sale: &str) -> u64 {
        self.with(sale, |ward| ward.memory.acknowledged_version()).unwrap_or(0)
    }

    pub(super) fn learn_error(&self, sale: &str, error: &LedgerError) {
        if matches!(error, LedgerError::Fenced(_)) {
            self.with(sale, |ward| ward.authorization = None);
        }
    }

    /// `kept` says whether the required number of replicas have what was read.
    pub(super) fn learn_sync(
        &self,
        sale: &str,
        acknowledged_version: u64,
        synced: &Synced,
        kept: bool,
    ) -> Result<(), LedgerError> {
        let learnt = self.with(sale, |ward| {
            let version = synced.view.version;
            if ward.epoch != synced.view.epoch {
                return Ok(());
            }
            if version < acknowledged_version {
                // The sale is compared again before anything else is done.
                ward.authorization = None;
                return Err(LedgerError::Unavailable(format!("version {version} came after {acknowledged_version}")));
            }
            synced.entries.iter().for_each(|entry| ward.memory.learn(entry.clone()));
            if kept {
                ward.memory.heard(version);
            }
            Ok(())
        });
        learnt.unwrap_or(Ok(()))
    }

    pub(super) fn learn_step(&self, sale: &str, batch: &[Purchase], reserved: &Reserved) {
        let view = &reserved.view;
        let mut expires_at_ms = 0;
        let ordered = |(purchase, decision): (&Purchase, &Decision)| match decision {
            Decision::Ordered { order, again: false } => {
                expires_at_ms = order.expires_at_ms;
                let Purchase { id, buyer, quantity } = purchase;
                Some(OrderLine { order: *id, quantity: *quantity, buyer: buyer.clone() })
            }
            _ => None,
        };
        let orders: Vec<OrderLine> = batch.iter().zip(&reserved.decisions).filter_map(ordered).collect();
        self.with(sale, |ward| {
            if ward.epoch == view.epoch {
                // A step that wrote nothing has nothing that replicas could acknowledge.
                if !orders.is_empty() {
                    let change = Change::Held { expires_at_ms, orders };
                    ward.memory.learn(LogEntry { seq: view.version, at_ms: view.now_ms, change });
                    ward.memory.heard(view.version);
                }
            }
        });
    }

    /// `made` is number and time of the entry, if the step wrote one.
    pub(super) fn learn_confirmed(&self, sale: &str, id: OrderId, confirmed: &Confirmed, made: Option<(u64, u64)>) {
        let Confirmed::Paid { order, retaken } = confirmed else { return };
        if let Some(payment) = order.payment.clone() {
            self.learn_made(sale, made, Change::Paid { line: line_of(id, order), payment, retaken: *retaken });
        }
    }

    /// See [`RedisLedger::learn_confirmed`].
    pub(super) fn learn_cancelled(&self, sale: &str, id: OrderId, cancelled: &Cancelled, made: Option<(u64, u64)>) {
        match cancelled {
            Cancelled::Released(order) => {
                if let Some(reason) = order.reason {
                    self.learn_made(sale, made, Change::Released { reason, orders: vec![line_of(id, order)] });
                }
            }
            Cancelled::GivenUp => self.learn_made(sale, made, Change::GivenUp { order: id }),
            Cancelled::AlreadyPaid(_) => {}
        }
    }

    fn learn_made(&self, sale: &str, made: Option<(u64, u64)>, change: Change) {
        if let Some((seq, at_ms)) = made {
            self.with(sale, |ward| {
                ward.memory.learn(LogEntry { seq, at_ms, change });
                ward.memory.heard(seq);
            });
        }
    }

    /// Like [`RedisLedger::make_sure`], for steps that are allowed on a fenced sale.
    pub(super) async fn make_sure_of_change(&self, sale: &str) -> Result<(), LedgerError> {
        match self.make_sure(sale).await {
            Err(LedgerError::Fenced(_)) => Ok(()),
            made_sure => made_sure,
        }
    }
}

fn line_of(id: OrderId, order: &Order) -> OrderLine {
    OrderLine { order: id, quantity: order.quantity, buyer: order.buyer.clone() }
}
