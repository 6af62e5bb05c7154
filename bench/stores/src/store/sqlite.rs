//! SQLite: a B-tree behind a write-ahead log; `synchronous = FULL` syncs the log at each commit.

use std::path::Path;

use rusqlite::{Connection, params};

use super::{Store, Table};
use crate::Error;
use crate::batch::Batch;

/// One process owns the file, so it is locked once and for all, as the other stores do.
const SCHEMA: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS sale (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS orders (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS log (key INTEGER PRIMARY KEY, value BLOB);
    CREATE TABLE IF NOT EXISTS deadlines (key BLOB PRIMARY KEY) WITHOUT ROWID;
";

pub struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let connection = Connection::open(folder.join("ledger.sqlite"))?;
        connection.execute_batch(SCHEMA)?;
        Ok(Sqlite { connection })
    }
}

impl Store for Sqlite {
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let write = self.connection.transaction()?;
        {
            let mut sale = write.prepare_cached("REPLACE INTO sale VALUES (?, ?)")?;
            let mut orders = write.prepare_cached("REPLACE INTO orders VALUES (?, ?)")?;
            let mut log = write.prepare_cached("REPLACE INTO log VALUES (?, ?)")?;
            let mut deadlines = write.prepare_cached("REPLACE INTO deadlines VALUES (?)")?;
            sale.execute(params![&b"sale"[..], &batch.sale[..]])?;
            for order in &batch.orders {
                orders.execute(params![&order.key[..], &order.record[..]])?;
                log.execute(params![order.number as i64, &order.entry[..]])?;
                deadlines.execute(params![&order.deadline[..]])?;
            }
        }
        Ok(write.commit()?)
    }

    fn each(&self, table: Table, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let question = match table {
            Table::Sale => "SELECT key, value FROM sale ORDER BY key",
            Table::Orders => "SELECT key, value FROM orders ORDER BY key",
            Table::Log => "SELECT key, value FROM log ORDER BY key",
            Table::Deadlines => "SELECT key, x'' FROM deadlines ORDER BY key",
        };
        let mut statement = self.connection.prepare(question)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let value = row.get_ref(1)?.as_blob()?;
            match table {
                Table::Log => see(&row.get::<_, i64>(0)?.to_be_bytes(), value),
                _ => see(row.get_ref(0)?.as_blob()?, value),
            }
        }
        Ok(())
    }
}
