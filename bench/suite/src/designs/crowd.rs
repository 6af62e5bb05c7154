//! People who buy and pay: each connection has one request under way, and each request says what it wants.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use floor::poll::Poll;

use crate::generator::{CONNECTIONS, quantile};
use crate::http::{Answer, parse};
use crate::load::Client;

/// How long nothing may be answered before the crowd gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a crowd saw.
#[derive(Debug, Default)]
pub struct Timing {
    /// From the first request to the last answer.
    pub wall: Duration,
    /// From each request to its answer in microseconds, sorted.
    latencies: Vec<f64>,
}

impl Timing {
    pub fn latency(&self, share: f64) -> f64 {
        quantile(&self.latencies, share)
    }
}

/// As long as `request` writes another request, it is sent by the next connection that is free; it gives a number for
/// it, by which `answer` is told of the answer.
pub fn crowd(
    address: SocketAddr,
    mut request: impl FnMut(&mut Vec<u8>) -> Option<usize>,
    mut answer: impl FnMut(usize, &Answer<'_>) -> std::result::Result<(), String>,
) -> Result<Timing> {
    let mut poll = Poll::new(CONNECTIONS)?;
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for token in 0..CONNECTIONS {
        let client = Client::connect(address)?;
        poll.add(&client.stream, token)?;
        clients.push((client, 0));
    }
    let mut timing = Timing::default();
    let mut bytes = Vec::new();
    let mut ask = |(client, number): &mut (Client, usize)| -> Result<bool> {
        bytes.clear();
        let Some(next) = request(&mut bytes) else { return Ok(false) };
        *number = next;
        client.due = Instant::now();
        client.send(&bytes)?;
        Ok(true)
    };
    let start = Instant::now();
    let mut under_way = 0;
    for client in &mut clients {
        under_way += usize::from(ask(client)?);
    }
    let mut last = start;
    while under_way > 0 {
        for token in poll.wait(Some(Duration::from_secs(1)))? {
            let client = &mut clients[token];
            if !client.0.read()? {
                continue;
            }
            last = Instant::now();
            timing.latencies.push((last - client.0.due).as_secs_f64() * 1e6);
            if let Some(whole) = parse(&client.0.received)? {
                answer(client.1, &whole).map_err(Error::other)?;
            }
            under_way -= usize::from(!ask(client)?);
        }
        if last.elapsed() > PATIENCE {
            return Err(Error::new(ErrorKind::TimedOut, format!("no answer in {PATIENCE:?}")));
        }
    }
    timing.wall = last - start;
    timing.latencies.sort_by(f64::total_cmp);
    Ok(timing)
}
