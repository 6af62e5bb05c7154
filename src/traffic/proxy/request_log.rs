//! Request IDs, and the access log's line for a request that the proxy handled.

use std::any::Any;

use async_trait::async_trait;
use http::Version;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::modules::http::{HttpModule, HttpModuleBuilder, Module};
use pingora_proxy::Session;

use super::{Proxy, RequestContext, peer_address};
use crate::observe::access_log::{Record, Target};

impl Proxy {
    /// Assigns a request ID, if they are enabled. Answers carry it.
    pub(super) fn name(&self, session: &mut Session, ctx: &mut RequestContext) {
        let Some(header) = self.entrance.id_header() else { return };
        ctx.log_fields.id = self.entrance.id_of(&ctx.rules, peer_address(session).ip(), session.req_header());
        if let (Some(id), Some(echo)) =
            (&ctx.log_fields.id, session.downstream_modules_ctx.get_mut::<RequestIdHeaderFilter>())
        {
            echo.0 = Some((header.sent.clone(), id.to_string()));
        }
    }

    /// Logs a finished request, unless the access log omits it.
    pub(super) fn write_down(&self, session: &Session, ctx: &RequestContext) {
        let Some(log) = self.entrance.access_log() else { return };
        let log_fields = &ctx.log_fields;
        if !log.takes(log_fields.label.is_refusal()) {
            return;
        }
        let (head, peer) = (session.req_header(), peer_address(session));
        let raw = head.raw_path();
        let target = Target {
            method: head.method.as_str().as_bytes(),
            target: if raw.is_empty() { b"/" } else { raw },
            protocol: match head.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
        };
        let settings = ctx.group.map(|group| ctx.rules.groups[group].upstream.settings());
        log.write(&Record {
            client: ctx.client.address,
            peer,
            target,
            head,
            tls: session.digest().and_then(|digest| digest.ssl_digest.as_deref()).map(|tls| tls.version.as_ref()),
            status: session.response_written().map(|answer| answer.status.as_u16()),
            bytes: session.body_bytes_sent() as u64,
            duration: ctx.began.map(|began| began.elapsed()),
            id: log_fields.id.as_ref(),
            route: ctx.route.map(|route| ctx.rules.routes[route].path.as_str()),
            upstream: settings.as_ref().map(|settings| settings.name.as_str()),
            backend: ctx.last(),
            backend_duration: log_fields.took,
            tries: log_fields.tries,
            sale: ctx.sale.as_ref().map(|sale| sale.id()),
            outcome: log_fields.label.outcome(),
            order: log_fields.label.order(),
        });
    }
}

/// Adds the request ID to every answer, including Pingora's own.
#[derive(Default)]
struct RequestIdHeaderFilter(Option<(String, String)>);

#[async_trait]
impl HttpModule for RequestIdHeaderFilter {
    async fn response_header_filter(&mut self, answer: &mut ResponseHeader, _end: bool) -> Result<()> {
        match &self.0 {
            Some((name, id)) => answer.insert_header(name.clone(), id),
            None => Ok(()),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Adds a [`RequestIdHeaderFilter`] to every request.
pub struct RequestIdModule;

impl HttpModuleBuilder for RequestIdModule {
    fn init(&self) -> Module {
        Box::new(RequestIdHeaderFilter::default())
    }
}
