//! The workloads: who takes part, how each is checked, loaded and counted.

use std::time::Duration;

use crate::contestant::Contestant::{self, Embedded, Floor, FloorClosing, Lua, Proxy, Redis, RedisSynced, Return};
use crate::figure::{Figure, Sample};
use crate::generator::{CONNECTIONS, Load, Until, ab, quantile, wrk};
use crate::http::{EDGE, get};
use crate::load;
use crate::stand::{LARGE, Places, SMALL, Stand};

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    A,
    B,
    C,
    D,
    E,
    F,
    G,
    H,
    Tail,
}

/// More than can be sold in a run.
const PLENTY: u64 = 1_000_000_000;
/// Of the article's 10,000 requests 150 got a ticket.
const MIX_TICKETS_PER_10_000: u64 = 150;
/// In a second of the article's mix, so that a run takes about as long as the others.
const MIX_PER_SECOND: u64 = 20_000;
const MILLION: u64 = 1_000_000;
const TICKETS: u64 = 10_000;
const IDLE: usize = 10_000;

const BUY: &str = "/buy/ticket";
const SOLD_OUT: &str = r#"{"code":-1,"msg":"已售罄"}"#;

impl Row {
    pub const ALL: [Self; 9] = [Self::A, Self::B, Self::C, Self::D, Self::E, Self::F, Self::G, Self::H, Self::Tail];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|row| row.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::D => "d",
            Self::E => "e",
            Self::F => "f",
            Self::G => "g",
            Self::H => "h",
            Self::Tail => "tail",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::A => "refuse, keep-alive (wrk)",
            Self::B => "refuse, a connection per request (ab)",
            Self::C => "sell, every request succeeds, order recorded before the answer (wrk)",
            Self::D => "the article's mix: 1.5 % are sold a ticket, a connection per request (ab)",
            Self::E => "proxy a small answer to four backends (wrk)",
            Self::F => "proxy 100 KiB (wrk)",
            Self::G => "resident memory per idle keep-alive connection, 10,000 of them",
            Self::H => "one million purchases by one million buyers for 10,000 tickets",
            Self::Tail => "refuse at half of its own top rate, latencies from when each request was due",
        }
    }

    pub fn contestants(self) -> &'static [Contestant] {
        match self {
            Self::A => &[Redis, Embedded, Return, Lua, Floor],
            Self::B => &[Redis, Embedded, Return, Lua, FloorClosing],
            Self::C => &[Redis, RedisSynced, Embedded, Lua],
            Self::D | Self::H => &[Redis, Embedded, Lua],
            Self::E | Self::F => &[Redis, Proxy],
            Self::G => &[Redis, Lua, Proxy],
            Self::Tail => &[Redis, Lua],
        }
    }

    /// Whether one round says it all: what is counted does not scatter, or is exact.
    pub fn once(self) -> bool {
        matches!(self, Self::G | Self::H)
    }

    fn tickets(self, seconds: u64) -> u64 {
        match self {
            Self::A | Self::B | Self::Tail => 1,
            Self::D => seconds * MIX_PER_SECOND * MIX_TICKETS_PER_10_000 / 10_000,
            Self::H => TICKETS,
            Self::C | Self::E | Self::F | Self::G => PLENTY,
        }
    }

    /// One run of one contestant, from its start to its end.
    pub fn measure(self, places: &Places, contestant: Contestant, seconds: u64) -> Result<Sample, String> {
        if self == Self::G {
            return memory(places, contestant);
        }
        let stand = self.stand(places, contestant, seconds)?;
        match self {
            Self::H => million(&stand),
            Self::Tail => tail(&stand, seconds),
            _ => self.throughput(&stand, seconds),
        }
    }

    /// A contestant that has shown that it does this workload's job.
    pub fn stand(self, places: &Places, contestant: Contestant, seconds: u64) -> Result<Stand, String> {
        let stand = Stand::start(places, contestant, self.tickets(seconds), matches!(self, Self::E | Self::F))?;
        match self {
            Self::A | Self::B | Self::Tail => {
                if contestant.sells() {
                    expect_sold()?;
                }
                expect(BUY, SOLD_OUT.as_bytes())?;
            }
            Self::C => expect_sold()?,
            Self::E => expect("/small", SMALL.as_bytes())?,
            Self::F => expect("/large", &[b'x'; LARGE])?,
            Self::D | Self::G | Self::H => {}
        }
        Ok(stand)
    }

    /// The load of this workload.
    pub fn load(self, stand: &Stand, seconds: u64) -> Result<Load, String> {
        match self {
            Self::B => ab(stand.folder(), BUY, Until::Seconds(seconds)),
            Self::D => ab(stand.folder(), BUY, Until::Requests(seconds * MIX_PER_SECOND)),
            Self::E => wrk(stand.folder(), "/small", seconds),
            Self::F => wrk(stand.folder(), "/large", seconds),
            Self::A | Self::C | Self::G | Self::H | Self::Tail => wrk(stand.folder(), BUY, seconds),
        }
    }

    fn throughput(self, stand: &Stand, seconds: u64) -> Result<Sample, String> {
        let sold_before = if stand.contestant.sells() { stand.sold()? } else { 0 };
        let before = stand.cpu();
        let load = self.load(stand, seconds)?;
        let after = stand.cpu();
        if stand.contestant.sells() {
            let sold = stand.sold()? - sold_before;
            let (least, most) = match self {
                // When its time is up, wrk no longer listens for the answers to what it has just asked.
                Self::C => (load.requests, load.requests + CONNECTIONS as u64),
                Self::D => (self.tickets(seconds), self.tickets(seconds)),
                _ => (0, 0),
            };
            if sold < least || sold > most {
                return Err(format!("{} requests, and {sold} sold, not {least} to {most}", load.requests));
            }
        }
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / load.requests as f64;
        let mut sample = Sample::from([
            (Figure::Rate, load.requests as f64 / load.seconds),
            (Figure::Edge, each(after.0 - before.0)),
            (Figure::Busy, (after.0 - before.0).as_secs_f64() / load.seconds * 100.0),
            (Figure::P50, load.p50),
            (Figure::P99, load.p99),
            (Figure::P999, load.p999),
        ]);
        // Where nothing is sold, Redis has nothing to do but to be asked how things are.
        if let (Some(before), Some(after)) = (before.1, after.1) {
            sample.insert(Figure::Redis, each(after - before));
        }
        Ok(sample)
    }
}

