//! One address of a group: what it has had to do, and the requests that are under way there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rendezvous;
use crate::observe::telemetry::{Buckets, Waits};

/// One address of a group, for as long as the group has it, whatever the settings say of it meanwhile.
///
/// Apart from the others in memory, since each request to it counts here.
#[repr(align(128))]
pub struct Backend {
    id: usize,
    address: SocketAddr,
    key: u64,
    /// When a resting backend may be tried, in milliseconds of the group's clock; [`NEVER`] if it does not rest.
    trial_at_ms: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    under_way: AtomicU64,
    /// How long it took to begin its answers.
    answers: Waits,
}

const NEVER: u64 = u64::MAX;

/// What a backend has had to do since it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestCounters {
    /// Requests that were given to it, those that failed included.
    pub sent: u64,
    /// Requests that failed by its fault: no connection, no answer in time, a broken answer.
    pub failed: u64,
    /// Requests that are there now.
    pub under_way: u64,
}

/// The backend that a request goes to. It counts as under way there until this is dropped, however it ends.
pub struct Pick {
    backend: Arc<Backend>,
    trial: bool,
}

impl Backend {
    /// `id` is one that no other backend of the group has ever had.
    pub fn new(id: usize, address: SocketAddr) -> Self {
        Self {
            id,
            address,
            key: rendezvous::backend_key(address),
            trial_at_ms: AtomicU64::new(NEVER),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            answers: Waits::default(),
        }
    }

    pub fn id(&self) -> usize {
        self.id
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is hashed of it.
    pub fn key(&self) -> u64 {
        self.key
    }

    pub fn counts(&self) -> RequestCounters {
        RequestCounters {
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            under_way: self.under_way(),
        }
    }

    /// How long it took to begin its answers, in microseconds.
    pub fn answers(&self) -> Buckets {
        self.answers.buckets()
    }

    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// One more request, unless `most` are under way; 0 is no limit.
    pub fn take(self: &Arc<Self>, most: u32) -> Option<Pick> {
        if most == 0 {
            self.under_way.fetch_add(1, Ordering::Relaxed);
        } else {
            let one_more = |under_way| (under_way < u64::from(most)).then_some(under_way + 1);
            self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        Some(Pick { trial: self.rests(), backend: Arc::clone(self) })
    }

    /// A request failed by its fault.
    pub fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Left alone until then.
    pub fn rest_until(&self, trial_at_ms: u64) {
        self.trial_at_ms.store(trial_at_ms, Ordering::Relaxed);
    }

    /// Left alone no longer.
    pub fn end_rest(&self) {
        self.rest_until(NEVER);
    }

    fn rests(&self) -> bool {
        self.trial_at_ms.load(Ordering::Relaxed) != NEVER
    }

    /// Whether it rests and its time is over.
    pub fn trial_is_due(&self, now_ms: u64) -> bool {
        self.trial_at_ms.load(Ordering::Relaxed) <= now_ms
    }

    /// Takes the one trial that is due, if nobody else was faster. Should it end without an outcome, because the client
    /// left, there is another one after `again`.
    pub fn begin_trial(&self, now_ms: u64, again: Duration) -> bool {
        let due = self.trial_at_ms.load(Ordering::Relaxed);
        let next = now_ms.saturating_add(u64::try_from(again.as_millis()).unwrap_or(NEVER)).min(NEVER - 1);
        due <= now_ms && self.trial_at_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Pick {
    /// What tells this backend from all others that the group has ever had.
    #[must_use]
    pub fn id(&self) -> usize {
        self.backend.id
    }

    /// Where the backend is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// The backend has begun to answer, so long after it was chosen.
    pub fn answered(&self, after: Duration) {
        self.backend.answers.add(after);
    }

    /// Whether the backend rests and this request tries it.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.trial
    }

    /// Whether the backend rests and this request tries it, said once.
    #[must_use]
    pub fn take_trial(&mut self) -> bool {
        std::mem::take(&mut self.trial)
    }

    pub(super) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.backend.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
