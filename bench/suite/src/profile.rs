//! Where a server spends its time under one workload.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::contestant::Contestant;
use crate::flame::Frame;
use crate::process::{Process, run};
use crate::row::Row;
use crate::testbed::Places;

/// Samples a second; no multiple of what timers like to tick at, and few, since each carries a piece of the stack.
const RATE: &str = "499";

/// Runs the workload against a contestant and leaves a flame graph in `picture`.
pub fn profile(places: &Places, row: Row, contestant: Contestant, seconds: u64, picture: &Path) -> Result<u64, String> {
    let testbed = row.testbed(places, contestant, seconds)?;
    let (data, log) = (testbed.folder().join("perf.data"), testbed.folder().join("perf.log"));
    let mut record = Command::new("perf");
    // Frame pointers would cost less, but the C library has none, and every system call is made there.
    record.args(["record", "--call-graph", "dwarf,16384", "-F", RATE, "-o"]).arg(&data);
    let mut recorder = Process::start(record.args(["-p", &testbed.edge.id().to_string()]), &log, false)?;
    std::thread::sleep(Duration::from_millis(500));
    if recorder.has_ended() {
        let reason = fs::read_to_string(&log).unwrap_or_default();
        return Err(format!("perf cannot watch processes on this machine, so there is no flame graph:\n{reason}"));
    }
    row.load(&testbed, seconds)?;
    // It writes down what it has when it is asked to end.
    drop(recorder);
    let script = run(
        Command::new("perf").args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"]).arg(&data),
        Duration::from_secs(120),
    )?;
    let frames = Frame::read(&script.text);
    if frames.samples() == 0 {
        return Err(format!("perf has seen nothing, so there is no flame graph:\n{}", script.text));
    }
    let title = format!("{contestant}: {}", row.title());
    fs::write(picture, frames.picture(&title)).map_err(|error| error.to_string())?;
    Ok(frames.samples())
}
