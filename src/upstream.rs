//! Groups of backends: selects a backend for each request, and leaves out those that fail.
//!
//! A pick reads [`Now`], an immutable snapshot, and counts at the backend; it takes no lock. A lock is taken and a new
//! [`Now`] is made only when a backend comes, goes or changes. The state of a backend is kept as long as the group has
//! its address.

mod backend;
mod check;
mod health;
pub mod metrics;
mod names;
mod rendezvous;
mod slow_start;
mod smooth;
mod tier;

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use rand::Rng;
use tokio::sync::{Notify, watch};

use crate::config::{self, Balance, HashKey};
use crate::observe::telemetry::Buckets;
use crate::upstream::metrics::GroupMetrics;
use backend::Backend;
pub use backend::{Pick, RequestCounters};
use health::Health;
pub use rendezvous::hash;
use slow_start::SlowStart;
use tier::{Asked, Member, Tier, Unpicked, Usable};

/// A running group of backends.
pub struct Upstream {
    now: ArcSwap<Now>,
    /// Held while [`Now`] is replaced, so that replacements are ordered.
    state: Mutex<State>,
    /// Notifies that backends or settings have changed.
    replaced: watch::Sender<()>,
    /// Notifies that a backend with `slow_start` has come back.
    warming: Notify,
    epoch: Instant,
    metrics: GroupMetrics,
}

/// A snapshot of a group.
struct Now {
    settings: Arc<config::Upstream>,
    /// In the order of the configuration.
    members: Arc<[Arc<Member>]>,
    /// The backends in use; backups last.
    tiers: [Arc<Tier>; 2],
    /// Number of resting backends; a pick reads the clock only if it is not 0.
    resting: usize,
}

/// State that changes only under a lock.
struct State {
    /// One per member.
    states: Vec<MemberState>,
    next_id: usize,
}

/// State of a member.
struct MemberState {
    health: Health,
    /// Present while its weight grows.
    slow_start: Option<SlowStart>,
}

/// The settings of a group, as a snapshot.
pub struct Settings(Guard<Arc<Now>>);

impl Deref for Settings {
    type Target = config::Upstream;

    fn deref(&self) -> &config::Upstream {
        &self.0.settings
    }
}

/// A backend, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it may get requests: not resting, not out, and not set to `down`.
    pub is_up: bool,
    /// Its counters.
    pub counts: RequestCounters,
    /// Times until its responses began, in microseconds.
    pub answers: Buckets,
}

/// Why a request gets no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickError {
    /// No backend is up, or every one was tried.
    Nobody,
    /// Some are up but have reached `max_conns`.
    Full,
}

impl Upstream {
    /// A group; all backends count as healthy at first.
    pub fn new(settings: config::Upstream) -> Self {
        let nobody = Now {
            settings: Arc::new(config::Upstream { servers: Vec::new(), ..settings.clone() }),
            members: Arc::new([]),
            tiers: [Arc::new(Tier::empty()), Arc::new(Tier::empty())],
            resting: 0,
        };
        let upstream = Self {
            now: ArcSwap::from_pointee(nobody),
            state: Mutex::new(State { states: Vec::new(), next_id: 0 }),
            replaced: watch::Sender::new(()),
            warming: Notify::new(),
            epoch: Instant::now(),
            metrics: GroupMetrics::default(),
        };
        upstream.replace(settings);
        upstream
    }

    /// Replaces the settings. A backend whose address stays keeps its health, counters and requests under way. A new
    /// one counts as healthy and starts with `slow_start`, if set. A removed one gets no more requests and finishes
    /// those it has.
    pub fn replace(&self, settings: config::Upstream) {
        self.replace_at(settings, self.now_ms());
    }

    fn replace_at(&self, settings: config::Upstream, now_ms: u64) {
        let mut state = self.state();
        self.replace_all(&mut state, settings, now_ms);
    }

    /// Replaces the servers, unless the settings have changed since they were made.
    fn replace_servers(&self, of: &Arc<config::Upstream>, servers: Vec<config::Server>) {
        let mut state = self.state();
        if Arc::ptr_eq(&self.now.load().settings, of) {
            let settings = config::Upstream { servers, ..(**of).clone() };
            self.replace_all(&mut state, settings, self.now_ms());
        }
    }

