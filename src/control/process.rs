//! Resources of the process, under the metric names that every Prometheus client library uses.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::exposition::Exposition;

/// Seconds since 1970, as of [`begin`].
static STARTED_S: LazyLock<f64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());

/// The process has started.
pub fn begin() {
    LazyLock::force(&STARTED_S);
}

impl Exposition {
    /// The process and what it was built from.
    pub fn process(&mut self) {
        let name = "spikegate_build_info";
        self.metric(name, "gauge", "Always 1; the label has the version.");
        self.value(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);

        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_s = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        self.single("process_cpu_seconds_total", "counter", "User and system CPU time of the process.", cpu_s);
        if let Some(bytes) = resident_bytes() {
            self.single("process_resident_memory_bytes", "gauge", "Resident memory of the process.", bytes);
        }
        // One of them is /proc/self/fd itself, open while it is read.
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            self.single(
                "process_open_fds",
                "gauge",
                "Open file descriptors, including connections.",
                open.count().saturating_sub(1),
            );
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.single("process_max_fds", "gauge", "Limit of open file descriptors.", most);
        }
        let name = "process_start_time_seconds";
        self.single(name, "gauge", "Start of the process, as a Unix time in seconds.", *STARTED_S);
    }
}

/// `VmRSS` of `/proc/self/status`, in kB there (proc_pid_status(5)).
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000), "{:?}", resident_bytes());
    }
}