fn million(stand: &Stand) -> Result<Sample, String> {
    let before = stand.cpu();
    let tally = load::distinct_buyers(MILLION, CONNECTIONS).map_err(|error| error.to_string())?;
    let after = stand.cpu();
    let sold = stand.sold()?;
    if (tally.sold, tally.refused, tally.other, sold) != (TICKETS, MILLION - TICKETS, 0, TICKETS) {
        return Err(format!("{tally:?}, and the ledger says that {sold} are sold"));
    }
    let wall = tally.wall.as_secs_f64();
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / MILLION as f64;
    let mut sample = Sample::from([
        (Figure::Rate, MILLION as f64 / wall),
        (Figure::Edge, each(after.0 - before.0)),
        (Figure::Sold, tally.sold as f64),
        (Figure::Refused, tally.refused as f64),
        (Figure::Wall, wall),
    ]);
    if let (Some(before), Some(after)) = (before.1, after.1) {
        sample.insert(Figure::Redis, each(after - before));
    }
    if stand.contestant.is_spikegate() {
        sample.insert(Figure::Attempts, stand.attempts()? as f64);
    }
    Ok(sample)
}

/// The top rate is found first, each time anew, since half of it is what the server is then asked for.
fn tail(stand: &Stand, seconds: u64) -> Result<Sample, String> {
    let top = wrk(stand.folder(), BUY, seconds.min(2))?;
    let rate = top.requests as f64 / top.seconds / 2.0;
    let before = stand.cpu();
    let latencies = load::at_rate(BUY, rate, seconds, CONNECTIONS).map_err(|error| error.to_string())?;
    let after = stand.cpu();
    let us: Vec<f64> = latencies.iter().map(|latency| latency.as_secs_f64() * 1e6).collect();
    Ok(Sample::from([
        (Figure::Rate, rate),
        (Figure::Edge, (after.0 - before.0).as_secs_f64() * 1e6 / us.len() as f64),
        (Figure::P50, quantile(&us, 0.5)),
        (Figure::P99, quantile(&us, 0.99)),
        (Figure::P999, quantile(&us, 0.999)),
    ]))
}

fn memory(places: &Places, contestant: Contestant) -> Result<Sample, String> {
    let mut sample = Sample::new();
    if contestant.sells() {
        sample.insert(Figure::AfterPurchase, idle_memory(places, contestant, BUY)?);
    }
    if contestant.proxies() {
        sample.insert(Figure::AfterProxied, idle_memory(places, contestant, "/small")?);
    }
    Ok(sample)
}

fn idle_memory(places: &Places, contestant: Contestant, path: &str) -> Result<f64, String> {
    let stand = Stand::start(places, contestant, PLENTY, contestant.proxies())?;
    let (status, _) = get(EDGE, path).map_err(|error| error.to_string())?;
    if status != 200 {
        return Err(format!("{path} is answered {status}"));
    }
    let before = stand.edge.resident();
    let idle = load::idle(path, IDLE).map_err(|error| error.to_string())?;
    std::thread::sleep(Duration::from_secs(1));
    let grown = stand.edge.resident().saturating_sub(before) as f64;
    if stand.edge.open_files() < IDLE {
        return Err(format!("only {} files are open, so connections were closed", stand.edge.open_files()));
    }
    drop(idle);
    Ok(grown / IDLE as f64)
}

fn expect(path: &str, body: &[u8]) -> Result<(), String> {
    let (status, seen) = get(EDGE, path).map_err(|error| error.to_string())?;
    if (status, seen.as_slice()) == (200, body) {
        return Ok(());
    }
    let seen: String = String::from_utf8_lossy(&seen).chars().take(200).collect();
    Err(format!("{path} is answered {status}: {seen}"))
}

fn expect_sold() -> Result<(), String> {
    let (status, body) = get(EDGE, BUY).map_err(|error| error.to_string())?;
    if status == 200 && body.starts_with(br#"{"code":1,"#) {
        return Ok(());
    }
    Err(format!("no ticket is sold: {status} {}", String::from_utf8_lossy(&body)))
}
