//! The whole comparison: rounds in which the stores take turns, medians, Markdown tables.

use std::collections::HashMap;
use std::process::Command;

use crate::Error;
use crate::crash::{Crash, kill};
use crate::full::fill_and_reopen;
use crate::process::{Folder, disk_use, figures, itself};
use crate::store::NAMES;

const ROUNDS: usize = 3;
/// Batch sizes, and how many batches of each are timed; the last brings a store to 200,000 orders.
const SIZES: [(u64, u64); 4] = [(1, 1000), (10, 1000), (100, 500), (512, 196)];

/// Figures by their name, one from each round.
type Rounds = HashMap<String, Vec<f64>>;

/// Measures everything and prints it.
pub fn everything() -> Result<(), Error> {
    println!("Order records by their random id:\n");
    speed("random")?;
    println!("\nOrder records by their number:\n");
    speed("number")?;
    syncs()?;
    crashes()?;
    full_disk()
}

fn speed(keys: &str) -> Result<(), Error> {
    let mut found: HashMap<(&str, u64), Rounds> = HashMap::new();
    for _ in 0..ROUNDS {
        for (size, count) in SIZES {
            for name in NAMES {
                let folder = Folder::new(name)?;
                let words = ["write", name, folder.text()?, keys, &size.to_string(), &count.to_string()];
                let rounds = found.entry((name, size)).or_default();
                for (figure, value) in figures(&mut itself(&words)?)? {
                    rounds.entry(figure).or_default().push(value.parse()?);
                }
                rounds.entry("disk".into()).or_default().push(disk_use(folder.path())?);
            }
        }
    }
    println!(
        "| batch | store | commits/s | orders/s | CPU us per order | slowest commit ms | anonymous MiB | resident MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (size, _) in SIZES {
        for name in NAMES {
            let [commits, cpu, slowest, anonymous, resident] = ["commits", "cpu", "slowest", "anonymous", "resident"]
                .map(|figure| median(&found[&(name, size)][figure]));
            let orders = commits * size as f64;
            println!(
                "| {size} | {name} | {commits:.0} | {orders:.0} | {cpu:.1} | {slowest:.1} | {anonymous:.0} | {resident:.0} |"
            );
        }
    }
    println!("\n| store | MiB on disk after 200,000 orders in batches of 500, closed |\n|---|---|");
    for name in NAMES {
        println!("| {name} | {:.0} |", median(&found[&(name, SIZES[3].0)]["disk"]));
    }
    Ok(())
}

/// Counts the syncs of 100 commits as the difference between two runs under strace.
fn syncs() -> Result<(), Error> {
    println!("\n| store | fsync | fdatasync | msync | per commit, by strace |\n|---|---|---|---|---|");
    for name in NAMES {
        let (none, hundred) = (traced(name, "0")?, traced(name, "100")?);
        let per_commit = |call: &str| {
            let count = |calls: &HashMap<String, f64>| calls.get(call).copied().unwrap_or(0.0);
            (count(&hundred) - count(&none)) / 100.0
        };
        let [fsync, fdatasync, msync] = ["fsync", "fdatasync", "msync"].map(per_commit);
        println!("| {name} | {fsync:.2} | {fdatasync:.2} | {msync:.2} | {:.2} |", fsync + fdatasync + msync);
    }
    Ok(())
}

fn traced(name: &str, count: &str) -> Result<HashMap<String, f64>, Error> {
    let folder = Folder::new(name)?;
    let summary = folder.path().join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-e", "trace=fsync,fdatasync,msync", "-o"]).arg(&summary);
    command.arg(std::env::current_exe()?).args(["write", name, folder.text()?, "random", "10", count]);
    figures(&mut command)?;
    let text = std::fs::read_to_string(summary)?;
    let calls = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(((*words.last()?).to_string(), words.get(3)?.parse().ok()?))
    });
    Ok(calls.collect())
}

fn crashes() -> Result<(), Error> {
    println!("\n| store | killed | open ms | read all orders ms | MiB on disk when killed | resident MiB |");
    println!("|---|---|---|---|---|---|");
    for name in NAMES.into_iter().filter(|name| *name != "floor") {
        kill(name, 10, 500, 20)?;
        kill(name, 1, 50, 20)?;
        let Crash { open, iterate, disk, resident } = kill(name, 100, 200_000, 1)?;
        println!("| {name} | 41 times, all whole | {open:.0} | {iterate:.0} | {disk:.0} | {resident:.0} |");
    }
    Ok(())
}

fn full_disk() -> Result<(), Error> {
    println!("\nFiles limited to 16 MiB:\n");
    println!(
        "| store | first error | the same again | with room again, not reopened | reopened |\n|---|---|---|---|---|"
    );
    for name in NAMES.into_iter().filter(|name| *name != "floor") {
        let outcome = fill_and_reopen(name, 10, 16 << 20).unwrap_or_else(|error| format!("FAILED: {error} | | |"));
        println!("| {name} | {outcome} |");
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
