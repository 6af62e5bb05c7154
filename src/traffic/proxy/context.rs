//! One request on its ctx: what has become of it so far.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::compression::Encoder;
use crate::http::answer::{Answer, PurchaseLabel};
use crate::http::client::Client;
use crate::http::request_id::RequestId;
use crate::limits::QuotaGuard;
use crate::observe::trace;
use crate::sale::Sale;
use crate::traffic::rules::{Group, Rules};
use crate::upstream::Pick;

/// The most backends that one request may be tried at.
pub const MAX_TRIES: usize = 16;

/// One request on its ctx.
pub struct RequestContext {
    /// What it is judged by, whatever is replaced meanwhile.
    pub(super) rules: Arc<Rules>,
    /// Index of the route, once it is found; a request that the edge answers itself has none.
    pub(super) route: Option<usize>,
    /// Index of the route's group, if it has one.
    pub(super) group: Option<usize>,
    /// Of the answer, if it is compressed.
    pub(super) encoder: Option<Encoder>,
    /// What a backend answered with, if a page takes its place.
    pub(super) intercepted: Option<StatusCode>,
    /// The sale that it asks, if the edge answers it itself.
    pub(super) sale: Option<Arc<Sale>>,
    /// Who asks.
    pub(super) client: Client,
    /// Counts it as one of its client's under ctx, of what its route allows.
    pub(super) taken: Option<QuotaGuard>,
    /// How much of its body has passed.
    pub(super) body: u64,
    /// For the access log.
    pub(super) log_fields: RequestLog,
    /// If anything is traced.
    pub(super) trace: Option<Box<trace::Request>>,
    /// When it was looked at first.
    pub(super) began: Option<Instant>,
    /// When the backend where it is was chosen, until that answers.
    pub(super) asked: Option<Instant>,
    /// Where the request is now.
    pub(super) at: Option<Pick>,
    /// Where it goes next, if that was decided when it failed.
    pub(super) next: Option<Pick>,
    /// Where it has been, without the present place.
    pub(super) tried: Tried,
    /// The last backend that was left.
    pub(super) last: Option<SocketAddr>,
    /// A pooled connection turned out to be closed, and the same backend got a second chance.
    pub(super) found_stale: bool,
}

/// The ids of backends, in the order in which they were tried.
#[derive(Default)]
pub struct Tried {
    backends: [usize; MAX_TRIES],
    len: usize,
}

impl RequestContext {
    /// Of a request that nobody has looked at yet.
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            sale: None,
            client: Client::UNKNOWN,
            route: None,
            group: None,
            encoder: None,
            intercepted: None,
            taken: None,
            body: 0,
            log_fields: RequestLog::default(),
            trace: None,
            began: None,
            asked: None,
            at: None,
            next: None,
            tried: Tried::default(),
            last: None,
            found_stale: false,
        }
    }

    pub(super) fn group(&self) -> &Group {
        // Whoever asks is behind `request_filter`, which has found the route and so the group.
        &self.rules.groups[self.group.unwrap_or_default()]
    }

    pub(super) fn max_body(&self) -> Option<u64> {
        self.rules.routes.get(self.route?)?.max_body
    }

    /// The request is at no backend any more.
    pub(super) fn leave(&mut self) -> Option<Pick> {
        let left = self.at.take();
        if left.is_some() {
            self.log_fields.left();
        }
        self.last = left.as_ref().map(Pick::address).or(self.last);
        left
    }

    /// The backend where the request is, or was last.
    pub(super) fn last(&self) -> Option<SocketAddr> {
        self.at.as_ref().map(Pick::address).or(self.last)
    }
}

impl Tried {
    pub(super) fn push(&mut self, backend: usize) {
        // The settings allow no more tries than there is room for.
        if let Some(place) = self.backends.get_mut(self.len) {
            *place = backend;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[usize] {
        &self.backends[..self.len]
    }
}

/// What only the access log needs.
#[derive(Default)]
pub struct RequestLog {
    /// If requests have ids.
    pub id: Option<RequestId>,
    /// Of an answer of the edge's own.
    pub(super) label: PurchaseLabel,
    /// At how many backends it was tried.
    pub(super) tries: u32,
    /// When the last of them was chosen.
    chosen: Option<Instant>,
    /// How long that one took.
    pub(super) took: Option<Duration>,
}

impl RequestLog {
    /// The edge answers it so itself.
    pub fn answered(&mut self, answer: &Answer) {
        self.label = answer.label;
    }

    /// It goes to a backend.
    pub fn chosen(&mut self, now: Instant) {
        self.tries += 1;
        self.chosen = Some(now);
        self.took = None;
    }

    /// The backend has no more to do with it.
    pub fn left(&mut self) {
        self.took = self.took.or_else(|| self.chosen.map(|chosen| chosen.elapsed()));
    }
}
