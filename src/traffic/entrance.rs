//! The checks that every request passes first, on either path: client address, access rules and rate limits.

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
    /// Creates an entrance with these `limits`. `answers` counts the status of every answer, `access_log` records
    /// requests if it is set, and `ids` is the header of request IDs if they are enabled.
    #[must_use]
    pub fn new(
        limits: Arc<Limits>,
        answers: Arc<Codes>,
        access_log: Option<Arc<AccessLog>>,
        ids: Option<RequestIdHeader>,
    ) -> Self {
        Self { limits, answers, access_log, ids }
    }

    /// The limits of clients, with counts of refusals.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts a request by the status of its answer, or as abandoned by its client.
    pub fn answered(&self, status: Option<u16>) {
        self.answers.count(status);
    }

    /// The access log, if enabled.
    #[must_use]
    pub fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_deref()
    }

    /// The header of request IDs, if enabled.
    #[must_use]
    pub fn id_header(&self) -> Option<&RequestIdHeader> {
        self.ids.as_ref()
    }

    /// The ID of a request with this head on a connection from `peer`, if request IDs are enabled.
    #[must_use]
    pub fn id_of(&self, rules: &Rules, peer: IpAddr, head: &dyn Head) -> Option<RequestId> {
        let header = self.ids.as_ref()?;
        Some(RequestId::of(header, rules.clients.is_proxy(peer.to_canonical()), head))
    }

    /// Whether the limits allow one more connection, also per address if `client` is known. Trusted proxies are exempt
    /// from the limit per address because their clients share their connections.
    #[must_use]
    pub fn admit(&self, rules: &Rules, peer: Option<IpAddr>) -> Option<ConnectionGuard> {
        self.limits.admit(peer.filter(|peer| !rules.clients.is_proxy(*peer)))
    }

    /// Whether the limits still allow a connection after its PROXY header named the client.
    #[must_use]
    pub fn admit_as(&self, rules: &Rules, admitted: &mut ConnectionGuard, peer: IpAddr) -> bool {
        rules.clients.is_proxy(peer) || self.limits.admit_as(admitted, peer)
    }

    /// Checks a request of `client` against the limits and counts it. `endpoint` is set if the edge itself answers the
    /// request; it selects the format of a refusal.
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

    /// Checks a request without counting it. Used before a request is passed to the proxy, where [`Entrance::enter`]
    /// decides.
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
