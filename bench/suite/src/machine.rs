//! Where and with what the figures were measured.

use std::fs;

use crate::postgres;
use crate::process::first_line;
use crate::testbed::Places;

/// A list of the machine and of the versions of all that takes part, without those that do not.
pub fn describe(places: &Places, without: &[&str]) -> String {
    let spikegate = places.product.join("spikegate");
    let repository = places.bench.to_string_lossy();
    let facts = [
        ("date", first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("processor", processor()),
        ("memory", memory()),
        ("load before", load()),
        ("kernel", first_line("uname", &["-sr"])),
        ("Spikegate", {
            let revision = first_line("git", &["-C", &repository, "describe", "--always", "--dirty"]);
            format!("{}, revision {revision}", first_line(&spikegate.to_string_lossy(), &["--version"]))
        }),
        ("Rust", first_line("rustc", &["--version"])),
        ("nginx", first_line("nginx", &["-v"])),
        ("nginx Lua module", package("libnginx-mod-http-lua")),
        ("Redis", first_line("redis-server", &["--version"])),
        ("PostgreSQL", postgres::version()),
        ("wrk", package("wrk")),
        ("ab", package("apache2-utils")),
    ];
    let facts = facts.iter().filter(|(name, _)| !without.contains(name));
    facts.map(|(name, fact)| format!("- {name}: {fact}\n")).collect()
}

fn package(name: &str) -> String {
    first_line("dpkg-query", &["-W", "-f", "${Version} (Debian)\n", name])
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name)
        .collect();
    format!("{} cores, {}", models.len(), models.first().unwrap_or(&"unknown"))
}

/// What others were doing at the time.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{} (average over a minute)", text.split(' ').next().unwrap_or("unknown"))
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    format!("{} GiB", total.unwrap_or(0) >> 20)
}
