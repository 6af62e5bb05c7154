//! The workloads: their contestants, checks, load and figures.

use std::time::Duration;

use crate::contestant::Contestant::{self, Embedded, Floor, FloorClosing, Lua, Proxy, Redis, RedisSynced, Return};
use crate::figure::{Figure, Sample};
use crate::generator::{CONNECTIONS, Load, Until, ab, quantile, wrk};
use crate::http::{EDGE, get};
use crate::load;
use crate::testbed::{LARGE, Places, SMALL, Testbed};

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    RefuseKeepalive,
    RefuseClose,
    Sell,
    Mix,
    ProxySmall,
    ProxyLarge,
    IdleMemory,
    Crowd,
    Tail,
}

/// More than can be sold in a run.
const PLENTY: u64 = 1_000_000_000;
/// Of the article's 10,000 requests 150 got a ticket.
const MIX_TICKETS_PER_10_000: u64 = 150;
/// In a second of the article's mix, so that a run takes about as long as the others.
const MIX_PER_SECOND: u64 = 20_000;
pub const MILLION: u64 = 1_000_000;
/// Buyers of the row `crowd` in a smoke run: more than there are tickets.
pub const SMOKE_BUYERS: u64 = 20_000;
const TICKETS: u64 = 10_000;
const IDLE: usize = 10_000;

const BUY: &str = "/buy/ticket";
const SOLD_OUT: &str = r#"{"code":-1,"msg":"已售罄"}"#;

