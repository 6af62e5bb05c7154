//! wrk: as many requests on kept connections as fit into a duration.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// What a run of `wrk` reported.
#[derive(Debug, PartialEq)]
pub struct Report {
    pub requests: u64,
    /// Answers that are neither 2xx nor 3xx.
    pub non_2xx: u64,
    /// Connections refused, reset or timed out, together; none if it reports none.
    pub socket_errors: u64,
}

/// Runs `wrk` with these options on a path of this address, and reads its report.
#[track_caller]
pub fn wrk(options: &[&str], address: SocketAddr, path: &str) -> Report {
    let output = Command::new("wrk")
        .args(options)
        .arg(format!("http://{address}{path}"))
        .stdin(Stdio::null())
        .output()
        .expect("wrk is needed (Debian: wrk)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "wrk {options:?} ended with {}:\n{text}", output.status);
    let line = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")).map(|(count, _)| count);
    Report {
        requests: requests.unwrap().parse().unwrap(),
        non_2xx: line("Non-2xx or 3xx responses:").map_or(0, |count| count.trim().parse().unwrap()),
        // `Socket errors: connect 0, read 1, write 2, timeout 3`
        socket_errors: line("Socket errors:")
            .map_or(0, |kinds| kinds.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum()),
    }
}
