//! Measures Spikegate beside its peers, in one sitting.
//!
//!     suite bench   --bench bench --product target/release [--row sell] [--rounds 5] [--seconds 4] [--smoke]
//!     suite profile --bench bench --product target/release --row sell [--seconds 4]
//!     suite designs --bench bench --product target/release --docs docs/internals [--rounds 5] [--tickets 10000]
//!
//! `make bench`, `make profile` and `make bench-designs` build what is needed and call it. Without `--row`, `bench`
//! runs every workload and writes RESULTS.md. With `--smoke` it runs each workload once for a second, writes no file,
//! and fails if a contestant fails.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use contestant::Contestant;
use figure::{Sample, medians};
use results::Results;
use row::{MILLION, Row, SMOKE_BUYERS};
use testbed::Places;

mod contestant;
mod designs;
mod figure;
mod flame;
mod generator;
mod http;
mod load;
mod machine;
mod postgres;
mod process;
mod profile;
mod report;
mod results;
mod row;
mod target;
mod testbed;

/// The introduction of RESULTS.md.
const ABOUT: &str = "\
Made by `make bench`; `make bench ROW=sell` measures one row and prints it. Everything runs on one machine over
loopback: the server under test, with one worker thread, on one core; the load generator, Redis and backends on another.
Contestants take turns, each is restarted for every round, and the figures are medians of the rounds. Each contestant is
checked before it is measured, and the sold tickets are counted afterwards. CPU is user and system time
of the process per request (fields 14 and 15 of `/proc/PID/stat`). Absolute figures differ between machines and
between runs; compare the ratios. `core` is the share of its core that the server used: if it is well below 100 %, the
load generator or other work on the machine was the limit. Latencies under full load mostly measure the queue; see `tail`
for latency. The configuration files are in [conf](conf).
";

/// The command line.
struct Options {
    command: String,
    places: Places,
    row: Option<Row>,
    rounds: usize,
    seconds: u64,
    /// Run every row briefly to see whether it works; write no results.
    smoke: bool,
    tickets: usize,
    docs: PathBuf,
}

fn main() -> ExitCode {
    process::prepare();
    testbed::clear_up();
    let done = options(env::args().skip(1)).and_then(|options| match options.command.as_str() {
        "bench" => bench(&options),
        "profile" => profile(&options),
        "designs" => {
            designs::run(&options.places, &options.docs, options.rounds, options.tickets).map(|()| ExitCode::SUCCESS)
        }
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

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let tools = env::current_exe().ok().and_then(|path| Some(path.parent()?.to_path_buf())).unwrap_or_default();
    let places = Places { bench: PathBuf::from("bench"), product: PathBuf::from("target/release"), tools };
    let command = arguments.next().unwrap_or_default();
    let docs = PathBuf::from("docs/internals");
    let mut options =
        Options { command, places, row: None, rounds: 5, seconds: 4, smoke: false, tickets: 10_000, docs };
    while let Some(name) = arguments.next() {
        if name == "--smoke" {
            (options.smoke, options.rounds, options.seconds) = (true, 1, 1);
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = || format!("{name} {value} is not understood");
        match name.as_str() {
            "--bench" => options.places.bench = absolute(&value)?,
            "--product" => options.places.product = absolute(&value)?,
            "--row" => options.row = Some(Row::named(&value).ok_or_else(wrong)?),
            "--rounds" => options.rounds = value.parse().ok().filter(|&rounds| rounds > 0).ok_or_else(wrong)?,
            "--seconds" => options.seconds = value.parse().ok().filter(|&seconds| seconds > 0).ok_or_else(wrong)?,
            "--tickets" => {
                options.tickets =
                    value.parse().ok().filter(|tickets| (100..=100_000).contains(tickets)).ok_or_else(wrong)?
            }
            "--docs" => options.docs = absolute(&value)?,
            _ => return Err(wrong()),
        }
    }
    Ok(options)
}

/// Servers run in folders of their own.
fn absolute(path: &str) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))
}

fn bench(options: &Options) -> Result<ExitCode, String> {
    let start = Instant::now();
    let machine = machine::describe(&options.places, &["PostgreSQL"]);
    println!("{machine}");
    let mut results = Results::default();
    let mut text = String::new();
    for row in Row::ALL.into_iter().filter(|row| options.row.is_none_or(|wanted| wanted == *row)) {
        run(options, row, &mut results);
        let table = results.table(row);
        println!("\n{table}");
        text.push_str(&table);
        text.push('\n');
    }
    let judgement = results.judgement();
    println!("{judgement}");
    if options.row.is_none() && !options.smoke {
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        let document = format!(
            "# Results\n\n{ABOUT}\n{machine}- {} rounds of {} s, {minutes:.0} minutes in all\n\n## Targets\n\n{judgement}\n\
             ## Workloads\n\n{}\n",
            options.rounds,
            options.seconds,
            text.trim_end()
        );
        let path = options.places.bench.join("RESULTS.md");
        fs::write(&path, document).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    // A target that is missed is a result; a contestant that does not do its job is a fault.
    Ok(if results.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs all rounds of one workload. In each round every contestant runs once; a contestant that fails runs no more.
fn run(options: &Options, row: Row, results: &mut Results) {
    let mut outcomes: Vec<(Contestant, Result<Vec<Sample>, String>)> =
        row.contestants().iter().map(|&contestant| (contestant, Ok(Vec::new()))).collect();
    let buyers = if options.smoke { SMOKE_BUYERS } else { MILLION };
    let rounds = if row.once() { 1 } else { options.rounds };
    for round in 1..=rounds {
        for (contestant, outcome) in &mut outcomes {
            let Ok(samples) = outcome else { continue };
            eprintln!("{}, round {round} of {rounds}: {contestant}", row.name());
            match row.measure(&options.places, *contestant, options.seconds, buyers) {
                Ok(sample) if sample.is_empty() => *outcome = Err("no figures".to_string()),
                Ok(sample) => samples.push(sample),
                Err(reason) => *outcome = Err(reason),
            }
        }
    }
    for (contestant, outcome) in outcomes {
        results.outcomes.push((row, contestant, outcome.map(|samples| medians(&samples))));
    }
}

fn profile(options: &Options) -> Result<ExitCode, String> {
    let row = options.row.ok_or("profile needs --row")?;
    let picture = options.places.product.join(format!("profile-{}.svg", row.name()));
    let samples = profile::profile(&options.places, row, row.contestants()[0], options.seconds, &picture)?;
    println!("{} ({samples} samples)", picture.display());
    Ok(ExitCode::SUCCESS)
}
