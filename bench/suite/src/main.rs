//! Measures Spikegate beside its peers, in one sitting.
//!
//!     suite bench   --bench bench --product target/release [--row a] [--rounds 5] [--seconds 4]
//!     suite profile --bench bench --product target/release --row a [--seconds 4]
//!     suite designs --bench bench --product target/release --docs docs/internals [--rounds 5] [--tickets 10000]
//!
//! `make bench`, `make profile` and `make bench-designs` build what is needed and call it. Without `--row`, `bench`
//! runs every workload and writes RESULTS.md.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use contestant::Contestant;
use figure::{Sample, medians};
use report::Results;
use row::Row;
use stand::Places;

mod contestant;
mod designs;
mod figure;
mod flame;
mod generator;
mod http;
mod load;
mod machine;
mod process;
mod profile;
mod report;
mod row;
mod stand;
mod target;

/// What the results are introduced with.
const ABOUT: &str = "\
Made by `make bench`; `make bench ROW=a` measures one workload and prints it. Everything runs on one machine over
loopback: the server under test, with one worker thread, on one core; the load generator, Redis and backends on another.
Contestants take turns, each started anew for every round, and the figures are medians of the rounds. A contestant has
to show that it does the job before it is measured, and what was sold is counted afterwards. CPU is user and system time
of the process per request (fields 14 and 15 of `/proc/PID/stat`). Absolute figures differ from machine to machine and
from run to run; the ratios count. `core` is the share of its core that the server had: well below 100 %, something
else was the limit, the load generator or other work on the machine. Latencies under full load say how long the queue
is; `tail` is the one to read for latency. The configuration files are in [conf](conf).
";

/// What is asked for on the command line.
struct Wish {
    command: String,
    places: Places,
    row: Option<Row>,
    rounds: usize,
    seconds: u64,
    tickets: usize,
    docs: PathBuf,
}

fn main() -> ExitCode {
    process::prepare();
    stand::clear_up();
    let done = wish(env::args().skip(1)).and_then(|wish| match wish.command.as_str() {
        "bench" => bench(&wish),
        "profile" => profile(&wish),
        "designs" => designs::run(&wish.places, &wish.docs, wish.rounds, wish.tickets).map(|()| ExitCode::SUCCESS),
        other => Err(format!("bench, profile or designs, not {other:?}")),
    });
    match done {
        Ok(code) => code,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn wish(mut arguments: impl Iterator<Item = String>) -> Result<Wish, String> {
    let tools = env::current_exe().ok().and_then(|path| Some(path.parent()?.to_path_buf())).unwrap_or_default();
    let places = Places { bench: PathBuf::from("bench"), product: PathBuf::from("target/release"), tools };
    let command = arguments.next().unwrap_or_default();
    let docs = PathBuf::from("docs/internals");
    let mut wish = Wish { command, places, row: None, rounds: 5, seconds: 4, tickets: 10_000, docs };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = || format!("{name} {value} is not understood");
        match name.as_str() {
            "--bench" => wish.places.bench = absolute(&value)?,
            "--product" => wish.places.product = absolute(&value)?,
            "--row" => wish.row = Some(Row::named(&value).ok_or_else(wrong)?),
            "--rounds" => wish.rounds = value.parse().ok().filter(|&rounds| rounds > 0).ok_or_else(wrong)?,
            "--seconds" => wish.seconds = value.parse().ok().filter(|&seconds| seconds > 0).ok_or_else(wrong)?,
            "--tickets" => {
                wish.tickets =
                    value.parse().ok().filter(|tickets| (100..=100_000).contains(tickets)).ok_or_else(wrong)?
            }
            "--docs" => wish.docs = absolute(&value)?,
            _ => return Err(wrong()),
        }
    }
    Ok(wish)
}

/// Servers run in folders of their own.
fn absolute(path: &str) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))
}

fn bench(wish: &Wish) -> Result<ExitCode, String> {
    let start = Instant::now();
    let machine = machine::describe(&wish.places, &["PostgreSQL"]);
    println!("{machine}");
    let mut results = Results::default();
    let mut text = String::new();
    for row in Row::ALL.into_iter().filter(|row| wish.row.is_none_or(|wanted| wanted == *row)) {
        run(wish, row, &mut results);
        let table = results.table(row);
        println!("\n{table}");
        text.push_str(&table);
        text.push('\n');
    }
    let judgement = results.judgement();
    println!("{judgement}");
    if wish.row.is_none() {
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        let document = format!(
            "# Results\n\n{ABOUT}\n{machine}- {} rounds of {} s, {minutes:.0} minutes in all\n\n## Targets\n\n{judgement}\n\
             ## Workloads\n\n{}\n",
            wish.rounds,
            wish.seconds,
            text.trim_end()
        );
        let path = wish.places.bench.join("RESULTS.md");
        fs::write(&path, document).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    // A target that is missed is a result; a contestant that does not do its job is a fault.
    Ok(if results.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All rounds of one workload. In each round every contestant has its turn; who fails once is out.
fn run(wish: &Wish, row: Row, results: &mut Results) {
    let mut outcomes: Vec<(Contestant, Result<Vec<Sample>, String>)> =
        row.contestants().iter().map(|&contestant| (contestant, Ok(Vec::new()))).collect();
    let rounds = if row.once() { 1 } else { wish.rounds };
    for round in 1..=rounds {
        for (contestant, outcome) in &mut outcomes {
            let Ok(samples) = outcome else { continue };
            eprintln!("{}, round {round} of {rounds}: {contestant}", row.name());
            match row.measure(&wish.places, *contestant, wish.seconds) {
                Ok(sample) => samples.push(sample),
                Err(reason) => *outcome = Err(reason),
            }
        }
    }
    for (contestant, outcome) in outcomes {
        results.outcomes.push((row, contestant, outcome.map(|samples| medians(&samples))));
    }
}

fn profile(wish: &Wish) -> Result<ExitCode, String> {
    let row = wish.row.ok_or("profile needs --row")?;
    let picture = wish.places.product.join(format!("profile-{}.svg", row.name()));
    let samples = profile::profile(&wish.places, row, row.contestants()[0], wish.seconds, &picture)?;
    println!("{} ({samples} samples)", picture.display());
    Ok(ExitCode::SUCCESS)
}
