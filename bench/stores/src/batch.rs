//! Batches of orders in the form in which a ledger writes them.

use crate::Error;

/// What order records are found by, which decides how many pages a batch touches.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keys {
    /// The order's id: every record lands on another page.
    Random,
    /// The order's number: a batch fills one page after the other, and whoever reads by id keeps a map in memory.
    Number,
}

impl Keys {
    /// By the word that the command line has for it.
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "random" => Ok(Keys::Random),
            "number" => Ok(Keys::Number),
            _ => Err(format!("keys are random or number, not {name}").into()),
        }
    }
}

/// One purchase: three of its batch's writes.
pub struct Order {
    /// The number of its log entry; orders are numbered without gaps.
    pub number: u64,
    /// What its record is found by.
    pub key: [u8; 16],
    /// The order's record; begins with its number.
    pub record: [u8; 60],
    /// The log entry: its number, its batch's first number, its batch's length, and filling.
    pub entry: [u8; 60],
    /// When its hold ends, then its number: an index entry without a value.
    pub deadline: [u8; 16],
}

/// One atomic write: the sale's record and three writes for each order.
pub struct Batch {
    /// The sale's record; begins with how many orders were sold, this batch included.
    pub sale: [u8; 100],
    /// At least one.
    pub orders: Vec<Order>,
}

impl Batch {
    /// The batch that follows after `sold` orders.
    pub fn after(sold: u64, size: usize, keys: Keys) -> Self {
        let mut sale = [7; 100];
        sale[..8].copy_from_slice(&(sold + size as u64).to_be_bytes());
        let orders = (sold..).take(size).map(|number| Order::new(number, sold, size as u64, keys)).collect();
        Batch { sale, orders }
    }
}

impl Order {
    fn new(number: u64, first: u64, size: u64, keys: Keys) -> Self {
        let [mut record, mut entry] = [[9; 60]; 2];
        record[..8].copy_from_slice(&number.to_be_bytes());
        entry[..8].copy_from_slice(&number.to_be_bytes());
        entry[8..16].copy_from_slice(&first.to_be_bytes());
        entry[16..24].copy_from_slice(&size.to_be_bytes());
        let mut deadline = [0; 16];
        // A hundred orders share a millisecond, as they would in a rush.
        deadline[..8].copy_from_slice(&(1_800_000_000_000 + number / 100).to_be_bytes());
        deadline[8..].copy_from_slice(&number.to_be_bytes());
        let key = match keys {
            Keys::Random => id_of(number),
            Keys::Number => u128::from(number).to_be_bytes(),
        };
        Order { number, key, record, entry, deadline }
    }
}

/// Random to a store, but the same in every run, so that the check can compute what must be there.
pub fn id_of(number: u64) -> [u8; 16] {
    fastrand::Rng::with_seed(number).u128(..).to_be_bytes()
}
