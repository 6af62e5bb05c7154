//! A full disk: the store must say so, keep what it acknowledged, and go on when there is room again.

use crate::Error;
use crate::batch::{Batch, Keys};
use crate::process::{Folder, figures, itself};
use crate::store;
use crate::verify::verify;

/// `fill STORE FOLDER SIZE LIMIT`: commits until a file would grow beyond `limit` bytes, and tries a few times more.
pub fn fill(name: &str, folder: &str, size: &str, limit: &str) -> Result<(), Error> {
    let (size, limit) = (size.parse()?, limit.parse()?);
    let mut store = store::open(name, folder)?;
    // SAFETY: a plain system call; ignoring the signal turns a write beyond the limit into the error EFBIG.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    limit_files(limit);
    let mut sold = 0;
    let first = loop {
        match store.commit(&Batch::after(sold, size, Keys::Random)) {
            Ok(()) => sold += size as u64,
            Err(error) => break error,
        }
        if sold > 5_000_000 {
            return Err("no write ever failed".into());
        }
    };
    println!("error {}", first.to_string().replace('\n', " "));
    // What succeeds from here on counts as acknowledged too.
    let mut try_again = || match store.commit(&Batch::after(sold, size, Keys::Random)) {
        Ok(()) => {
            sold += size as u64;
            "sells on".to_string()
        }
        Err(error) => error.to_string().replace('\n', " "),
    };
    println!("again {}", try_again());
    limit_files(libc::RLIM_INFINITY);
    println!("room {}", try_again());
    println!("acknowledged {sold}");
    Ok(())
}

/// Files of this process can no longer grow beyond `limit` bytes, until the next call.
fn limit_files(limit: libc::rlim_t) {
    // SAFETY: setrlimit only reads the structure that it is given.
    unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY }) };
}

/// Fills a store up to the limit, reopens it without one, and says in words what came of it.
pub fn fill_and_reopen(name: &str, size: u64, limit: u64) -> Result<String, Error> {
    let folder = Folder::new(name)?;
    let filled = figures(&mut itself(&["fill", name, folder.text()?, &size.to_string(), &limit.to_string()])?)?;
    let acknowledged: u64 = filled["acknowledged"].parse()?;
    let mut store = store::open(name, folder.text()?)?;
    let orders = verify(&*store)?;
    let whole = match orders {
        _ if orders == acknowledged => "exactly what was acknowledged",
        _ if orders == acknowledged + size => "what was acknowledged, and the batch that was refused",
        _ => return Err(format!("{name}: {acknowledged} acknowledged, {orders} found").into()),
    };
    store.commit(&Batch::after(orders, 10, Keys::Random))?;
    verify(&*store)?;
    let [error, again, room] = ["error", "again", "room"].map(|name| &filled[name]);
    Ok(format!("{error} | {again} | {room} | {whole}; sells on"))
}
