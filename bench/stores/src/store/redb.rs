//! redb: one file, copy-on-write B-trees; `Durability::Immediate` syncs at each commit.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Store, Table};
use crate::Error;
use crate::batch::Batch;

type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

const SALE: Bytes = TableDefinition::new("sale");
const ORDERS: Bytes = TableDefinition::new("orders");
const LOG: Bytes = TableDefinition::new("log");
const DEADLINES: Bytes = TableDefinition::new("deadlines");

pub struct Redb {
    database: Database,
    /// Commits in two phases and keeps the allocator's state, so that a crash needs no walk through the whole file.
    quick_repair: bool,
}

impl Redb {
    pub fn open(folder: &Path, quick_repair: bool) -> Result<Self, Error> {
        let database = Database::builder().set_cache_size(64 << 20).create(folder.join("ledger.redb"))?;
        let create = database.begin_write()?;
        for table in [SALE, ORDERS, LOG, DEADLINES] {
            create.open_table(table)?;
        }
        create.commit()?;
        Ok(Redb { database, quick_repair })
    }
}

impl Store for Redb {
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(redb::Durability::Immediate)?;
        write.set_quick_repair(self.quick_repair);
        {
            let mut sale = write.open_table(SALE)?;
            let mut orders = write.open_table(ORDERS)?;
            let mut log = write.open_table(LOG)?;
            let mut deadlines = write.open_table(DEADLINES)?;
            sale.insert(&b"sale"[..], &batch.sale[..])?;
            for order in &batch.orders {
                orders.insert(&order.key[..], &order.record[..])?;
                log.insert(&order.number.to_be_bytes()[..], &order.entry[..])?;
                deadlines.insert(&order.deadline[..], &[][..])?;
            }
        }
        Ok(write.commit()?)
    }

    fn each(&self, table: Table, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let table = match table {
            Table::Sale => SALE,
            Table::Orders => ORDERS,
            Table::Log => LOG,
            Table::Deadlines => DEADLINES,
        };
        for pair in self.database.begin_read()?.open_table(table)?.iter()? {
            let (key, value) = pair?;
            see(key.value(), value.value());
        }
        Ok(())
    }
}
