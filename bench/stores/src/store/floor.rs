//! The floor: the same bytes appended to a file, and the file synced. No store can ask less of the disk.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::{Store, Table};
use crate::Error;
use crate::batch::Batch;

pub struct Floor {
    file: File,
    bytes: Vec<u8>,
}

impl Floor {
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let file = File::options().create(true).append(true).open(folder.join("ledger.bytes"))?;
        Ok(Floor { file, bytes: Vec::new() })
    }
}

impl Store for Floor {
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        self.bytes.clear();
        self.bytes.extend_from_slice(&batch.sale);
        for order in &batch.orders {
            for part in [&order.key[..], &order.record, &order.number.to_be_bytes(), &order.entry, &order.deadline] {
                self.bytes.extend_from_slice(part);
            }
        }
        self.file.write_all(&self.bytes)?;
        Ok(self.file.sync_data()?)
    }

    fn each(&self, _: Table, _: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Error> {
        Err("the floor has no records, only bytes".into())
    }
}
