//! The only [`ProxyHttp`]: handles a request that the front door does not answer, from its head to its answer.
//!
//! In order: `request_filter` finds the route, `upstream_peer` picks the backend, `upstream_request_filter` sets the
//! headers for the backend, `response_filter` handles the head of the answer, and `upstream_response_body_filter` its
//! body. `fail_to_connect` and `error_while_proxy` decide whether to try another backend, and `fail_to_proxy` sends an
//! error if no backend answered.

mod compression;
mod context;
mod deadline;
mod error_report;
mod files;
mod forward;
mod hash_key;
mod own;
mod pages;
mod refusal;
mod reply;
mod request_log;
mod tunnel;

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession as HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result, RetryType};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::sync::mpsc;

use crate::config::{ClientTimeouts, Target};
use crate::http::answer::Answer;
use crate::http::client::Client;
use crate::limits::key;
use crate::observe::trace;
use crate::sale::reply::{address_denied, body_too_large, too_many_requests};
use crate::sale::request::Dialect;
use crate::sale::shop::Shop;
use crate::traffic::entrance::Entrance;
use crate::traffic::request_error::{RequestError, RequestErrorLog};
use crate::traffic::route;
use crate::traffic::rules::Current;
use crate::upstream::{Pick, PickError, Upstream};
use compression::Encoder;
pub use context::{MAX_TRIES, RequestContext};
pub use deadline::{and_whether_asked, with_head_deadline};
use error_report::ErrorSite;
use files::ServeOptions;
use request_log::RequestIdModule;

/// The proxy.
pub struct Proxy {
    shop: Arc<Shop>,
    rules: Current,
    /// Failures of requests that the edge answers itself.
    own_log: RequestErrorLog,
    entrance: Arc<Entrance>,
    /// Never read. Every connection holds the proxy, so the other end of this channel closes when the last connection
    /// ends.
    _alive: mpsc::Sender<Infallible>,
}

impl Proxy {
    /// Creates the proxy: `shop` answers purchases, and `rules` route all other requests. `alive` is dropped with the
    /// last connection.
    #[must_use]
    pub fn new(shop: Arc<Shop>, rules: Current, entrance: Arc<Entrance>, alive: mpsc::Sender<Infallible>) -> Self {
        Self { shop, rules, own_log: RequestErrorLog::default(), entrance, _alive: alive }
    }

    /// Sets the client timeouts from this request on. By default Pingora has none for writing and none between the
    /// requests of a connection.
    fn limit_waits(client: &ClientTimeouts, session: &mut Session) {
        session.set_read_timeout(Some(client.read));
        session.set_write_timeout(Some(client.send));
        // Only if the connection is to be kept: otherwise Pingora would keep connections of HTTP/1.0 clients that wait
        // for the close. The timeout is in whole seconds, and 0 means no limit.
        if session.get_keepalive().is_some() {
            let keepalive = client.keepalive;
            let seconds = keepalive.as_secs() + u64::from(keepalive.subsec_nanos() > 0);
            session.set_keepalive((seconds > 0).then_some(seconds));
        }
    }

    /// Answers with this status, using the operator's page if one is configured.
    async fn refuse(&self, session: &mut Session, ctx: &RequestContext, status: StatusCode) -> Result<()> {
        let answer = pages::answer(&ctx.rules.pages, status);
        match ctx.route {
            Some(route) => reply::send_by(session, &answer, &ctx.rules.routes[route].response_headers).await,
            None => reply::send(session, &answer).await,
        }
    }

