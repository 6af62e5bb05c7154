//! What every request passes first, whichever way it came in: who asks, whether that address may, and not too often.

use std::net::IpAddr;
use std::sync::Arc;

use crate::http::answer::Answer;
use crate::http::head::Head;
use crate::http::request_id::RequestId;
use crate::http::request_id::RequestIdHeader;
use crate::limits::{ConnectionGuard, Limits};
use crate::observe::access_log::AccessLog;
use crate::observe::telemetry::Codes;
use crate::sale::metrics::SaleMetrics;
use crate::sale::reply;
use crate::sale::request::Dialect;
use crate::sale::shop::Endpoint;
use crate::traffic::rules::Rules;

/// The entrance of an edge.
#[derive(Debug)]
pub struct Entrance {
    limits: Arc<Limits>,
    answers: Arc<Codes>,
    access_log: Option<Arc<AccessLog>>,
    ids: Option<RequestIdHeader>,
}

impl Entrance {
    /// An entrance for as many as `limits` allow. `answers` counts what all requests were answered, and `access_log`
    /// takes them down, if there is one; `ids` is the header for the ids of requests, if they have any.
    #[must_use]
    pub fn new(
        limits: Arc<Limits>,
        answers: Arc<Codes>,
        access_log: Option<Arc<AccessLog>>,
        ids: Option<RequestIdHeader>,
    ) -> Self {
        Self { limits, answers, access_log, ids }
    }

    /// What clients may take, and what was refused them.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A request that came in here was answered with this status, or its client went first.
    pub fn answered(&self, status: Option<u16>) {
        self.answers.count(status);
    }

    /// Where requests are written down, if they are.
    #[must_use]
    pub fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_deref()
    }

    /// The header for the ids of requests, if they have any.
    #[must_use]
    pub fn id_header(&self) -> Option<&RequestIdHeader> {
        self.ids.as_ref()
    }

    /// The id of a request with this head, over a connection from `peer`, if requests have any.
    #[must_use]
    pub fn id_of(&self, rules: &Rules, peer: IpAddr, head: &dyn Head) -> Option<RequestId> {
        let header = self.ids.as_ref()?;
        Some(RequestId::of(header, rules.clients.is_proxy(peer.to_canonical()), head))
    }

    /// Whether one more connection may be served, from this address if it is known yet. One of our own proxies has as
    /// many as it needs: its clients share them.
    #[must_use]
    pub fn admit(&self, rules: &Rules, peer: Option<IpAddr>) -> Option<ConnectionGuard> {
        self.limits.admit(peer.filter(|peer| !rules.clients.is_proxy(*peer)))
    }

    /// Whether a connection may still be served, now that it is known (PROXY protocol) whose it is.
    #[must_use]
    pub fn admit_as(&self, rules: &Rules, admitted: &mut ConnectionGuard, peer: IpAddr) -> bool {
        rules.clients.is_proxy(peer) || self.limits.admit_as(admitted, peer)
    }

    /// Lets a request of `client` in, and counts it. `endpoint` is what it asks, if the edge answers it itself; it
    /// decides how a refusal is worded.
    ///
    /// # Errors
    /// The answer, if the request is refused.
    pub fn enter(
        &self,
        rules: &Rules,
        client: IpAddr,
        method: &str,
        endpoint: Option<Endpoint<'_>>,
    ) -> Result<(), &'static Answer> {
        self.decide(rules, client, method, endpoint, Limits::take)
    }

    /// The same without counting it, for a request that is passed on to where [`Entrance::enter`] decides.
    ///
    /// # Errors
    /// As of [`Entrance::enter`].
    pub fn would_enter(&self, rules: &Rules, client: IpAddr, method: &str) -> Result<(), &'static Answer> {
        self.decide(rules, client, method, None, Limits::could_take)
    }

    fn decide(
        &self,
        rules: &Rules,
        client: IpAddr,
        method: &str,
        endpoint: Option<Endpoint<'_>>,
        ask: impl Fn(&Limits, IpAddr) -> bool,
    ) -> Result<(), &'static Answer> {
        let dialect =
            |count: fn(&SaleMetrics)| endpoint.map_or(Dialect::Rest, |endpoint| endpoint.turn_away(method, count));
        if !rules.access.allows(client) {
            self.limits.denied();
            return Err(reply::address_denied(dialect(SaleMetrics::denied)));
        }
        if !ask(&self.limits, client) {
            return Err(reply::too_many_requests(dialect(SaleMetrics::limited)));
        }
        Ok(())
    }
}
