//! What Spikegate has to reach, beside its peers.

use crate::contestant::Contestant::{self, Embedded, Floor, Lua, Proxy, Redis, Return};
use crate::figure::{Figure, Sample};
use crate::results::Results;
use crate::row::Row;

/// On which side of the limit a value has to be.
#[derive(Clone, Copy)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
}

/// One demand: what is compared, and what has to come of it.
pub struct Target {
    pub row: Row,
    pub text: &'static str,
    pub limit: Limit,
    value: fn(&Results) -> Option<f64>,
}

impl Target {
    /// What was measured, if all that it needs was.
    pub fn value(&self, results: &Results) -> Option<f64> {
        (self.value)(results)
    }

    pub fn is_reached(&self, value: f64) -> bool {
        match self.limit {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
            Limit::Exactly(limit) => value == limit,
        }
    }
}

/// All of them.
pub fn targets() -> Vec<Target> {
    use Limit::{AtLeast, AtMost, Exactly};
    let target = |row, text, limit, value| Target { row, text, limit, value };
    vec![
        target(Row::RefuseKeepalive, "CPU, to the bare epoll loop", AtMost(1.10), |all| {
            cpu(all, Row::RefuseKeepalive, Redis, Floor)
        }),
        target(Row::RefuseKeepalive, "CPU, to nginx `return`", AtMost(1.00), |all| {
            cpu(all, Row::RefuseKeepalive, Redis, Return)
        }),
        target(Row::RefuseKeepalive, "CPU, to nginx + Lua", AtMost(0.85), |all| {
            cpu(all, Row::RefuseKeepalive, Redis, Lua)
        }),
        target(Row::RefuseClose, "CPU, to nginx `return`", AtMost(1.15), |all| {
            cpu(all, Row::RefuseClose, Redis, Return)
        }),
        target(Row::Sell, "sales per second, to nginx + Lua", AtLeast(4.0), |all| {
            ratio(all, Row::Sell, Redis, Lua, |sample| sample.get(&Figure::Rate).copied())
        }),
        target(Row::Sell, "CPU of edge and Redis, to nginx + Lua", AtMost(0.20), |all| {
            ratio(all, Row::Sell, Redis, Lua, |sample| Some(sample.get(&Figure::Edge)? + sample.get(&Figure::Redis)?))
        }),
        target(Row::Sell, "sales per second, embedded to Redis", AtLeast(1.0), |all| {
            ratio(all, Row::Sell, Embedded, Redis, |sample| sample.get(&Figure::Rate).copied())
        }),
        target(Row::ProxySmall, "CPU, to nginx", AtMost(1.5), |all| cpu(all, Row::ProxySmall, Redis, Proxy)),
        target(Row::IdleMemory, "KiB after a purchase", AtMost(3.0), |all| {
            figure(all, Row::IdleMemory, Redis, Figure::AfterPurchase)
        }),
        target(Row::IdleMemory, "KiB after a proxied request", AtMost(3.0), |all| {
            figure(all, Row::IdleMemory, Redis, Figure::AfterProxied)
        }),
        target(Row::Crowd, "tickets sold, Redis", Exactly(10_000.0), |all| {
            figure(all, Row::Crowd, Redis, Figure::Sold)
        }),
        target(Row::Crowd, "tickets sold, embedded", Exactly(10_000.0), |all| {
            figure(all, Row::Crowd, Embedded, Figure::Sold)
        }),
        target(Row::Crowd, "attempts at the ledger, Redis", AtMost(10_150.0), |all| {
            figure(all, Row::Crowd, Redis, Figure::Attempts)
        }),
        target(Row::Crowd, "attempts at the ledger, embedded", AtMost(10_150.0), |all| {
            figure(all, Row::Crowd, Embedded, Figure::Attempts)
        }),
        target(Row::Tail, "p99.9, to nginx + Lua", AtMost(1.0), |all| {
            ratio(all, Row::Tail, Redis, Lua, |sample| sample.get(&Figure::P999).copied())
        }),
    ]
}

fn cpu(all: &Results, row: Row, ours: Contestant, theirs: Contestant) -> Option<f64> {
    ratio(all, row, ours, theirs, |sample| sample.get(&Figure::Edge).copied())
}

fn ratio(
    all: &Results,
    row: Row,
    ours: Contestant,
    theirs: Contestant,
    value: fn(&Sample) -> Option<f64>,
) -> Option<f64> {
    Some(value(all.sample(row, ours)?)? / value(all.sample(row, theirs)?)?)
}

fn figure(all: &Results, row: Row, contestant: Contestant, figure: Figure) -> Option<f64> {
    all.sample(row, contestant)?.get(&figure).copied()
}