    /// Checks the limits of the route. Returns the answer if the request is refused.
    fn turn_away(&self, session: &Session, index: usize, ctx: &mut RequestContext) -> Option<Cow<'static, Answer>> {
        let (route, client) = (&ctx.rules.routes[index], ctx.client.address);
        if !route.access.allows(client) {
            self.entrance.limits().denied();
            return Some(Cow::Borrowed(address_denied(Dialect::Rest)));
        }
        let said: Option<u64> =
            session.req_header().headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if let (Some(most), Some(length)) = (route.max_body, said)
            && length > most
        {
            return Some(Cow::Owned(body_too_large(most)));
        }
        ctx.taken = ctx.rules.quotas[index].take(key(client));
        if ctx.taken.is_none() {
            self.entrance.limits().refused_of_route();
            return Some(Cow::Borrowed(too_many_requests(Dialect::Rest)));
        }
        None
    }

    /// Leaves the backend that failed, and picks another if a retry is allowed.
    fn go_elsewhere(session: &Session, ctx: &mut RequestContext) {
        if let Some(failed) = ctx.leave() {
            ctx.tried.push(failed.id());
        }
        let upstream = &ctx.group().upstream;
        if ctx.tried.as_slice().len() < upstream.settings().tries {
            ctx.next = pick(upstream, session, ctx).ok();
        }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(self.rules.load_full())
    }

    /// No modules unless request IDs are enabled: Pingora's default adds a disabled compression module to every
    /// request.
    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        if self.entrance.id_header().is_some() {
            modules.add_module(Box::new(RequestIdModule));
        }
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        deadline::head_is_whole();
        ctx.began = Some(Instant::now());
        ctx.client = ctx.rules.clients.of(peer_address(session).ip(), session.req_header());
        self.name(session, ctx);
        Self::limit_waits(&ctx.rules.client, session);
        if let HttpSession::H1(session) = session.as_downstream_mut() {
            // Pipelined requests are answered one after the other (RFC 9112, 9.3.2).
            session.set_pipelining_enabled(true);
        }
        if session.req_header().version == Version::HTTP_10 {
            // RFC 9110, 15.2 and 10.1.1: HTTP/1.0 has no interim answers and no expectations.
            session.set_ignore_info_resp(true);
            session.req_header_mut().remove_header(&EXPECT);
        }
        if let Some(answer) = refusal::of(session) {
            session.set_keepalive(None);
            reply::send(session, &answer).await?;
            return Ok(true);
        }
        let shop = Arc::clone(&self.shop);
        let path = session.req_header().uri.path().to_owned();
        let endpoint = shop.find(&path);
        ctx.sale = endpoint.map(|endpoint| Arc::clone(endpoint.sale()));
        let method = session.req_header().method.as_str();
        // The front door decides the same for plain requests without counting them; every request is counted here.
        if let Err(answer) = self.entrance.enter(&ctx.rules, ctx.client.address, method, endpoint) {
            ctx.log_fields.answered(answer);
            reply::send(session, answer).await?;
            return Ok(true);
        }
        // The edge's own endpoints take precedence over routes.
        if let Some(endpoint) = endpoint {
            let answer = own::answer(session, endpoint, ctx.client, ctx.rules.client.read).await?;
            ctx.log_fields.answered(&answer);
            reply::send(session, &answer).await?;
            return Ok(true);
        }

        let request = session.req_header();
        // HTTP/2 has the host in the target; if `Host` is there too, both are equal.
        let authority = || request.uri.authority().map(|authority| authority.as_str());
        let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(authority);
        let Some(index) = route::find(&ctx.rules.routes, host, request.uri.path()) else {
            self.refuse(session, ctx, StatusCode::NOT_FOUND).await?;
            return Ok(true);
        };
        ctx.route = Some(index);
        let refused = self.turn_away(session, index, ctx);
        let rules = &ctx.rules;
        let route = &rules.routes[index];
        if let Some(answer) = refused {
            ctx.log_fields.answered(&answer);
            reply::send_by(session, &answer, &route.response_headers).await?;
            return Ok(true);
        }
        match (&route.target, &rules.folders[index]) {
            (Target::Upstream(group), _) => {
                ctx.group = Some(*group);
                if trace::is_on() {
                    ctx.trace = begin_trace(session, ctx.client, &route.path);
                }
                Ok(false)
            }
            (Target::Files(_), folder) => {
                if let Some(folder) = folder {
                    let path = match &route.rewrite {
                        Some(rewrite) => forward::rewritten(&path, &route.path, rewrite),
                        None => path,
                    };
                    let compression = rules.compression.as_ref().filter(|_| route.compress);
                    let options = ServeOptions { compression, rules: &route.response_headers, pages: &rules.pages };
                    files::serve(folder, session, &path, options).await?;
                }
                Ok(true)
            }
        }
    }

    /// Counts the bytes of a body whose length was not declared, and ends the body with exactly one last chunk.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            // Pingora 0.9.1 (`send_body_to_pipe` and `send_body_to1` in pingora-proxy/src/proxy_h1.rs) writes an empty
            // last part as a chunk of its own, which is the last chunk, and then the last chunk. The backend would read
            // the second one as its next request. HTTP/2 ends a body with an empty DATA frame.
            *body = None;
        }
        ctx.body += body.as_ref().map_or(0, |part| part.len() as u64);
        match ctx.max_body() {
            // A tunnel has no length.
            Some(most) if ctx.body > most && !session.was_upgraded() => {
                Err(Error::explain(ErrorType::HTTPStatus(413), "a body longer than its route allows").into_down())
            }
            _ => Ok(()),
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
        let group = ctx.group.unwrap_or_default();
        let next = ctx.next.take();
        let upstream = &ctx.rules.groups[group].upstream;
        let pick = match next {
            Some(pick) => pick,
            None => pick(upstream, session, ctx).map_err(error_report::error)?,
        };
        let settings = upstream.settings();
        let timeouts = &settings.timeouts;
        let mut peer = HttpPeer::new(pick.address(), false, String::new());
        if let Some(trace) = &mut ctx.trace {
            trace.ask(&settings.name, pick.address());
        }
        ctx.at = Some(pick);
        let now = Instant::now();
        ctx.log_fields.chosen(now);
        ctx.asked = Some(now);
        // The retry sends the body from its beginning.
        ctx.body = 0;

        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect);
        peer.options.read_timeout = Some(timeouts.read);
        peer.options.write_timeout = Some(timeouts.send);
        peer.options.idle_timeout = Some(timeouts.idle);
        if session.req_header().headers.contains_key(UPGRADE) {
            tunnel::prepare(&mut peer);
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let group = ctx.group();
        if !ctx.client.by_proxy {
            ctx.rules.proxy_headers.iter().for_each(|name| drop(request.remove_header(name.as_str())));
        }
        if let Some(trace) = &ctx.trace {
            forward::say_trace(request, trace)?;
        }
        if let (Some(header), Some(id)) = (self.entrance.id_header(), &ctx.log_fields.id) {
            request.insert_header(header.sent.clone(), id.to_string())?;
        }
        let host_header = &group.upstream.settings().host_header;
        forward::describe_client(request, ctx.client, is_encrypted(session), host_header, &group.host)?;
        let Some(route) = ctx.route.map(|route| &ctx.rules.routes[route]) else {
            return Ok(());
        };
        if let Some(rewrite) = &route.rewrite {
            forward::replace_prefix(request, &route.path, rewrite)?;
        }
        forward::apply_to_request(&route.request_headers, request)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if let (Some(at), Some(asked)) = (&ctx.at, ctx.asked.take()) {
            at.answered(asked.elapsed());
        }
        if let Some(trace) = &mut ctx.trace {
            trace.answered(answer.status.as_u16());
        }
        if ctx.at.as_mut().is_some_and(Pick::take_trial)
            && let Some(at) = &ctx.at
        {
            ctx.group().upstream.succeeded(at);
        }
        // It describes the connection to the backend; `Connection` itself is always rewritten.
        answer.remove_header("keep-alive");
        forward::keep_one_length(answer)?;
        if pages::takes_the_place(&ctx.rules.pages, answer.status) {
            ctx.intercepted = Some(answer.status);
            return Error::e_explain(ErrorType::HTTPStatus(answer.status.as_u16()), "a page takes its place");
        }
        if let Some(route) = ctx.route.map(|route| &ctx.rules.routes[route]) {
            if let Some(compression) = ctx.rules.compression.as_ref().filter(|_| route.compress) {
                ctx.encoder = Encoder::begin(compression, session.req_header(), answer)?;
            }
            forward::apply_to_answer(&route.response_headers, answer)?;
        }
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            // A tunnel may be idle in one direction indefinitely; the backend timeout bounds it.
            session.set_read_timeout(None);
        }
        if session.req_header().version < Version::HTTP_11 && answer.remove_header(&TRANSFER_ENCODING).is_some() {
            // The client does not support chunks (RFC 9112, 6.1), so closing the connection ends the body.
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// Frees the backend's slot at the end of its answer, even if the client is still reading.
    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        is_end: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        if is_end {
            ctx.leave();
        }
        Ok(None)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        if let Some(encoder) = &mut ctx.encoder {
            *body = encoder.encode(body.as_ref(), end_of_stream)?;
        }
        Ok(None)
    }

    /// Without a connection nothing was sent, so any request may be retried elsewhere.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Pingora reports an internal error if this machine has no socket or port left.
        if let Some(at) = ctx.at.as_ref().filter(|_| *error.etype() != ErrorType::InternalError) {
            ctx.group().upstream.failed(at, error.etype().as_str());
        }
        Self::go_elsewhere(session, ctx);
        error.set_retry(ctx.next.is_some());
        error
    }

    /// The connection broke, or the backend timed out or sent an invalid answer. As with nginx's `proxy_next_upstream
    /// error timeout`, Spikegate retries elsewhere only if no part of the answer reached the client and the method is
    /// idempotent. Pingora does not report how much of a request was sent or whether the backend acted on it. Spikegate
    /// therefore never sends other requests, such as POST, twice, even if a pooled connection was found closed.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        if *error.esource() == ErrorSource::Upstream
            && *error.etype() == ErrorType::ReadTimedout
            && !session.is_body_done()
        {
            // The backend may have been waiting for the rest of the request, as the edge was. HTTP/2 streams have no
            // other deadline for that, and a client must not be able to take a backend out of service by stalling.
            error.esource = ErrorSource::Downstream;
        }
        let by_backend = *error.esource() == ErrorSource::Upstream;
        let repeatable = by_backend
            && session.req_header().method.is_idempotent()
            && session.response_written().is_none()
            && !session.as_downstream().retry_buffer_truncated();
        let stale = reused
            && (error.retry == RetryType::ReusedOnly || *error.etype() == ErrorType::WriteError)
            && !ctx.found_stale;

        if repeatable && stale {
            // The backend closed an idle connection, which is not a failure.
            ctx.found_stale = true;
            ctx.next = ctx.at.take();
        } else {
            if let Some(at) = ctx.at.as_ref().filter(|_| by_backend && !stale) {
                ctx.group().upstream.failed(at, error.etype().as_str());
            }
            if repeatable {
                Self::go_elsewhere(session, ctx);
            }
        }
        error.set_retry(ctx.next.is_some());
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
        if let Some(status) = ctx.intercepted {
            session.set_keepalive(None);
            // An error here means that the client left.
            let _ = self.refuse(session, ctx, status).await;
            return FailToProxy { error_code: status.as_u16(), can_reuse_downstream: false };
        }
        let failure = error_report::of(error);
        let group = ctx.group.map(|group| &ctx.rules.groups[group]);
        let place = ErrorSite {
            route: ctx.route.map(|route| ctx.rules.routes[route].path.as_str()),
            upstream: group.map(|group| &*group.upstream),
            backend: ctx.last(),
            id: ctx.log_fields.id.as_ref(),
        };
        let log = group.map_or(&self.own_log, |group| &group.log);
        error_report::record(log, failure, error, session, place);
        // The backend is done with the request.
        ctx.leave();
        let unanswered = session
            .response_written()
            .is_none_or(|answer| answer.status.is_informational() && answer.status != StatusCode::SWITCHING_PROTOCOLS);
        // Pingora closes the connection after a failure, so the answer announces that.
        session.set_keepalive(None);
        // An error here means that the client left.
        let _ = match (failure, ctx.max_body()) {
            _ if !unanswered => Ok(()),
            (RequestError::BackendsFull, _) => reply::send(session, reply::busy()).await,
            (RequestError::BodyTooLarge, Some(most)) => reply::send(session, &body_too_large(most)).await,
            _ => match failure.status() {
                Some(status) => self.refuse(session, ctx, status).await,
                None => Ok(()),
            },
        };
        FailToProxy { error_code: failure.code(), can_reuse_downstream: false }
    }

    /// Counts every request at its end.
    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut RequestContext) {
        self.write_down(session, ctx);
        let status = session.response_written().map(|answer| answer.status.as_u16());
        self.entrance.answered(status);
        if let Some(trace) = ctx.trace.take() {
            trace.end(status, error.map(|error| error.etype().as_str()));
        }
        if ctx.group.is_some() {
            let metrics = ctx.group().upstream.metrics();
            metrics.codes.count(status);
            // The lifetime of a tunnel is up to its ends, so its duration is not recorded.
            if let Some(began) = ctx.began.filter(|_| !session.was_upgraded()) {
                metrics.waits.add(began.elapsed());
            }
        }
    }

    /// `fail_to_proxy` has already logged failures.
    fn suppress_error_log(&self, _session: &Session, _way: &RequestContext, _error: &Error) -> bool {
        true
    }

    /// Failures that are retried are not logged; changes of the backend's health are.
    fn suppress_proxy_warn_log(&self, _: &Session, _: &RequestContext, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

/// Picks a backend of this group for a request.
fn pick(upstream: &Upstream, session: &Session, ctx: &RequestContext) -> Result<Pick, PickError> {
    let client = ctx.client.address;
    upstream.pick(client, |key| hash_key::hash(session.req_header(), client, key), ctx.tried.as_slice())
}

/// Starts the trace of a request of `client` on the route with this prefix.
fn begin_trace(session: &Session, client: Client, route: &str) -> Option<Box<trace::Request>> {
    let request = session.req_header();
    let parent = if client.by_proxy { trace::parent(request) } else { None };
    let known = trace::Known {
        method: request.method.as_str(),
        path: request.uri.path(),
        route,
        scheme: if is_encrypted(session) { "https" } else { "http" },
        client: client.address,
    };
    trace::Request::begin(known, parent.as_ref()).map(Box::new)
}

/// Whether the client came over TLS.
fn is_encrypted(session: &Session) -> bool {
    session.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

/// The peer address; all zeros for a connection without an address, which no listener creates.
fn peer_address(session: &Session) -> SocketAddr {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.copied().unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())
}

#[cfg(test)]
mod tests;
