//! Traces of requests: what happened and how long each part took, sent to an OpenTelemetry collector.
//!
//! A trace begins here, or at a trusted proxy that sends `traceparent` (W3C Trace Context). The header of other clients
//! is ignored; otherwise they could have all of their requests traced. Traced are proxied requests, with every backend
//! that was tried, and purchases that reach the ledger, with their batch. Refusals from memory are not traced: they
//! have no parts and there are millions of them.

mod collector;
mod purchase;
mod request;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span};

use crate::config;
use crate::http::head::Head;
use collector::Exporter;
pub use collector::{Count, counts};
pub use purchase::{Batch, Purchase};
pub use request::{Known, Request};

/// The header that names the trace and the span that a request belongs to (W3C Trace Context, 3.2).
pub const TRACEPARENT: &str = "traceparent";
/// Vendor data (3.3). It belongs to `traceparent` and is passed on with it.
pub const TRACESTATE: &str = "tracestate";

/// Spans that may wait to be sent; further ones are dropped. A span has about a kilobyte.
const QUEUE: usize = 4096;

/// How long a span waits for others before it is sent.
const DELAY: Duration = Duration::from_secs(2);

/// The tracer of this process; none if tracing is not configured.
static TRACING: OnceLock<Tracing> = OnceLock::new();

struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Starts tracing, for the life of the process.
///
/// # Errors
/// If the exporter cannot be created.
pub fn begin(settings: &config::Tracing) -> Result<(), String> {
    let exporter = Exporter::new(&settings.endpoint).map_err(|error| error.to_string())?;
    let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(DELAY).build();
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", settings.service.clone()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample))))
        .with_resource(resource.build())
        .build();
    let tracer = provider.tracer("spikegate");
    // A second call has no effect.
    let _ = TRACING.set(Tracing { provider, tracer });
    Ok(())
}

/// Sends pending spans, within this time.
pub fn end(most: Duration) {
    if let Some(tracing) = TRACING.get()
        && let Err(error) = tracing.provider.shutdown_with_timeout(most)
    {
        log::warn!("cannot send the last traces: {error}");
    }
}

/// Whether anything is traced.
#[must_use]
pub fn is_on() -> bool {
    TRACING.get().is_some()
}

/// The parent that a request names. Call only for trusted proxies.
#[must_use]
pub fn parent(head: &dyn Head) -> Option<SpanContext> {
    if !is_on() {
        return None;
    }
    let said = Said { parent: only(head, TRACEPARENT)?, state: only(head, TRACESTATE) };
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &said);
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// The two headers, in the form that the propagator reads.
struct Said<'a> {
    parent: &'a str,
    state: Option<&'a str>,
}

impl Extractor for Said<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(self.parent),
            TRACESTATE => self.state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

/// The single value of a header; several are ambiguous.
fn only<'a>(head: &'a dyn Head, name: &str) -> Option<&'a str> {
    let (mut value, mut count) = (None, 0);
    head.headers(name, &mut |found| {
        value = std::str::from_utf8(found).ok();
        count += 1;
    });
    value.filter(|_| count == 1)
}

/// A span that begins now, within `parent` if there is one.
fn span(name: &'static str, kind: SpanKind, parent: Option<&SpanContext>) -> Option<Span> {
    let Tracing { tracer, .. } = TRACING.get()?;
    let context = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent.clone()));
    Some(tracer.build_with_context(tracer.span_builder(name).with_kind(kind), &context))
}

/// Ends a span.
fn ended(span: &mut Span) {
    use opentelemetry::trace::Span as _;
    if span.is_recording() {
        counts().ended.add(1);
    }
    span.end();
}
