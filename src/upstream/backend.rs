//! One address of a group: its counters and its requests under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rendezvous;
use crate::observe::telemetry::{Buckets, Waits};

/// One address of a group, as long as the group has it, whatever the settings change meanwhile.
///
/// On its own cache lines, since each request counts here.
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
    /// Times until its responses began.
    answers: Waits,
}

const NEVER: u64 = u64::MAX;

/// Counters since the backend was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestCounters {
    /// Requests sent, including those that failed.
    pub sent: u64,
    /// Failed requests: no connection, no response in time, or an invalid response.
    pub failed: u64,
    /// Requests under way.
    pub under_way: u64,
}

/// The backend of a request. The request counts as under way until this is dropped, however it ends.
pub struct Pick {
    backend: Arc<Backend>,
    trial: bool,
}

impl Backend {
    /// `id` must be unique in the group, for all time.
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

    /// Its hash.
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

    /// Times until its responses began, in microseconds.
    pub fn answers(&self) -> Buckets {
        self.answers.buckets()
    }

    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Counts one more request, unless `most` are under way; 0 means no limit.
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

    /// Counts a failure.
    pub fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets it rest until then.
    pub fn rest_until(&self, trial_at_ms: u64) {
        self.trial_at_ms.store(trial_at_ms, Ordering::Relaxed);
    }

    /// Ends its rest.
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

    /// Takes the one trial that is due, unless another request was faster. If it ends without a result because the
    /// client left, the next one is due after `again`.
    pub fn begin_trial(&self, now_ms: u64, again: Duration) -> bool {
        let due = self.trial_at_ms.load(Ordering::Relaxed);
        let next = now_ms.saturating_add(u64::try_from(again.as_millis()).unwrap_or(NEVER)).min(NEVER - 1);
        due <= now_ms && self.trial_at_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Pick {
    /// Distinguishes this backend from all others that the group has ever had.
    #[must_use]
    pub fn id(&self) -> usize {
        self.backend.id
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// Records that the response began, this long after the pick.
    pub fn answered(&self, after: Duration) {
        self.backend.answers.add(after);
    }

    /// Whether the backend rests and this request tries it.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.trial
    }

    /// Whether the backend rests and this request tries it; true only once.
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
