//! The three designs of selling, side by side: order-then-deduct, pay-then-deduct and pre-deduct
//! (docs/internals/designs.md).

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use chart::{Bar, Panel};
use scenario::{Load, Measure, PopulationResult};
use shop::Design;

use crate::figure::{medians, thousands};
use crate::machine;
use crate::testbed::Places;

mod chart;
mod crowd;
mod scenario;
mod shop;

/// Tickets of the population, and how long they are held. All payments must have come by then; a machine that is too
/// slow or too busy gets as long as the second.
const POPULATION: usize = 2_000;
const HOLDS: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(60)];

/// The text of docs/internals/designs.md between these lines is generated.
const BEGIN: &str = "<!-- `make bench-designs` writes from here -->\n";
const END: &str = "<!-- to here -->\n";

/// Colors that are told apart by everybody (Okabe and Ito).
const BLUE: &str = "#0072b2";
const ORANGE: &str = "#e69f00";
const GREEN: &str = "#009e73";
const RED: &str = "#d55e00";

/// Measures all of it, and writes the figures into designs.md and designs.svg.
pub fn run(places: &Places, docs: &Path, rounds: usize, tickets: usize) -> Result<(), String> {
    let begun = Instant::now();
    let page = docs.join("designs.md");
    let text = fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?;
    let (head, rest) = text.split_once(BEGIN).ok_or_else(|| format!("{}: no line {BEGIN}", page.display()))?;
    let (_, tail) = rest.split_once(END).ok_or_else(|| format!("{}: no line {END}", page.display()))?;

    let machine = machine::describe(places, &["nginx", "nginx Lua module", "wrk", "ab"]);
    println!("{machine}");
    let mut loads: Vec<(Design, Vec<Load>)> = Design::ALL.map(|design| (design, Vec::new())).into();
    for round in 1..=rounds {
        for (design, samples) in &mut loads {
            let load = scenario::load(places, *design, tickets).map_err(|reason| format!("{design}: {reason}"))?;
            let of = |measure| thousands(load.get(&measure).copied().unwrap_or_default());
            let (orders, refusals) = (of(Measure::SellRate), of(Measure::RefuseRate));
            eprintln!("round {round} of {rounds}, {design}: {orders} orders/s, {refusals} refusals/s");
            samples.push(load);
        }
    }
    let loads: Vec<(Design, Load)> = loads.iter().map(|(design, samples)| (*design, medians(samples))).collect();
    let mut populations = Vec::new();
    for design in Design::MAIN {
        eprintln!("those who never pay: {design}");
        let result = scenario::population(places, design, POPULATION, HOLDS[0]).or_else(|reason| {
            eprintln!("again, with a longer hold: {reason}");
            scenario::population(places, design, POPULATION, HOLDS[1])
        });
        let result = result.map_err(|reason| format!("{design}: {reason}"))?;
        populations.push((design, result));
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let figures = format!(
        "\n![The figures below as bars](designs.svg)\n\n{}\n{}\n{}\n{machine}- {rounds} rounds of {} tickets, {minutes:.1} \
         minutes in all\n\n",
        load_table("while there are tickets", &SELLING, &loads),
        load_table("once there are none", &REFUSING, &loads),
        population_table(&populations),
        thousands(tickets as f64),
    );
    println!("{figures}");
    let write = |path: &Path, text: &str| fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
    write(&docs.join("designs.svg"), &picture(&loads, &populations))?;
    write(&page, &format!("{head}{BEGIN}{figures}{END}{tail}"))
}

/// A measure, the head of its column, and its decimal places.
type Column = (Measure, &'static str, usize);

const SELLING: [Column; 10] = [
    (Measure::SellRate, "orders/s", 0),
    (Measure::SellP50, "p50 ms", 1),
    (Measure::SellP99, "p99 ms", 1),
    (Measure::EdgeCpu, "CPU µs per order: edge", 0),
    (Measure::RedisCpu, "Redis", 0),
    (Measure::OrdersCpu, "order service", 0),
    (Measure::PostgresCpu, "PostgreSQL", 0),
    (Measure::AllCpu, "all", 0),
    (Measure::SellBusy, "core, %", 0),
    (Measure::Lag, "last row after ms", 0),
];

const REFUSING: [Column; 5] = [
    (Measure::RefuseRate, "refusals/s", 0),
    (Measure::RefuseP50, "p50 ms", 1),
    (Measure::RefuseP99, "p99 ms", 1),
    (Measure::RefuseCpu, "CPU µs per refusal", 0),
    (Measure::RefuseBusy, "core, %", 0),
];

fn load_table(title: &str, columns: &[Column], loads: &[(Design, Load)]) -> String {
    let mut text = format!("| {title} |");
    for (_, title, _) in columns {
        let _ = write!(text, " {title} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(columns.len()));
    for (design, load) in loads {
        let _ = write!(text, "| {design} |");
        for (measure, _, digits) in columns {
            let shown = load.get(measure).map(|&value| match digits {
                0 => thousands(value),
                _ => format!("{value:.digits$}"),
            });
            let _ = write!(text, " {} |", shown.unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

fn population_table(populations: &[(Design, PopulationResult)]) -> String {
    let mut text =
        format!("| {} tickets, three buyers for each, 3 of 10 orders never paid |", thousands(POPULATION as f64));
    for (design, _) in populations {
        let _ = write!(text, " {design} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(populations.len()));
    type Row = (&'static str, fn(&PopulationResult) -> f64);
    let rows: [Row; 9] = [
        ("orders taken", |result| result.orders as f64),
        ("of these without a ticket", |result| result.beyond as f64),
        ("paid, and got a ticket", |result| result.paid as f64),
        ("paid, and got nothing: to be refunded", |result| result.refunds as f64),
        ("payments/s", |result| result.pay_rate),
        ("CPU µs per payment, all servers", |result| result.pay_cpu),
        ("abandoned: unpaid, and nobody can buy them before their hold ends", |result| result.abandoned as f64),
        ("of these sold and paid after the holds", |result| result.returned as f64),
        ("tickets paid in the end", |result| result.paid_in_the_end as f64),
    ];
    for (title, value) in rows {
        let _ = write!(text, "| {title} |");
        for (_, result) in populations {
            let _ = write!(text, " {} |", thousands(value(result)));
        }
        text.push('\n');
    }
    text
}

fn picture(loads: &[(Design, Load)], populations: &[(Design, PopulationResult)]) -> String {
    let bars = |parts: &[(Measure, &'static str)]| {
        loads
            .iter()
            .map(|(design, load)| Bar {
                name: design.to_string(),
                parts: parts.iter().map(|(part, color)| (load.get(part).copied().unwrap_or(0.0), *color)).collect(),
            })
            .collect()
    };
    let servers = [
        (Measure::EdgeCpu, BLUE),
        (Measure::RedisCpu, RED),
        (Measure::OrdersCpu, ORANGE),
        (Measure::PostgresCpu, GREEN),
    ];
    let populations = populations.iter().map(|(design, result)| Bar {
        name: design.to_string(),
        parts: vec![(result.paid as f64, GREEN), (result.abandoned as f64, ORANGE), (result.refunds as f64, RED)],
    });
    chart::draw(&[
        Panel {
            title: "Orders per second, while there are tickets".to_owned(),
            legend: &[],
            bars: bars(&[(Measure::SellRate, BLUE)]),
        },
        Panel {
            title: "Refusals per second, once there are none".to_owned(),
            legend: &[],
            bars: bars(&[(Measure::RefuseRate, BLUE)]),
        },
        Panel {
            title: "CPU per order, µs, until it is a row of the database".to_owned(),
            legend: &[("edge", BLUE), ("Redis", RED), ("order service", ORANGE), ("PostgreSQL", GREEN)],
            bars: bars(&servers),
        },
        Panel {
            title: format!("{} tickets when all have paid who will", thousands(POPULATION as f64)),
            legend: &[("paid, has a ticket", GREEN), ("unpaid, kept from others", ORANGE), ("paid, gets nothing", RED)],
            bars: populations.collect(),
        },
    ])
}
