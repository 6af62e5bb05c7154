//! Load that neither wrk nor ab can make: distinct buyers, a fixed rate, and connections that stay.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use floor::poll::Poll;

use crate::http::{EDGE, connect, parse};

/// How long the load may last, beyond what it was asked for, before it is called stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// How purchases ended.
#[derive(Debug, Default)]
pub struct Tally {
    pub sold: u64,
    pub refused: u64,
    pub other: u64,
    pub wall: Duration,
}

/// A connection with at most one request under way.
pub struct Client {
    pub stream: TcpStream,
    pub received: Vec<u8>,
    /// When its request should have been sent, which may be before it was.
    pub due: Instant,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self { stream: connect(address)?, received: Vec::with_capacity(4096), due: Instant::now() })
    }

    /// Reads once. True if the answer is whole; it is then in `received`.
    pub fn read(&mut self) -> Result<bool> {
        let mut piece = [0; 16384];
        match self.stream.read(&mut piece)? {
            0 => return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")),
            count => self.received.extend_from_slice(&piece[..count]),
        }
        Ok(parse(&self.received)?.is_some())
    }

    pub fn send(&mut self, request: &[u8]) -> Result<()> {
        self.received.clear();
        self.stream.write_all(request)
    }
}

/// `buyers` distinct buyers buy one ticket each, over so many connections, each as fast as it is answered.
pub fn distinct_buyers(buyers: u64, connections: usize) -> Result<Tally> {
    let mut poll = Poll::new(connections)?;
    let mut clients = clients(&poll, connections)?;
    let mut tally = Tally::default();
    let mut asked = 0;
    let mut request = Vec::new();
    let mut ask = |client: &mut Client, buyer: u64| {
        request.clear();
        write!(request, "GET /buy/ticket HTTP/1.1\r\nHost: localhost\r\nX-User-Id: buyer-{buyer}\r\n\r\n")?;
        client.send(&request)
    };
    let start = Instant::now();
    for client in clients.iter_mut().take(buyers as usize) {
        ask(client, asked)?;
        asked += 1;
    }
    let mut answered = 0;
    while answered < buyers {
        for token in poll.wait(Some(Duration::from_secs(1)))? {
            let client = &mut clients[token];
            if client.read()? {
                answered += 1;
                count(&mut tally, &client.received)?;
                if asked < buyers {
                    ask(client, asked)?;
                    asked += 1;
                }
            }
        }
        give_up_after(start, PATIENCE)?;
    }
    tally.wall = start.elapsed();
    Ok(tally)
}

/// Asks for `path` at a fixed rate, and gives the time from when each request was due to its answer, sorted. Requests
/// that find every connection busy wait, and their wait is counted.
pub fn at_rate(path: &str, per_second: f64, seconds: u64, connections: usize) -> Result<Vec<Duration>> {
    let mut poll = Poll::new(connections)?;
    let mut clients = clients(&poll, connections)?;
    let mut idle: Vec<usize> = (0..connections).collect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    let total = (per_second * seconds as f64) as usize;
    let mut latencies = Vec::with_capacity(total);
    let mut sent = 0;
    let start = Instant::now();
    while latencies.len() < total {
        while sent < total {
            let due = start + Duration::from_secs_f64(sent as f64 / per_second);
            if due > Instant::now() {
                break;
            }
            let Some(token) = idle.pop() else { break };
            clients[token].due = due;
            clients[token].send(&request)?;
            sent += 1;
        }
        // Asked without waiting, since epoll's milliseconds are far too coarse for the next request.
        for token in poll.wait(Some(Duration::ZERO))? {
            let client = &mut clients[token];
            if client.read()? {
                latencies.push(client.due.elapsed());
                idle.push(token);
            }
        }
        give_up_after(start, PATIENCE + Duration::from_secs(seconds))?;
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// Connections that were each answered 200 once and now idle.
pub struct Idle {
    _clients: Vec<Client>,
}

/// Opens connections and asks once on each, a hundred at a time, so that a proxy needs few connections to its backends.
pub fn idle(path: &str, connections: usize) -> Result<Idle> {
    const AT_ONCE: usize = 100;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    let mut all = Vec::with_capacity(connections);
    while all.len() < connections {
        let mut some =
            (0..AT_ONCE.min(connections - all.len())).map(|_| Client::connect(EDGE)).collect::<Result<Vec<_>>>()?;
        for client in &mut some {
            client.send(&request)?;
        }
        for client in &mut some {
            while !client.read()? {}
            if parse(&client.received)?.is_none_or(|answer| answer.status != 200) {
                return Err(Error::other("an idle connection was not answered 200"));
            }
            client.received = Vec::new();
        }
        all.append(&mut some);
    }
    Ok(Idle { _clients: all })
}

fn clients(poll: &Poll, count: usize) -> Result<Vec<Client>> {
    (0..count)
        .map(|token| {
            let client = Client::connect(EDGE)?;
            poll.add(&client.stream, token)?;
            Ok(client)
        })
        .collect()
}

fn count(tally: &mut Tally, bytes: &[u8]) -> Result<()> {
    let body = parse(bytes)?.map_or(&[][..], |answer| answer.body);
    if body.starts_with(br#"{"code":1,"#) {
        tally.sold += 1;
    } else if body.starts_with(br#"{"code":-1,"#) {
        tally.refused += 1;
    } else {
        tally.other += 1;
    }
    Ok(())
}

fn give_up_after(start: Instant, limit: Duration) -> Result<()> {
    if start.elapsed() > limit {
        Err(Error::new(ErrorKind::TimedOut, format!("not done after {limit:?}")))
    } else {
        Ok(())
    }
}