impl Row {
    pub const ALL: [Self; 9] = [
        Self::RefuseKeepalive,
        Self::RefuseClose,
        Self::Sell,
        Self::Mix,
        Self::ProxySmall,
        Self::ProxyLarge,
        Self::IdleMemory,
        Self::Crowd,
        Self::Tail,
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|row| row.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::RefuseKeepalive => "refuse-keepalive",
            Self::RefuseClose => "refuse-close",
            Self::Sell => "sell",
            Self::Mix => "mix",
            Self::ProxySmall => "proxy-small",
            Self::ProxyLarge => "proxy-large",
            Self::IdleMemory => "idle-memory",
            Self::Crowd => "crowd",
            Self::Tail => "tail",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::RefuseKeepalive => "refuse, keep-alive (wrk)",
            Self::RefuseClose => "refuse, a connection per request (ab)",
            Self::Sell => "sell, every request succeeds, order recorded before the answer (wrk)",
            Self::Mix => "the article's mix: 1.5 % are sold a ticket, a connection per request (ab)",
            Self::ProxySmall => "proxy a small answer to four backends (wrk)",
            Self::ProxyLarge => "proxy 100 KiB (wrk)",
            Self::IdleMemory => "resident memory per idle keep-alive connection, 10,000 of them",
            Self::Crowd => "one million purchases by one million buyers for 10,000 tickets",
            Self::Tail => "refuse at half of its own top rate, latencies from when each request was due",
        }
    }

    pub fn contestants(self) -> &'static [Contestant] {
        match self {
            Self::RefuseKeepalive => &[Redis, Embedded, Return, Lua, Floor],
            Self::RefuseClose => &[Redis, Embedded, Return, Lua, FloorClosing],
            Self::Sell => &[Redis, RedisSynced, Embedded, Lua],
            Self::Mix | Self::Crowd => &[Redis, Embedded, Lua],
            Self::ProxySmall | Self::ProxyLarge => &[Redis, Proxy],
            Self::IdleMemory => &[Redis, Lua, Proxy],
            Self::Tail => &[Redis, Lua],
        }
    }

    /// Whether one round is enough, because the figures are exact or vary little.
    pub fn once(self) -> bool {
        matches!(self, Self::IdleMemory | Self::Crowd)
    }

    fn tickets(self, seconds: u64) -> u64 {
        match self {
            Self::RefuseKeepalive | Self::RefuseClose | Self::Tail => 1,
            Self::Mix => seconds * MIX_PER_SECOND * MIX_TICKETS_PER_10_000 / 10_000,
            Self::Crowd => TICKETS,
            Self::Sell | Self::ProxySmall | Self::ProxyLarge | Self::IdleMemory => PLENTY,
        }
    }

    /// One run of one contestant, from its start to its end.
    pub fn measure(self, places: &Places, contestant: Contestant, seconds: u64, buyers: u64) -> Result<Sample, String> {
        if self == Self::IdleMemory {
            return memory(places, contestant);
        }
        let testbed = self.testbed(places, contestant, seconds)?;
        match self {
            Self::Crowd => crowd(&testbed, buyers),
            Self::Tail => tail(&testbed, seconds),
            _ => self.throughput(&testbed, seconds),
        }
    }

    /// Starts a contestant and checks that it does this workload's job.
    pub fn testbed(self, places: &Places, contestant: Contestant, seconds: u64) -> Result<Testbed, String> {
        let testbed = Testbed::start(
            places,
            contestant,
            self.tickets(seconds),
            matches!(self, Self::ProxySmall | Self::ProxyLarge),
        )?;
        match self {
            Self::RefuseKeepalive | Self::RefuseClose | Self::Tail => {
                if contestant.sells() {
                    expect_sold()?;
                }
                expect(BUY, SOLD_OUT.as_bytes())?;
            }
            Self::Sell => expect_sold()?,
            Self::ProxySmall => expect("/small", SMALL.as_bytes())?,
            Self::ProxyLarge => expect("/large", &[b'x'; LARGE])?,
            Self::Mix | Self::IdleMemory | Self::Crowd => {}
        }
        Ok(testbed)
    }

    /// The load of this workload.
    pub fn load(self, testbed: &Testbed, seconds: u64) -> Result<Load, String> {
        match self {
            Self::RefuseClose => ab(testbed.folder(), BUY, Until::Seconds(seconds)),
            Self::Mix => ab(testbed.folder(), BUY, Until::Requests(seconds * MIX_PER_SECOND)),
            Self::ProxySmall => wrk(testbed.folder(), "/small", seconds),
            Self::ProxyLarge => wrk(testbed.folder(), "/large", seconds),
            Self::RefuseKeepalive | Self::Sell | Self::IdleMemory | Self::Crowd | Self::Tail => {
                wrk(testbed.folder(), BUY, seconds)
            }
        }
    }

    fn throughput(self, testbed: &Testbed, seconds: u64) -> Result<Sample, String> {
        let sold_before = if testbed.contestant.sells() { testbed.sold()? } else { 0 };
        let before = testbed.cpu();
        let load = self.load(testbed, seconds)?;
        let after = testbed.cpu();
        if load.requests == 0 {
            return Err("no request was answered".to_string());
        }
        if testbed.contestant.sells() {
            let sold = testbed.sold()? - sold_before;
            let (least, most) = match self {
                // When its time is up, wrk no longer listens for the answers to what it has just asked.
                Self::Sell => (load.requests, load.requests + CONNECTIONS as u64),
                Self::Mix => (self.tickets(seconds), self.tickets(seconds)),
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

fn crowd(testbed: &Testbed, buyers: u64) -> Result<Sample, String> {
    let before = testbed.cpu();
    let tally = load::distinct_buyers(buyers, CONNECTIONS).map_err(|error| error.to_string())?;
    let after = testbed.cpu();
    let sold = testbed.sold()?;
    if (tally.sold, tally.refused, tally.other, sold) != (TICKETS, buyers - TICKETS, 0, TICKETS) {
        return Err(format!("{tally:?}, and the ledger has {sold} sold tickets"));
    }
    let wall = tally.wall.as_secs_f64();
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / buyers as f64;
    let mut sample = Sample::from([
        (Figure::Rate, buyers as f64 / wall),
        (Figure::Edge, each(after.0 - before.0)),
        (Figure::Sold, tally.sold as f64),
        (Figure::Refused, tally.refused as f64),
        (Figure::Wall, wall),
    ]);
    if let (Some(before), Some(after)) = (before.1, after.1) {
        sample.insert(Figure::Redis, each(after - before));
    }
    if testbed.contestant.is_spikegate() {
        sample.insert(Figure::Attempts, testbed.attempts()? as f64);
    }
    Ok(sample)
}

/// Measures the top rate first, then latencies at half of it.
fn tail(testbed: &Testbed, seconds: u64) -> Result<Sample, String> {
    let top = wrk(testbed.folder(), BUY, seconds.min(2))?;
    let rate = top.requests as f64 / top.seconds / 2.0;
    let before = testbed.cpu();
    let latencies = load::at_rate(BUY, rate, seconds, CONNECTIONS).map_err(|error| error.to_string())?;
    let after = testbed.cpu();
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
    let testbed = Testbed::start(places, contestant, PLENTY, contestant.proxies())?;
    let (status, _) = get(EDGE, path).map_err(|error| error.to_string())?;
    if status != 200 {
        return Err(format!("{path} is answered {status}"));
    }
    let before = testbed.edge.resident();
    let idle = load::idle(path, IDLE).map_err(|error| error.to_string())?;
    std::thread::sleep(Duration::from_secs(1));
    let grown = testbed.edge.resident().saturating_sub(before) as f64;
    if testbed.edge.open_files() < IDLE {
        return Err(format!("only {} files are open, so connections were closed", testbed.edge.open_files()));
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
