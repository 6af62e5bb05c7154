//! Groups of backends: which one gets a request, and which ones are left alone.
//!
//! A pick reads one immutable [`Table`] of the backends that are usable and adds one to its counter; there is no lock
//! in its way. Only when a backend comes or goes is a lock taken and a new table made.

mod check;
mod health;
mod ip_hash;
mod smooth;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config::{self, Balance};
use health::Health;
use smooth::{Table, Weighted};

/// A group of backends at work.
pub struct Upstream {
    settings: config::Upstream,
    backends: Box<[Backend]>,
    /// The backends that requests go to now.
    table: ArcSwap<Table>,
    /// One for each backend. Held while a new table is made, so that tables follow each other in order.
    health: Mutex<Vec<Health>>,
    /// How many backends rest; the clock is read for a pick only if it is not 0.
    resting: AtomicUsize,
    epoch: Instant,
}

/// One backend; apart from the others in memory, since each request to it counts here.
#[repr(align(128))]
struct Backend {
    address: SocketAddr,
    weight: u32,
    key: u64,
    fail_timeout: Duration,
    /// When a resting backend may be tried, in milliseconds of the group's clock; [`NEVER`] if it does not rest.
    trial_at_ms: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// The backend that a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Index into the group's servers.
    pub backend: usize,
    /// Whether it rests and this request tries it: if it answers, [`Upstream::succeeded`] is to be told.
    pub trial: bool,
}

/// What a backend has had to do since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were given to it, those that failed included.
    pub sent: u64,
    /// Requests that failed by its fault: no connection, no answer in time, a broken answer.
    pub failed: u64,
}

impl Upstream {
    /// All backends are believed to be well at first.
    pub fn new(settings: config::Upstream) -> Self {
        let backends: Box<[Backend]> = settings.servers.iter().map(Backend::new).collect();
        // As in Nginx, nothing is gained by leaving the only backend alone.
        let alone = backends.len() == 1;
        let health = settings
            .servers
            .iter()
            .map(|server| Health::new(if alone { 0 } else { server.max_fails }, server.fail_timeout))
            .collect();
        let upstream = Self {
            table: ArcSwap::from_pointee(Table::new(&[])),
            health: Mutex::new(health),
            resting: AtomicUsize::new(0),
            epoch: Instant::now(),
            settings,
            backends,
        };
        upstream.choose_among_usable(&upstream.health());
        upstream
    }

    /// What the group was told.
    pub fn settings(&self) -> &config::Upstream {
        &self.settings
    }

    /// Where a backend is.
    pub fn address(&self, backend: usize) -> SocketAddr {
        self.backends[backend].address
    }

    /// What a backend has had to do.
    pub fn counts(&self, backend: usize) -> Counts {
        let backend = &self.backends[backend];
        Counts { sent: backend.sent.load(Ordering::Relaxed), failed: backend.failed.load(Ordering::Relaxed) }
    }

    /// Whether a backend gets requests: it neither rests nor is out.
    pub fn is_up(&self, backend: usize) -> bool {
        let health = &self.health()[backend];
        !health.is_resting() && !health.is_out()
    }

    /// The backend for a request of `client` that was already `tried` at some; `None` if there is no other.
    ///
    /// A resting backend whose time is over is tried first, by one request at a time. If all backends rest, none is
    /// left alone, so that the group is back as soon as one of them is. If the checks say that all are down, there is
    /// none.
    pub fn pick(&self, client: IpAddr, tried: &[usize]) -> Option<Pick> {
        self.pick_at(client, tried, || self.now_ms())
    }

    fn pick_at(&self, client: IpAddr, tried: &[usize], now_ms: impl FnOnce() -> u64) -> Option<Pick> {
        let now_ms = if self.resting.load(Ordering::Relaxed) > 0 { now_ms() } else { 0 };
        let backend = match self.settings.balance {
            Balance::Weighted | Balance::RoundRobin => self.trial(tried, now_ms).or_else(|| self.in_turn(tried)),
            Balance::IpHash => self.by_client(client, tried, now_ms),
        }?;
        self.backends[backend].sent.fetch_add(1, Ordering::Relaxed);
        Some(Pick { backend, trial: self.backends[backend].rests() })
    }

    /// A resting backend whose time is over.
    fn trial(&self, tried: &[usize], now_ms: u64) -> Option<usize> {
        (0..self.backends.len()).find(|i| !tried.contains(i) && self.backends[*i].begin_trial(now_ms))
    }

    /// The next of the sequence that was not tried yet.
    fn in_turn(&self, tried: &[usize]) -> Option<usize> {
        loop {
            let table = self.table.load();
            if table.backends().all(|(backend, _)| tried.contains(&backend)) {
                return None;
            }
            while let Some(backend) = table.next() {
                if !tried.contains(&backend) {
                    return Some(backend);
                }
            }
            // This table has been replaced, and the next one is there when the lock is free.
            drop(self.health());
        }
    }

