//! The only [`ProxyHttp`]: what happens to a request that is not answered by us, from its head to its answer.
//!
//! In order: `request_filter` finds the route, `upstream_peer` the backend, `upstream_request_filter` what the backend is
//! told about the client, `response_filter` sees the answer pass. `fail_to_connect` and `error_while_proxy` decide
//! whether another backend is tried, and `fail_to_proxy` tells the client that none could answer.

mod failure;
mod forward;
mod own;
mod reply;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession as HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result, RetryType};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::sync::mpsc;

use crate::config::{ClientTimeouts, Config, Route};
use crate::route;
use crate::shop::Shop;
use crate::upstream::{Pick, Upstream};
use failure::{Failure, FailureLog};

/// The most backends that one request may be tried at.
pub const MAX_TRIES: usize = 16;

/// The proxy.
pub struct Proxy {
    shop: Arc<Shop>,
    routes: Vec<Route>,
    groups: Vec<Group>,
    /// Failures of requests that the edge answers itself.
    own_log: FailureLog,
    client: ClientTimeouts,
    /// Never used: every connection holds the proxy, so when the other end finds this one gone, so are they all.
    _alive: mpsc::Sender<Infallible>,
}

/// A group of backends and what the proxy keeps for it.
struct Group {
    upstream: Arc<Upstream>,
    host: HeaderValue,
    log: FailureLog,
}

/// One request on its way.
#[derive(Default)]
pub struct Way {
    /// Index of the group, once the route is found; a request that the edge answers itself has none.
    group: Option<usize>,
    /// Where the request is now.
    at: Option<Pick>,
    /// Where it goes next, if that was decided when it failed.
    next: Option<Pick>,
    /// Where it has been, without the present place.
    tried: Tried,
    /// A pooled connection turned out to be closed, and the same backend got a second chance.
    found_stale: bool,
}

/// Backends in the order in which they were tried.
#[derive(Default)]
struct Tried {
    backends: [usize; MAX_TRIES],
    len: usize,
}

impl Proxy {
    /// A proxy for the sales of `shop` and the routes of `config` to `upstreams`, which are those of `config` in the
    /// same order. `alive` is dropped with the last connection.
    ///
    /// # Errors
    ///
    /// If a group's `Host` cannot be sent in a header.
    pub fn new(
        config: &Config,
        shop: Arc<Shop>,
        upstreams: &[Arc<Upstream>],
        alive: mpsc::Sender<Infallible>,
    ) -> Result<Self, HostError> {
        let group = |upstream: &Arc<Upstream>| {
            let settings = upstream.settings();
            let host = forward::default_host(settings).map_err(|_| HostError { upstream: settings.name.clone() })?;
            Ok(Group { upstream: upstream.clone(), host, log: FailureLog::default() })
        };
        Ok(Self {
            shop,
            routes: config.routes.clone(),
            groups: upstreams.iter().map(group).collect::<Result<_, _>>()?,
            own_log: FailureLog::default(),
            client: config.client.clone(),
            _alive: alive,
        })
    }

    /// Waits on the client, from this request on. Pingora's own are none for writing, and none at all between the
    /// requests of a connection.
    fn limit_waits(&self, session: &mut Session) {
        session.set_read_timeout(Some(self.client.read));
        session.set_write_timeout(Some(self.client.send));
        // Only if the connection is to be kept at all: Pingora would otherwise keep the connections of HTTP/1.0 clients
        // that wait for their end. It counts in whole seconds, and takes 0 for no limit.
        if session.get_keepalive().is_some() {
            let keepalive = self.client.keepalive;
            let seconds = keepalive.as_secs() + u64::from(keepalive.subsec_nanos() > 0);
            session.set_keepalive((seconds > 0).then_some(seconds));
        }
    }

    fn group(&self, way: &Way) -> &Group {
        // Whoever asks is behind `request_filter`, which has found the route and so the group.
        &self.groups[way.group.unwrap_or_default()]
    }

