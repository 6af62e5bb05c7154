//! The records of a sale in the embedded ledger: its journal and the model made from it. Both belong to one process, so
//! a difference would be a fault of the program, and there is nothing to repair here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::{EmbeddedLedger, Keeper};
use crate::ledger::model::SaleModel;
use crate::ledger::reconcile::{Bookkeeper, Books, Recount, Witness};
use crate::ledger::{Ledger, LedgerError, Order, OrderId, SaleState, Terms};

impl Keeper {
    fn books(&mut self, name: &str, epoch: u64) -> Result<Books, LedgerError> {
        let kept = self.read_all()?;
        let sale = kept.sales.get(name).ok_or(LedgerError::Missing)?;
        if sale.identity.epoch != epoch {
            return Err(LedgerError::Changed);
        }
        let mut replayed = SaleModel::new(epoch);
        kept.journal.replay(sale.number, |entry| replayed.apply(&entry))?;
        let view = sale.model.view(0, &Terms::default());
        Ok(Books {
            version: view.version,
            total: view.total,
            sold: view.sold,
            paid: view.paid,
            now_ms: view.now_ms,
            fence: None,
            state: view.state,
            orders: sale.model.orders().map(|(id, order)| (*id, order.clone())).collect(),
            buyers: sale.model.buyers().map(|(name, has)| (Arc::clone(name), has)).collect(),
            due: sale.model.due().map(|(_, id)| id).collect(),
            replayed,
            last_entries: HashMap::new(),
            changed: HashSet::new(),
        })
    }
}

fn nothing_to_write<T>() -> Result<T, LedgerError> {
    Err(LedgerError::Unsupported)
}

#[async_trait]
impl Bookkeeper for EmbeddedLedger {
    async fn fence(&self, _sale: &str, _epoch: u64, _why: &str) -> Result<(), LedgerError> {
        nothing_to_write()
    }

    async fn books(&self, sale: &str, epoch: u64) -> Result<Books, LedgerError> {
        let sale = sale.to_owned();
        self.step(move |keeper| keeper.books(&sale, epoch)).await
    }

    fn remembered(&self, _sale: &str) -> Option<Witness> {
        None
    }

    async fn restore(
        &self,
        _sale: &str,
        _epoch: u64,
        _version: u64,
        _lost: u64,
        _orders: &[(OrderId, Order)],
    ) -> Result<u64, LedgerError> {
        nothing_to_write()
    }

    async fn recount(&self, _sale: &str, _epoch: u64, _version: u64, _recount: &Recount) -> Result<u64, LedgerError> {
        nothing_to_write()
    }

    async fn lift(&self, _sale: &str, _epoch: u64, _version: u64) -> Result<(), LedgerError> {
        nothing_to_write()
    }

    async fn set_state(&self, sale: &str, state: SaleState) -> Result<(), LedgerError> {
        Ledger::set_state(self, sale, state).await
    }
}
