//! fjall: a journal in front of a log-structured tree; `PersistMode::SyncAll` syncs the journal at each commit.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Store, Table};
use crate::Error;
use crate::batch::Batch;

pub struct Fjall {
    database: Database,
    sale: Keyspace,
    orders: Keyspace,
    log: Keyspace,
    deadlines: Keyspace,
}

impl Fjall {
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let database = Database::builder(folder.join("ledger.fjall")).cache_size(64 << 20).open()?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        Ok(Fjall {
            sale: keyspace("sale")?,
            orders: keyspace("orders")?,
            log: keyspace("log")?,
            deadlines: keyspace("deadlines")?,
            database,
        })
    }
}

impl Store for Fjall {
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut write = self.database.batch().durability(Some(PersistMode::SyncAll));
        write.insert(&self.sale, "sale", batch.sale);
        for order in &batch.orders {
            write.insert(&self.orders, order.key, order.record);
            write.insert(&self.log, order.number.to_be_bytes(), order.entry);
            write.insert(&self.deadlines, order.deadline, []);
        }
        Ok(write.commit()?)
    }

    fn each(&self, table: Table, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let keyspace = match table {
            Table::Sale => &self.sale,
            Table::Orders => &self.orders,
            Table::Log => &self.log,
            Table::Deadlines => &self.deadlines,
        };
        for pair in keyspace.iter() {
            let (key, value) = pair.into_inner()?;
            see(&key, &value);
        }
        Ok(())
    }
}