    /// The place that the request failed at is left, and the next one chosen if there may be one.
    fn go_elsewhere(&self, session: &Session, way: &mut Way) {
        if let Some(failed) = way.at.take() {
            way.tried.push(failed.backend);
        }
        let upstream = &self.group(way).upstream;
        if way.tried.len < upstream.settings().tries {
            way.next = upstream.pick(client_ip(session), way.tried.as_slice());
        }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Way;

    fn new_ctx(&self) -> Way {
        Way::default()
    }

    /// None: Pingora's default adds a compression module to every request, only to leave it switched off.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, way: &mut Way) -> Result<bool> {
        self.limit_waits(session);
        if let HttpSession::H1(session) = session.as_downstream_mut() {
            // Requests that come in one heap are answered one after the other, as HTTP/1.1 has it (RFC 9112, 9.3.2).
            session.set_pipelining_enabled(true);
        }
        if lacks_host(session.req_header()) {
            session.set_keepalive(None);
            reply::plain(session, StatusCode::BAD_REQUEST).await?;
            return Ok(true);
        }
        // What the edge answers itself comes before anything is routed.
        let shop = Arc::clone(&self.shop);
        let path = session.req_header().uri.path().to_owned();
        if let Some(place) = shop.find(&path) {
            own::serve(session, place).await?;
            return Ok(true);
        }

        let request = session.req_header();
        let host = request.headers.get(HOST).and_then(|host| host.to_str().ok());
        let Some(route) = route::find(&self.routes, host, request.uri.path()) else {
            reply::plain(session, StatusCode::NOT_FOUND).await?;
            return Ok(true);
        };
        way.group = Some(self.routes[route].upstream);
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, way: &mut Way) -> Result<Box<HttpPeer>> {
        let upstream = &self.group(way).upstream;
        let pick = way.next.take().or_else(|| upstream.pick(client_ip(session), way.tried.as_slice()));
        let Some(pick) = pick else {
            return Error::e_explain(ErrorType::HTTPStatus(503), "no backend is up");
        };
        way.at = Some(pick);

        let timeouts = &upstream.settings().timeouts;
        let mut peer = HttpPeer::new(upstream.address(pick.backend), false, String::new());
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect);
        peer.options.read_timeout = Some(timeouts.read);
        peer.options.write_timeout = Some(timeouts.send);
        peer.options.idle_timeout = Some(timeouts.idle);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        way: &mut Way,
    ) -> Result<()> {
        let group = self.group(way);
        forward::describe_client(request, client_ip(session), &group.upstream.settings().host_header, &group.host)
    }

    async fn response_filter(&self, session: &mut Session, answer: &mut ResponseHeader, way: &mut Way) -> Result<()> {
        if let Some(at) = way.at.filter(|at| at.trial) {
            self.group(way).upstream.succeeded(at.backend);
            way.at = Some(Pick { trial: false, ..at });
        }
        // It speaks of the backend's connection; `Connection` itself is always written anew.
        answer.remove_header("keep-alive");
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            // A tunnel may be silent in one direction for as long as it likes; the wait on the backend bounds it.
            session.set_read_timeout(None);
        }
        if session.req_header().version < Version::HTTP_11 && answer.remove_header(&TRANSFER_ENCODING).is_some() {
            // The client does not know chunks (RFC 9112, 6.1): for it, the body ends with the connection.
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// No connection, so nothing of the request was sent: any request may go elsewhere.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        way: &mut Way,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Pingora calls it an internal error when we are the ones who have no socket or port left.
        if let Some(at) = way.at.filter(|_| *error.etype() != ErrorType::InternalError) {
            self.group(way).upstream.failed(at.backend, error.etype().as_str());
        }
        self.go_elsewhere(session, way);
        error.set_retry(way.next.is_some());
        error
    }

    /// The connection broke, or the backend said nothing, or nonsense. As Nginx's `proxy_next_upstream error timeout`:
    /// the request goes elsewhere if nothing of the answer reached the client and sending it twice means the same as
    /// sending it once. Pingora can tell neither how much of a request went out nor whether the backend acted on it, so
    /// any other request, a POST above all, is never sent twice, not even when a pooled connection was found closed.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        way: &mut Way,
        reused: bool,
    ) -> Box<Error> {
        let by_backend = *error.esource() == ErrorSource::Upstream;
        let repeatable = by_backend
            && session.req_header().method.is_idempotent()
            && session.response_written().is_none()
            && !session.as_downstream().retry_buffer_truncated();
        let stale = reused
            && (error.retry == RetryType::ReusedOnly || *error.etype() == ErrorType::WriteError)
            && !way.found_stale;

        if repeatable && stale {
            // The backend closed the connection while it was idle, which is its right and no failure.
            way.found_stale = true;
            way.next = way.at;
        } else {
            if let Some(at) = way.at.filter(|_| by_backend && !stale) {
                self.group(way).upstream.failed(at.backend, error.etype().as_str());
            }
            if repeatable {
                self.go_elsewhere(session, way);
            }
        }
        error.set_retry(way.next.is_some());
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, way: &mut Way) -> FailToProxy {
        let failure = Failure::of(error);
        match way.group.map(|group| &self.groups[group]) {
            Some(group) => group.log.record(failure, error, session, Some((&group.upstream, way.last()))),
            None => self.own_log.record(failure, error, session, None),
        }
        let unanswered = session
            .response_written()
            .is_none_or(|answer| answer.status.is_informational() && answer.status != StatusCode::SWITCHING_PROTOCOLS);
        // Pingora does not keep a connection after a failure, so the client is told.
        session.set_keepalive(None);
        if let Some(status) = failure.status().filter(|_| unanswered) {
            // An error here is a client that left.
            let _ = reply::plain(session, status).await;
        }
        FailToProxy { error_code: failure.code(), can_reuse_downstream: false }
    }

    /// What is worth a line was written by `fail_to_proxy`.
    fn suppress_error_log(&self, _session: &Session, _way: &Way, _error: &Error) -> bool {
        true
    }

    /// A request that another backend may still answer is not worth a line; the backend's health has one.
    fn suppress_proxy_warn_log(&self, _: &Session, _: &Way, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

impl Way {
    /// The backend that failed last, if any was tried.
    fn last(&self) -> Option<usize> {
        self.at.map(|at| at.backend).or_else(|| self.tried.as_slice().last().copied())
    }
}

impl Tried {
    fn push(&mut self, backend: usize) {
        // The settings allow no more tries than there is room for.
        if let Some(place) = self.backends.get_mut(self.len) {
            *place = backend;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[usize] {
        &self.backends[..self.len]
    }
}

/// A group whose `Host` has characters that no header can carry.
#[derive(Debug, thiserror::Error)]
#[error("upstreams.{upstream}: its Host cannot be sent in a header")]
pub struct HostError {
    upstream: String,
}

/// A request of HTTP/1.1 has to say for which host it is (RFC 9112, 3.2). Pingora has refused those that say it twice.
fn lacks_host(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_11 && request.uri.host().is_none() && !request.headers.contains_key(HOST)
}

/// The address that the connection came from; all zeros for a connection without one, which no listener makes.
fn client_ip(session: &Session) -> IpAddr {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip().to_canonical())
}

#[cfg(test)]
mod tests;
