//! Many clients at the same time.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::answer::Answer;
use super::client::{Connection, Request};

/// `clients` threads, each with a connection that it keeps, make `count` requests in all. Client `c` talks to address
/// `c % addresses.len()`; request `n` is `request(n)`. The answers stand at the numbers of their requests; a request
/// whose connection broke has an error instead.
pub fn try_crowd(
    clients: usize,
    count: usize,
    addresses: &[SocketAddr],
    request: impl Fn(usize) -> Request + Sync,
) -> Vec<io::Result<Answer>> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<Option<io::Result<Answer>>>> = Mutex::new((0..count).map(|_| None).collect());
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (next, answers, request) = (&next, &answers, &request);
            scope.spawn(move || {
                let address = addresses[client % addresses.len()];
                let mut connection = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let answer = ask(&mut connection, address, &request(number));
                    answers.lock().unwrap()[number] = Some(answer);
                }
            });
        }
    });
    answers.into_inner().unwrap().into_iter().map(Option::unwrap).collect()
}

fn ask(connection: &mut Option<Connection>, address: SocketAddr, request: &Request) -> io::Result<Answer> {
    let mut own = match connection.take() {
        Some(own) => own,
        None => Connection::try_to(address)?,
    };
    let answer = own.try_ask(request)?;
    *connection = Some(own);
    Ok(answer)
}

/// Like [`try_crowd`], where nothing may break.
#[track_caller]
pub fn crowd(
    clients: usize,
    count: usize,
    addresses: &[SocketAddr],
    request: impl Fn(usize) -> Request + Sync,
) -> Vec<Answer> {
    let answers = try_crowd(clients, count, addresses, request);
    answers.into_iter().map(|answer| answer.expect("every request of a crowd is answered")).collect()
}
