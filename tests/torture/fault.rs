//! The kinds of faults.

use std::fmt;
use std::time::Duration;

use crate::harness::{Passage, Tear};

/// How it is between one edge and Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Requests arrive and are carried out; replies are lost.
    RepliesLost,
    /// Requests arrive and are carried out; replies come later.
    RepliesLate,
    /// Requests arrive later.
    RequestsLate,
    /// The same on the connections that there are; those that are made in their place are well, and overtake them.
    Overtaken,
    /// Nothing arrives, and the connection stays open.
    BlackHole,
    /// Every piece is late by up to so much.
    Jitter(Duration),
    ByteByByte,
    /// Connections are reset, and new ones are closed at once.
    Cut,
}

impl Weather {
    /// Requests, replies.
    pub fn passages(self) -> (Passage, Passage) {
        match self {
            Self::RepliesLost => (Passage::Free, Passage::Lost),
            Self::RepliesLate => (Passage::Free, Passage::Held),
            Self::RequestsLate => (Passage::Held, Passage::Free),
            Self::BlackHole => (Passage::Lost, Passage::Lost),
            Self::Jitter(most) => (Passage::Slow(most), Passage::Slow(most)),
            Self::ByteByByte => (Passage::ByteByByte, Passage::ByteByByte),
            Self::Cut | Self::Overtaken => (Passage::Free, Passage::Free),
        }
    }
}

/// A fault. What has a duration ends with it: what was killed is started again, what was frozen wakes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    KillRedis,
    FreezeRedis,
    KillEdge(usize),
    FreezeEdge(usize),
    KillOrders(usize),
    FreezeOrders(usize),
    /// Between an edge and Redis.
    Network(usize, Weather),
    /// The connections of an edge to Redis, all at once.
    Tear(usize, Tear),
    /// Redis has no scripts any more.
    ForgetScripts,
    /// Redis ends the connections of all its clients.
    EndClients,
    /// Redis has no memory to write with.
    NoMemory,
    /// The clock of Redis is set to this many seconds before or after the true time.
    SetClock(i64),
    /// The disk under the embedded ledger has no room any more.
    FillDisk,
    /// The embedded ledger's edge is killed, and half a record stands behind its last whole one.
    TearRecord,
    /// Redis' machine loses its power, and the file the seconds in which it was not synced, the present one among them.
    LosePower {
        seconds: u64,
    },
    /// The same, and both edges are on that machine.
    LoseAllPower {
        seconds: u64,
    },
    /// The primary dies, and the Sentinels make its replica the primary.
    FailOver,
    /// The same, with a replica that lags by this duration.
    FailOverBehind(Duration),
    /// The replica is made the primary; then the old one comes back alone, and an edge is led to it.
    OldPrimary(usize),
}

impl Fault {
    /// What is counted together.
    pub fn kind(&self) -> String {
        let told = self.to_string();
        let edges_alike = told.replace(" a'", "'").replace(" b'", "'").replace("edge a ", "an edge ");
        edges_alike.replace("edge b ", "an edge ").replace("orders 0", "orders").replace("orders 1", "orders")
    }
}

/// Edges are called by letters.
pub fn edge_name(edge: usize) -> &'static str {
    ["edge a", "edge b"][edge]
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillRedis => write!(f, "redis is killed"),
            Self::FreezeRedis => write!(f, "redis is frozen"),
            Self::KillEdge(edge) => write!(f, "{} is killed", edge_name(*edge)),
            Self::FreezeEdge(edge) => write!(f, "{} is frozen", edge_name(*edge)),
            Self::KillOrders(one) => write!(f, "orders {one} is killed"),
            Self::FreezeOrders(one) => write!(f, "orders {one} is frozen"),
            Self::Network(edge, weather) => write!(f, "{}'s network: {weather}", edge_name(*edge)),
            Self::Tear(edge, how) => write!(f, "{}'s connections are torn: {how:?}", edge_name(*edge)),
            Self::ForgetScripts => write!(f, "redis forgets its scripts"),
            Self::EndClients => write!(f, "redis ends all connections"),
            Self::NoMemory => write!(f, "redis has no memory left"),
            Self::SetClock(seconds) => write!(f, "redis' clock is set to {seconds:+} s"),
            Self::FillDisk => write!(f, "the disk is full"),
            Self::TearRecord => write!(f, "edge a is killed in the middle of a record"),
            Self::LosePower { .. } => write!(f, "redis' machine loses its power"),
            Self::LoseAllPower { .. } => write!(f, "redis and both edges lose their power"),
            Self::FailOver => write!(f, "redis fails over"),
            Self::FailOverBehind(_) => write!(f, "redis fails over to a replica that lags"),
            Self::OldPrimary(edge) => write!(f, "{} is led to an old primary", edge_name(*edge)),
        }
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RepliesLost => write!(f, "replies are lost"),
            Self::RepliesLate => write!(f, "replies wait"),
            Self::RequestsLate => write!(f, "requests wait"),
            Self::Overtaken => write!(f, "requests wait, and later ones overtake them"),
            Self::BlackHole => write!(f, "a black hole"),
            Self::Jitter(most) => write!(f, "up to {most:?} late"),
            Self::ByteByByte => write!(f, "byte by byte"),
            Self::Cut => write!(f, "cut"),
        }
    }
}