    /// The backend that wins for this client.
    fn by_client(&self, client: IpAddr, tried: &[usize], now_ms: u64) -> Option<usize> {
        let table = self.table.load();
        let key = ip_hash::client_key(client);
        let score = |i: usize| ip_hash::score(key, self.backends[i].key, self.backends[i].weight);
        let best = |among: &mut dyn Iterator<Item = usize>| {
            among.filter(|i| !tried.contains(i)).max_by(|&a, &b| score(a).total_cmp(&score(b)))
        };
        let usable = best(&mut table.backends().map(|(backend, _)| backend));
        // A resting backend is tried by its own clients only.
        let resting = best(&mut (0..self.backends.len()).filter(|&i| self.backends[i].trial_is_due(now_ms)));
        resting
            .filter(|&resting| usable.is_none_or(|usable| score(resting) > score(usable)))
            .filter(|&resting| self.backends[resting].begin_trial(now_ms))
            .or(usable)
    }

    /// A request failed by the backend's fault; `why` goes to the log if that makes it rest.
    pub fn failed(&self, backend: usize, why: &str) {
        self.failed_at(backend, why, self.now_ms());
    }

    fn failed_at(&self, backend: usize, why: &str, now_ms: u64) {
        let Backend { address, fail_timeout, trial_at_ms, failed, .. } = &self.backends[backend];
        failed.fetch_add(1, Ordering::Relaxed);
        let mut health = self.health();
        let rested = health[backend].is_resting();
        let Some(until_ms) = health[backend].failed(now_ms) else {
            return;
        };
        trial_at_ms.store(until_ms, Ordering::Relaxed);
        if !rested {
            self.choose_among_usable(&health);
            log::warn!("upstream {}: {address} is left alone for {fail_timeout:?}: {why}", self.settings.name);
        }
    }

    /// A [trial](Pick::trial) was answered: the backend is back.
    pub fn succeeded(&self, backend: usize) {
        let mut health = self.health();
        if health[backend].is_resting() {
            health[backend].succeeded();
            self.backends[backend].trial_at_ms.store(NEVER, Ordering::Relaxed);
            self.choose_among_usable(&health);
            log::info!("upstream {}: {} is back", self.settings.name, self.backends[backend].address);
        }
    }

    /// The checks changed their mind about a backend; `why` goes to the log.
    fn checked(&self, backend: usize, good: bool, why: &str) {
        let mut health = self.health();
        health[backend].checked(good);
        self.backends[backend].trial_at_ms.store(NEVER, Ordering::Relaxed);
        self.choose_among_usable(&health);
        let address = self.backends[backend].address;
        if good {
            log::info!("upstream {}: {address} is up: {why}", self.settings.name);
        } else {
            log::warn!("upstream {}: {address} is down: {why}", self.settings.name);
        }
    }

    /// Makes the table for the backends that are usable now, if they are others than before.
    fn choose_among_usable(&self, health: &[Health]) {
        let weighted = |usable: &dyn Fn(&Health) -> bool| -> Vec<Weighted> {
            let backends = self.backends.iter().zip(health).enumerate();
            backends
                .filter(|(_, (_, health))| usable(health))
                .map(|(i, (backend, _))| {
                    (i, if self.settings.balance == Balance::RoundRobin { 1 } else { backend.weight })
                })
                .collect()
        };
        let mut usable = weighted(&|health| !health.is_out() && !health.is_resting());
        if usable.is_empty() {
            usable = weighted(&|health| !health.is_out());
        }
        let resting = health.iter().filter(|health| health.is_resting()).count();
        self.resting.store(resting, Ordering::Relaxed);
        let table = self.table.load();
        if !table.backends().map(|(backend, _)| backend).eq(usable.iter().map(|&(backend, _)| backend)) {
            self.table.store(table.replace(&usable).into());
        }
    }

    fn health(&self) -> MutexGuard<'_, Vec<Health>> {
        // Nothing that could panic is done halfway under this lock, so what it guards is whole in any case.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        // An edge does not run for 500 million years.
        self.epoch.elapsed().as_millis() as u64
    }
}

impl Backend {
    fn new(server: &config::Server) -> Self {
        Self {
            address: server.address,
            weight: server.weight,
            key: ip_hash::backend_key(server.address),
            fail_timeout: server.fail_timeout,
            trial_at_ms: AtomicU64::new(NEVER),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn rests(&self) -> bool {
        self.trial_at_ms.load(Ordering::Relaxed) != NEVER
    }

    fn trial_is_due(&self, now_ms: u64) -> bool {
        self.trial_at_ms.load(Ordering::Relaxed) <= now_ms
    }

    /// Takes the one trial that is due, if nobody else was faster. Should it end without an outcome, because the client
    /// left, there is another one after the same time.
    fn begin_trial(&self, now_ms: u64) -> bool {
        let due = self.trial_at_ms.load(Ordering::Relaxed);
        let next = now_ms.saturating_add(u64::try_from(self.fail_timeout.as_millis()).unwrap_or(NEVER)).min(NEVER - 1);
        due <= now_ms && self.trial_at_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests;
