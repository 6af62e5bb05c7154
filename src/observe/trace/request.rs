//! Spans of a proxied request and of each backend that it is tried at.

use std::net::SocketAddr;

use http::HeaderValue;
use opentelemetry::trace::{Span as _, SpanContext, SpanKind, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::Span;

use super::span;

/// A request from its head to the end of its answer. Its attributes are those of OpenTelemetry's conventions for HTTP.
#[derive(Debug)]
pub struct Request {
    span: Span,
    /// At the backend where it is now.
    attempt: Option<Span>,
}

/// What is known of a request when it is given to a route.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// As it stands in the request.
    pub method: &'a str,
    /// Without the query, which may hold secrets.
    pub path: &'a str,
    /// The prefix that the route is for.
    pub route: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Who asks.
    pub client: std::net::IpAddr,
}

impl Request {
    /// It begins now. None if nothing is traced; one that is not traced all the same has a context to give on.
    #[must_use]
    pub fn begin(known: Known<'_>, parent: Option<&SpanContext>) -> Option<Self> {
        let mut span = span("HTTP", SpanKind::Server, parent)?;
        if span.is_recording() {
            // A client may call its method anything, and names of spans are to be few.
            let method = if is_known(known.method) { known.method } else { "HTTP" };
            span.update_name(format!("{method} {}", known.route));
            let text = |name, text: &str| KeyValue::new(name, text.to_owned());
            span.set_attributes([
                text("http.request.method", if is_known(known.method) { known.method } else { "_OTHER" }),
                text("url.path", known.path),
                text("http.route", known.route),
                KeyValue::new("url.scheme", known.scheme),
                text("client.address", &known.client.to_string()),
            ]);
        }
        Some(Self { span, attempt: None })
    }

    /// It goes to this backend of this group; what it was tried at before has failed.
    pub fn ask(&mut self, upstream: &str, backend: SocketAddr) {
        self.leave("another backend is tried");
        let Some(mut attempt) = span("upstream", SpanKind::Client, Some(self.span.span_context())) else { return };
        if attempt.is_recording() {
            attempt.update_name(format!("upstream {upstream}"));
            attempt.set_attributes([
                KeyValue::new("server.address", backend.ip().to_string()),
                KeyValue::new("server.port", i64::from(backend.port())),
                KeyValue::new("spikegate.upstream", upstream.to_owned()),
            ]);
        }
        self.attempt = Some(attempt);
    }

    /// The backend has begun to answer so.
    pub fn answered(&mut self, status: u16) {
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.is_recording()) {
            attempt.add_event("head of the answer", Vec::new());
            note_status(attempt, status, 400);
        }
    }

    /// What `traceparent` is to say to the backend.
    #[must_use]
    pub fn traceparent(&self) -> Option<HeaderValue> {
        let context = self.attempt.as_ref().unwrap_or(&self.span).span_context();
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
        HeaderValue::from_str(&format!("00-{trace}-{span}-{flags:02x}")).ok()
    }

    /// What `tracestate` is to say to it, if anything.
    #[must_use]
    pub fn tracestate(&self) -> Option<HeaderValue> {
        let state = self.span.span_context().trace_state().header();
        if state.is_empty() { None } else { HeaderValue::from_str(&state).ok() }
    }

    /// It is over; with this status, or its client left before there was one.
    pub fn end(mut self, status: Option<u16>, failure: Option<&str>) {
        if let Some(mut attempt) = self.attempt.take() {
            if let Some(failure) = failure {
                attempt.set_status(Status::error(failure.to_owned()));
            }
            super::ended(&mut attempt);
        }
        if self.span.is_recording() {
            match status {
                Some(status) => note_status(&mut self.span, status, 500),
                None => self.span.add_event("the client has left", Vec::new()),
            }
        }
        super::ended(&mut self.span);
    }

    fn leave(&mut self, why: &'static str) {
        if let Some(mut attempt) = self.attempt.take() {
            attempt.set_status(Status::error(why));
            super::ended(&mut attempt);
        }
    }
}

/// A status from `fault` on is an error of whoever this span is about.
fn note_status(span: &mut Span, status: u16, fault: u16) {
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    if status >= fault {
        span.set_attribute(KeyValue::new("error.type", Value::from(status.to_string())));
        span.set_status(Status::error(""));
    }
}

/// The methods of RFC 9110 and PATCH (RFC 5789), which are what the conventions ask for.
fn is_known(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "TRACE" | "PATCH" | "CONNECT")
}
