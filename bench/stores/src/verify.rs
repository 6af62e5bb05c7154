//! Checks that a store contains whole batches only.

use crate::Error;
use crate::batch::id_of;
use crate::store::{Store, Table};

/// Reads a whole store with random keys; returns how many orders it holds if every table agrees and no batch is there
/// in part.
pub fn verify(store: &dyn Store) -> Result<u64, Error> {
    let mut sold = 0;
    store.each(Table::Sale, &mut |_, value| sold = number_at(value, 0))?;

    let mut logged = 0;
    let mut batch_end = 0;
    let mut fault = None;
    store.each(Table::Log, &mut |key, value| {
        if number_at(key, 0) != logged || number_at(value, 0) != logged {
            fault.get_or_insert(format!("log entry {logged} is missing or wrong"));
        }
        batch_end = number_at(value, 8) + number_at(value, 16);
        logged += 1;
    })?;

    let mut orders = 0;
    store.each(Table::Orders, &mut |key, value| {
        let number = number_at(value, 0);
        if number >= logged || key != id_of(number) {
            fault.get_or_insert(format!("order {number} is not the one that the log tells of"));
        }
        orders += 1;
    })?;

    let mut deadlines = 0;
    store.each(Table::Deadlines, &mut |_, _| deadlines += 1)?;

    if let Some(fault) = fault {
        return Err(fault.into());
    }
    if [logged, batch_end, orders, deadlines] != [sold; 4] {
        let found = format!("log {logged}, batches {batch_end}, orders {orders}, deadlines {deadlines}");
        return Err(format!("a partial batch: the sale says {sold}, but {found}").into());
    }
    Ok(sold)
}

fn number_at(bytes: &[u8], start: usize) -> u64 {
    bytes.get(start..start + 8).and_then(|part| part.try_into().ok()).map_or(u64::MAX, u64::from_be_bytes)
}
