//! What the job asks of a store, and the stores by name.

mod fjall;
mod floor;
mod lmdb;
mod redb;
mod sqlite;

use std::path::Path;

use crate::Error;
use crate::batch::Batch;

/// The kinds of records; a table each where a store has tables.
#[derive(Clone, Copy)]
pub enum Table {
    /// The one record of the sale.
    Sale,
    /// Order records by id.
    Orders,
    /// The log by number.
    Log,
    /// Deadlines in the order of time.
    Deadlines,
}

/// A store at the ledger's job.
pub trait Store {
    /// Writes the batch at once and returns when it would survive a power cut.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Shows every record of a table in the order of keys.
    fn each(&self, table: Table, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Error>;
}

/// Those that are compared; `floor` appends the same bytes to a file and syncs it.
pub const NAMES: [&str; 6] = ["redb", "redb-quick", "fjall", "lmdb", "sqlite", "floor"];

/// Opens or creates the store of that name in an existing folder.
pub fn open(name: &str, folder: &str) -> Result<Box<dyn Store>, Error> {
    let folder = Path::new(folder);
    Ok(match name {
        "redb" => Box::new(redb::Redb::open(folder, false)?),
        "redb-quick" => Box::new(redb::Redb::open(folder, true)?),
        "fjall" => Box::new(fjall::Fjall::open(folder)?),
        "lmdb" => Box::new(lmdb::Lmdb::open(folder)?),
        "sqlite" => Box::new(sqlite::Sqlite::open(folder)?),
        "floor" => Box::new(floor::Floor::open(folder)?),
        _ => return Err(format!("no store is named {name}").into()),
    })
}