    fn replace_all(&self, state: &mut State, settings: config::Upstream, now_ms: u64) {
        let before = self.now.load_full();
        let is_first = before.members.is_empty();
        let places = settings.servers.iter().flat_map(|server| server.addresses.iter().map(move |at| (*at, server)));
        // As in nginx: leaving out the only backend helps nothing.
        let is_alone = places.clone().filter(|(_, server)| !server.down).count() == 1;
        let mut states = Vec::with_capacity(settings.servers.len());
        let mut members: Vec<Arc<Member>> = Vec::with_capacity(settings.servers.len());
        for (address, server) in places {
            if members.iter().any(|member| member.backend.address() == address) {
                // Two names have this address; a request must not be tried there twice.
                continue;
            }
            let max_fails = if is_alone { 0 } else { server.max_fails };
            let at = before.members.iter().position(|member| member.backend.address() == address);
            let (backend, state) = match at {
                Some(at) => {
                    let MemberState { health, slow_start } = &state.states[at];
                    let health = health.with(max_fails, server.fail_timeout);
                    // Without checks, nothing would bring back what they took out.
                    let health = if settings.health_check.is_none() { health.unchecked() } else { health };
                    let was_down = before.members[at].server.down && !server.down;
                    let slow_start = if was_down { SlowStart::new(now_ms, server.slow_start) } else { *slow_start };
                    (Arc::clone(&before.members[at].backend), MemberState { health, slow_start })
                }
                None => {
                    state.next_id += 1;
                    let slow_start = if is_first { None } else { SlowStart::new(now_ms, server.slow_start) };
                    let health = Health::new(max_fails, server.fail_timeout);
                    (Arc::new(Backend::new(state.next_id, address)), MemberState { health, slow_start })
                }
            };
            members.push(Arc::new(Member { server: server.clone(), backend }));
            states.push(state);
        }
        state.states = states;
        self.renew(state, &before, Arc::new(settings), members.into(), now_ms);
        self.replaced.send_replace(());
    }

