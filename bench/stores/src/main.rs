//! Measures embedded stores at the ledger's job: small atomic batches, each on disk before its commit returns.
//!
//! Without arguments it runs the whole comparison and prints Markdown. Every figure comes from a process of its own,
//! which this program starts by running itself with one of the commands below; so the processor time and the memory of
//! one store never mix with another's.

mod batch;
mod crash;
mod full;
mod measure;
mod process;
mod report;
mod store;
mod verify;

/// What goes wrong in a benchmark is only ever printed.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => report::everything(),
        ["write", store, folder, keys, size, count] => measure::write(store, folder, keys, size, count),
        ["open", store, folder] => measure::open(store, folder),
        ["sell", store, folder, size] => crash::sell(store, folder, size),
        ["fill", store, folder, size, limit] => full::fill(store, folder, size, limit),
        _ => Err("usage: stores [write|open|sell|fill ...]; without arguments it measures everything".into()),
    };
    if let Err(error) = done {
        eprintln!("stores: {error}");
        std::process::exit(1);
    }
}
