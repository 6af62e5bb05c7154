//! Pingora's CTX: the state of one request in the proxy.

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

/// The maximum number of backends tried for one request.
pub const MAX_TRIES: usize = 16;

/// The state of one request in the proxy.
pub struct RequestContext {
    /// The rules as of the start of the request; a reload does not change them.
    pub(super) rules: Arc<Rules>,
    /// Index of the route; none before routing and for requests that the edge answers itself.
    pub(super) route: Option<usize>,
    /// Index of the route's group, if it has one.
    pub(super) group: Option<usize>,
    /// Compression of the answer, if any.
    pub(super) encoder: Option<Encoder>,
    /// The status of the backend's answer, if an error page replaces that answer.
    pub(super) intercepted: Option<StatusCode>,
    /// The sale, if the edge answers the request itself.
    pub(super) sale: Option<Arc<Sale>>,
    /// The client.
    pub(super) client: Client,
    /// Counts the request towards its client's concurrent requests on the route.
    pub(super) taken: Option<QuotaGuard>,
    /// Bytes of the request body passed so far.
    pub(super) body: u64,
    /// For the access log.
    pub(super) log_fields: RequestLog,
    /// The trace, if tracing is enabled.
    pub(super) trace: Option<Box<trace::Request>>,
    /// When processing began.
    pub(super) began: Option<Instant>,
    /// When the current backend was chosen; none once it has answered.
    pub(super) asked: Option<Instant>,
    /// The current backend.
    pub(super) at: Option<Pick>,
    /// The next backend, if a failure has already chosen it.
    pub(super) next: Option<Pick>,
    /// Backends tried before the current one.
    pub(super) tried: Tried,
    /// The backend tried last before the current one.
    pub(super) last: Option<SocketAddr>,
    /// A pooled connection was closed by the backend, and the request was sent to the same backend again.
    pub(super) found_stale: bool,
}

/// IDs of backends, in the order in which they were tried.
#[derive(Default)]
pub struct Tried {
    backends: [usize; MAX_TRIES],
    len: usize,
}

impl RequestContext {
    /// The state of a new request.
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
        // All callers run after `request_filter`, which has found the route and so the group.
        &self.rules.groups[self.group.unwrap_or_default()]
    }

    pub(super) fn max_body(&self) -> Option<u64> {
        self.rules.routes.get(self.route?)?.max_body
    }

    /// Leaves the current backend.
    pub(super) fn leave(&mut self) -> Option<Pick> {
        let left = self.at.take();
        if left.is_some() {
            self.log_fields.left();
        }
        self.last = left.as_ref().map(Pick::address).or(self.last);
        left
    }

    /// The current backend, or the last one.
    pub(super) fn last(&self) -> Option<SocketAddr> {
        self.at.as_ref().map(Pick::address).or(self.last)
    }
}

impl Tried {
    pub(super) fn push(&mut self, backend: usize) {
        // The configuration allows no more tries than fit.
        if let Some(place) = self.backends.get_mut(self.len) {
            *place = backend;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[usize] {
        &self.backends[..self.len]
    }
}

/// State that only the access log needs.
#[derive(Default)]
pub struct RequestLog {
    /// The request ID, if enabled.
    pub id: Option<RequestId>,
    /// The purchase label of an answer of the edge itself.
    pub(super) label: PurchaseLabel,
    /// Number of backends tried.
    pub(super) tries: u32,
    /// When the last backend was chosen.
    chosen: Option<Instant>,
    /// How long the last backend took.
    pub(super) took: Option<Duration>,
}

impl RequestLog {
    /// Records an answer of the edge itself.
    pub fn answered(&mut self, answer: &Answer) {
        self.label = answer.label;
    }

    /// Records the choice of a backend.
    pub fn chosen(&mut self, now: Instant) {
        self.tries += 1;
        self.chosen = Some(now);
        self.took = None;
    }

    /// Records that the backend is done.
    pub fn left(&mut self) {
        self.took = self.took.or_else(|| self.chosen.map(|chosen| chosen.elapsed()));
    }
}