    /// The background work of a group, until `shutdown` turns true or its sender is gone: health checks, growing
    /// weights, and name lookups.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            // An error means that the sender is gone.
            _ = shutdown.wait_for(|&stop| stop) => {}
            _ = async { tokio::join!(self.check_all(), self.warm_up(), self.look_up_names()) } => {}
        }
    }

    /// The present settings.
    pub fn settings(&self) -> Settings {
        Settings(self.now.load())
    }

    /// Counters of the whole group.
    pub fn metrics(&self) -> &GroupMetrics {
        &self.metrics
    }

    /// All backends, in the order of the configuration.
    pub fn status(&self) -> Vec<Status> {
        let state = self.state();
        let now = self.now.load();
        let status = |(member, state): (&Arc<Member>, &MemberState)| Status {
            address: member.backend.address(),
            is_up: state.health.is_well() && !member.server.down,
            counts: member.backend.counts(),
            answers: member.backend.answers(),
        };
        now.members.iter().zip(&state.states).map(status).collect()
    }

    /// Picks a backend for a request of `client` that was already `tried` at some, given by their [ids](Pick::id).
    /// `key` returns the [hash] of a part of the request, if the request has it; it is called only if the group is
    /// balanced by it.
    ///
    /// A resting backend whose time is over is tried first, by one request at a time; with a hash, by one of its own
    /// requests. If all backends rest, none is left out, so that the group recovers with the first of them. Backups are
    /// used when no other backend can be.
    ///
    /// # Errors
    ///
    /// If no backend can be used.
    pub fn pick(
        &self,
        client: IpAddr,
        key: impl Fn(&HashKey) -> Option<u64>,
        tried: &[usize],
    ) -> Result<Pick, PickError> {
        self.pick_at(client, key, tried, || self.now_ms())
    }

    fn pick_at(
        &self,
        client: IpAddr,
        key: impl Fn(&HashKey) -> Option<u64>,
        tried: &[usize],
        now_ms: impl Fn() -> u64,
    ) -> Result<Pick, PickError> {
        'again: loop {
            let now = self.now.load();
            let now_ms = (now.resting > 0).then(&now_ms);
            let random = |below| rand::rng().random_range(0..below);
            let asked = Asked { balance: &now.settings.balance, client, key: &key, random, tried, now_ms };
            let mut none = PickError::Nobody;
            for tier in &now.tiers {
                match tier.pick(&asked) {
                    Ok(pick) => return Ok(pick),
                    Err(Unpicked::Nobody) => {}
                    Err(Unpicked::Full) => none = PickError::Full,
                    Err(Unpicked::Replaced) => {
                        // The replacement is there once the lock is free.
                        drop(self.state());
                        continue 'again;
                    }
                }
            }
            return Err(none);
        }
    }

    /// Records a failure of the backend; `why` is logged if the backend rests because of it.
    pub fn failed(&self, pick: &Pick, why: &str) {
        self.failed_at(pick, why, self.now_ms());
    }

    fn failed_at(&self, pick: &Pick, why: &str, now_ms: u64) {
        pick.backend().count_failure();
        let mut state = self.state();
        let Some((now, at)) = self.find(pick.backend()) else {
            return;
        };
        let health = &mut state.states[at].health;
        let rested = health.is_resting();
        let Some(until_ms) = health.failed(now_ms) else {
            return;
        };
        pick.backend().rest_until(until_ms);
        if !rested {
            self.renew_standings(&mut state, &now, now_ms);
            let fail_timeout = now.members[at].server.fail_timeout;
            log::warn!("upstream {}: {} is unavailable for {fail_timeout:?}: {why}", now.settings.name, pick.address());
        }
    }

    /// Records that a [trial](Pick::is_trial) was answered: the backend is back.
    pub fn succeeded(&self, pick: &Pick) {
        self.succeeded_at(pick, self.now_ms());
    }

    fn succeeded_at(&self, pick: &Pick, now_ms: u64) {
        let mut state = self.state();
        if let Some((now, at)) = self.find(pick.backend())
            && state.states[at].health.is_resting()
        {
            state.states[at].health.succeeded();
            self.is_back(&mut state, &now, at, now_ms);
            log::info!("upstream {}: {} is back", now.settings.name, pick.address());
        }
    }

    /// Records a change of state by the checks; `why` is logged.
    fn checked(&self, backend: &Arc<Backend>, good: bool, why: &str) {
        self.checked_at(backend, good, why, self.now_ms());
    }

    fn checked_at(&self, backend: &Arc<Backend>, good: bool, why: &str, now_ms: u64) {
        let mut state = self.state();
        let Some((now, at)) = self.find(backend) else {
            return;
        };
        let (name, address) = (&now.settings.name, backend.address());
        state.states[at].health.checked(good);
        if good {
            self.is_back(&mut state, &now, at, now_ms);
            log::info!("upstream {name}: {address} is up: {why}");
        } else {
            backend.end_rest();
            self.renew_standings(&mut state, &now, now_ms);
            log::warn!("upstream {name}: {address} is down: {why}");
        }
    }

    /// Returns a backend to use.
    fn is_back(&self, state: &mut State, now: &Now, at: usize, now_ms: u64) {
        let Member { server, backend } = &*now.members[at];
        backend.end_rest();
        state.states[at].slow_start = SlowStart::new(now_ms, server.slow_start);
        self.renew_standings(state, now, now_ms);
    }

    /// Grows the weights of backends that came back, as long as it is polled.
    async fn warm_up(&self) {
        loop {
            let came_back = self.warming.notified();
            match self.grow_at(self.now_ms()) {
                Some(step) => tokio::time::sleep(step).await,
                None => came_back.await,
            }
        }
    }

    /// Sets the growing weights for this time. Returns how long they stay valid, if any still grows.
    fn grow_at(&self, now_ms: u64) -> Option<Duration> {
        let mut state = self.state();
        if state.states.iter().any(|state| state.slow_start.is_some()) {
            let now = self.now.load_full();
            self.renew_standings(&mut state, &now, now_ms);
        }
        state.states.iter().filter_map(|state| state.slow_start).map(|start| start.step()).min()
    }

    /// The snapshot, which stays valid while the lock is held, and the position of this backend, unless it is gone.
    fn find(&self, backend: &Arc<Backend>) -> Option<(Arc<Now>, usize)> {
        let now = self.now.load_full();
        let at = now.members.iter().position(|member| Arc::ptr_eq(&member.backend, backend))?;
        Some((now, at))
    }

    fn renew_standings(&self, state: &mut State, before: &Now, now_ms: u64) {
        self.renew(state, before, Arc::clone(&before.settings), Arc::clone(&before.members), now_ms);
    }

    /// Replaces the snapshot.
    fn renew(
        &self,
        state: &mut State,
        before: &Now,
        settings: Arc<config::Upstream>,
        members: Arc<[Arc<Member>]>,
        now_ms: u64,
    ) {
        for state in &mut state.states {
            state.slow_start = state.slow_start.filter(|start| start.part(now_ms) < slow_start::WHOLE);
        }
        if state.states.iter().any(|state| state.slow_start.is_some()) {
            self.warming.notify_one();
        }
        let all = || members.iter().zip(&state.states).filter(|(member, _)| !member.server.down);
        let is_anybody_well = all().any(|(_, state)| state.health.is_well());
        let usable = |(member, MemberState { health, slow_start }): (&Arc<Member>, &MemberState)| {
            let is_usable = if is_anybody_well { health.is_well() } else { !health.is_out() };
            let weight = if settings.balance == Balance::RoundRobin { 1 } else { member.server.weight };
            let part = slow_start.map_or(slow_start::WHOLE, |start| start.part(now_ms));
            is_usable.then(|| Usable { member: Arc::clone(member), weight: weight * part })
        };
        let tier = |is_backup: bool| {
            let rank = || all().filter(|(member, _)| member.server.backup == is_backup);
            let before = &before.tiers[usize::from(is_backup)];
            let all: Vec<_> = rank().map(|(member, _)| Arc::clone(member)).collect();
            let usable: Vec<_> = rank().filter_map(usable).collect();
            if before.is(&all, &usable) { Arc::clone(before) } else { Arc::new(before.followed_by(all, usable)) }
        };
        let tiers = [tier(false), tier(true)];
        let resting = state.states.iter().filter(|state| state.health.is_resting()).count();
        self.now.store(Arc::new(Now { settings, members, tiers, resting }));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic halfway, so its data is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        // An edge does not run for 500 million years.
        self.epoch.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests;
