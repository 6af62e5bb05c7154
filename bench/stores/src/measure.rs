//! Speed, processor time and memory of one store: the commands `write` and `open`, each in a process of its own.

use std::time::Instant;

use crate::batch::{Batch, Keys};
use crate::process::{memory, processor_time};
use crate::verify::verify;
use crate::{Error, store};

/// Orders that a store holds before the clock starts, so that its trees have their depth.
pub const BEFORE: u64 = 100_000;

/// `write STORE FOLDER KEYS SIZE COUNT`: commits `count` batches of `size` orders after those that it starts with.
pub fn write(name: &str, folder: &str, keys: &str, size: &str, count: &str) -> Result<(), Error> {
    let (keys, size, count): (_, usize, u64) = (Keys::named(keys)?, size.parse()?, count.parse()?);
    let mut store = store::open(name, folder)?;
    let mut sold = 0;
    while sold < BEFORE {
        store.commit(&Batch::after(sold, 500, keys))?;
        sold += 500;
    }
    let batches: Vec<Batch> = (0..count).map(|batch| Batch::after(sold + batch * size as u64, size, keys)).collect();

    let (start, used) = (Instant::now(), processor_time());
    let mut took = Vec::with_capacity(batches.len());
    for batch in &batches {
        let before = start.elapsed();
        store.commit(batch)?;
        took.push(start.elapsed() - before);
    }
    let (seconds, used) = (start.elapsed().as_secs_f64(), processor_time() - used);

    drop(batches);
    println!("commits {}", count as f64 / seconds);
    println!("cpu {}", used / (count * size as u64) as f64);
    if let Some(slowest) = took.iter().max() {
        println!("slowest {}", slowest.as_secs_f64() * 1e3);
    }
    println!("anonymous {}", memory("RssAnon")?);
    println!("resident {}", memory("VmRSS")?);
    Ok(())
}

/// `open STORE FOLDER`: opens what is there, reads and checks all of it.
pub fn open(name: &str, folder: &str) -> Result<(), Error> {
    let start = Instant::now();
    let store = store::open(name, folder)?;
    println!("open {}", start.elapsed().as_secs_f64() * 1e3);

    let start = Instant::now();
    let mut orders = 0;
    store.each(store::Table::Orders, &mut |_, _| orders += 1)?;
    println!("iterate {}", start.elapsed().as_secs_f64() * 1e3);
    println!("resident {}", memory("VmRSS")?);
    println!("orders {}", verify(&*store)?);
    Ok(())
}
