//! ApacheBench, the article's own tool: HTTP/1.0, one connection for each request unless it is given `-k`.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// What a run of `ab` reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub complete: u64,
    pub failed: u64,
    pub non_2xx: u64,
    pub keep_alive: u64,
}

/// Runs `ab` with these options on a path of this address, and reads its report.
#[track_caller]
pub fn ab(options: &[&str], address: SocketAddr, path: &str) -> Report {
    let output = Command::new("ab")
        .args(options)
        .arg(format!("http://{address}{path}"))
        .stdin(Stdio::null())
        .output()
        .expect("ab is needed (Debian: apache2-utils)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let problems = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ab {options:?} ended with {}:\n{text}\n{problems}", output.status);
    let number = |label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        line.map_or(0, |rest| rest.split_whitespace().next().unwrap().parse().unwrap())
    };
    Report {
        complete: number("Complete requests:"),
        failed: number("Failed requests:"),
        non_2xx: number("Non-2xx responses:"),
        keep_alive: number("Keep-Alive requests:"),
    }
}
