//! SIGKILL in the middle of writing: every acknowledged batch must be there afterwards, and none in part.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use crate::Error;
use crate::batch::{Batch, Keys};
use crate::process::{Folder, disk_use, figures, itself};
use crate::store;
use crate::verify::verify;

/// What a store was like after its process was killed.
pub struct Crash {
    /// How long it took to open, in ms.
    pub open: f64,
    /// How long it took to read all orders, in ms.
    pub iterate: f64,
    /// What it took on disk when it was killed, in MiB.
    pub disk: f64,
    /// Resident memory of the process that opened and read it, in MiB.
    pub resident: f64,
}

/// `sell STORE FOLDER SIZE`: commits batches without end and writes one byte to standard output for each.
pub fn sell(name: &str, folder: &str, size: &str) -> Result<(), Error> {
    let size = size.parse()?;
    let mut store = store::open(name, folder)?;
    let mut sold = verify(&*store)?;
    loop {
        store.commit(&Batch::after(sold, size, Keys::Random))?;
        std::io::stdout().write_all(b".").and_then(|()| std::io::stdout().flush())?;
        sold += size as u64;
    }
}

/// Lets a child sell until `enough` orders are acknowledged, kills it at some moment after that, and checks the store.
/// The same folder is then sold from and killed again, `kills` times in all.
pub fn kill(name: &str, size: u64, enough: u64, kills: u64) -> Result<Crash, Error> {
    let folder = Folder::new(name)?;
    let mut last = Crash { open: 0.0, iterate: 0.0, disk: 0.0, resident: 0.0 };
    let mut there = 0;
    for _ in 0..kills {
        let words = ["sell", name, folder.text()?, &size.to_string()];
        let mut child = itself(&words)?.stdout(Stdio::piped()).spawn()?;
        let mut acknowledged = there;
        let mut output = child.stdout.take().ok_or("the child has no output")?;
        let mut byte = [0];
        while acknowledged < there + enough && output.read(&mut byte)? == 1 {
            acknowledged += size;
        }
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..20_000)));
        child.kill()?;
        child.wait()?;
        // What was acknowledged after we stopped reading is still in the pipe.
        let mut rest = Vec::new();
        output.read_to_end(&mut rest)?;
        acknowledged += rest.len() as u64 * size;

        last.disk = disk_use(folder.path())?;
        let found = figures(&mut itself(&["open", name, folder.text()?])?)?;
        let figure = |name: &str| -> Result<f64, Error> { Ok(found[name].parse()?) };
        (last.open, last.iterate, last.resident) = (figure("open")?, figure("iterate")?, figure("resident")?);
        let orders = found["orders"].parse()?;
        // The batch under way may have reached the disk before the kill kept its acknowledgement back.
        if orders != acknowledged && orders != acknowledged + size {
            return Err(format!("{name}: {acknowledged} orders acknowledged, {orders} found").into());
        }
        there = orders;
    }
    Ok(last)
}
