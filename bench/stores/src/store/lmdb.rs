//! LMDB: a memory-mapped copy-on-write B-tree. Without flags each commit syncs the data, then writes the meta page
//! through a descriptor that was opened with O_DSYNC.

use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvOpenOptions};

use super::{Store, Table};
use crate::Error;
use crate::batch::Batch;

type Records = Database<Bytes, Bytes>;

pub struct Lmdb {
    env: Env,
    sale: Records,
    orders: Records,
    log: Records,
    deadlines: Records,
}

impl Lmdb {
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let folder = folder.join("ledger.lmdb");
        std::fs::create_dir_all(&folder)?;
        // SAFETY: nobody else maps or truncates this file; the folder belongs to this run.
        let env = unsafe { EnvOpenOptions::new().max_dbs(4).map_size(4 << 30).open(folder)? };
        let mut write = env.write_txn()?;
        let mut create = |name| env.create_database(&mut write, Some(name));
        let (sale, orders, log, deadlines) = (create("sale")?, create("orders")?, create("log")?, create("deadlines")?);
        write.commit()?;
        Ok(Lmdb { env, sale, orders, log, deadlines })
    }
}

impl Store for Lmdb {
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut write = self.env.write_txn()?;
        self.sale.put(&mut write, b"sale", &batch.sale)?;
        for order in &batch.orders {
            self.orders.put(&mut write, &order.key, &order.record)?;
            self.log.put(&mut write, &order.number.to_be_bytes(), &order.entry)?;
            self.deadlines.put(&mut write, &order.deadline, &[])?;
        }
        Ok(write.commit()?)
    }

    fn each(&self, table: Table, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let records = match table {
            Table::Sale => self.sale,
            Table::Orders => self.orders,
            Table::Log => self.log,
            Table::Deadlines => self.deadlines,
        };
        let read = self.env.read_txn()?;
        for pair in records.iter(&read)? {
            let (key, value) = pair?;
            see(key, value);
        }
        Ok(())
    }
}
