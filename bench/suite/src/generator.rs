//! The load generators from Debian, wrk and ab: one call, and what came of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::http::EDGE;
use crate::process::run;

/// How many connections every load has, as in the article.
pub const CONNECTIONS: usize = 100;

/// What a load generator saw. Latencies are in microseconds.
#[derive(Debug)]
pub struct Load {
    pub requests: u64,
    pub seconds: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// Asks for `path` on kept connections, for so many seconds. Every answer has to be 2xx.
pub fn wrk(folder: &Path, path: &str, seconds: u64) -> Result<Load, String> {
    let mut wrk = Command::new("wrk");
    wrk.current_dir(folder).args(["-t1", "--timeout", "10s", "-s", "report.lua", "-c"]).arg(CONNECTIONS.to_string());
    wrk.arg(format!("-d{seconds}s")).arg(format!("http://{EDGE}{path}"));
    let output = run(&mut wrk, Duration::from_secs(seconds + 20))?;
    let line = output.text.lines().find(|line| line.starts_with("requests="));
    let line = line.ok_or_else(|| format!("wrk: {}", output.text.trim()))?;
    let value = |name: &str| {
        let words = line.split(' ').filter_map(|word| word.split_once('='));
        words
            .into_iter()
            .find(|(word, _)| *word == name)
            .and_then(|(_, value)| value.parse::<f64>().ok())
            .unwrap_or(f64::NAN)
    };
    if value("failed") > 0.0 {
        return Err(format!("wrk counted {} failed requests", value("failed")));
    }
    Ok(Load {
        requests: value("requests") as u64,
        seconds: value("us") / 1e6,
        p50: value("p50"),
        p99: value("p99"),
        p999: value("p999"),
    })
}

/// How long an ab is to go on.
#[derive(Clone, Copy)]
pub enum Until {
    Seconds(u64),
    Requests(u64),
}

/// Asks for `path` with a connection for each request, as the article did. Every answer has to be 2xx.
pub fn ab(folder: &Path, path: &str, until: Until) -> Result<Load, String> {
    // ab sets memory aside for every request that it may make; no server here answers more of these in a second.
    const MOST_PER_SECOND: u64 = 60_000;
    let (times, limit) = (folder.join("times.tsv"), Duration::from_secs(60));
    let mut ab = Command::new("ab");
    ab.args(["-q", "-l", "-c"]).arg(CONNECTIONS.to_string()).arg("-g").arg(&times);
    match until {
        // Without the number, a time limit would also mean at most 50,000 requests.
        Until::Seconds(seconds) => {
            ab.args(["-t", &seconds.to_string(), "-n", &(MOST_PER_SECOND * seconds).to_string()]);
        }
        Until::Requests(requests) => {
            ab.args(["-n", &requests.to_string()]);
        }
    }
    let output = run(ab.arg(format!("http://{EDGE}{path}")), limit)?;
    let value = |name: &str| {
        let line = output.text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
    };
    let (Some(requests), Some(seconds)) = (value("Complete requests:"), value("Time taken for tests:")) else {
        return Err(format!("ab: {}", output.text.trim()));
    };
    for fault in ["Failed requests:", "Non-2xx responses:"] {
        if value(fault).is_some_and(|count| count > 0.0) {
            return Err(format!("ab says {fault} {}", value(fault).unwrap_or_default()));
        }
    }
    let latencies = latencies(&times)?;
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| quantile(&latencies, share));
    Ok(Load { requests: requests as u64, seconds, p50, p99, p999 })
}

/// The value below which this share of the sorted values lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() as f64 * share) as usize).or(sorted.get(last)).copied().unwrap_or(f64::NAN)
}

/// Total times of all requests, which ab writes in whole milliseconds.
fn latencies(times: &Path) -> Result<Vec<f64>, String> {
    let text = fs::read_to_string(times).map_err(|error| error.to_string())?;
    let milliseconds = text.lines().skip(1).filter_map(|line| line.split('\t').nth(4)?.parse::<f64>().ok());
    let mut latencies: Vec<f64> = milliseconds.map(|time| time * 1000.0).collect();
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}
