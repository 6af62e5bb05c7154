//! The way to the collector: OTLP over HTTP, protobuf in POSTs, from a thread of its own.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::observe::telemetry::Counter;

/// How long one POST may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most of a collector's answer that is read; it says nothing that matters.
const ANSWER_MAX: u64 = 64 * 1024;

/// What became of spans.
#[derive(Debug, Default)]
pub struct Count {
    /// The collector has them.
    pub sent: Counter,
    /// It did not take them, or was not there: they are gone.
    pub failed: Counter,
    /// All that ended and were to be sent. What is neither sent nor failed waits, or did not fit the queue.
    pub ended: Counter,
}

static COUNT: std::sync::LazyLock<Count> = std::sync::LazyLock::new(Count::default);

/// What became of spans since the process began.
pub fn counts() -> &'static Count {
    &COUNT
}

/// Sends spans, and counts them.
#[derive(Debug)]
pub struct Exporter(Otlp);

impl Exporter {
    /// One that posts to this URL.
    pub fn new(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        let exporter = Otlp::builder().with_http().with_http_client(Client(agent.into()));
        Ok(Self(exporter.with_endpoint(endpoint).with_timeout(TIMEOUT).build()?))
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.0.export(batch).await;
        match &result {
            Ok(()) => counts().sent.add(spans),
            Err(error) => {
                counts().failed.add(spans);
                // One batch in two seconds at most, so this is no flood.
                log::warn!("tracing.endpoint: cannot send {spans} spans: {error}");
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// The HTTP client that the command line has, too. It blocks, which is what the thread of the spans is for.
#[derive(Debug)]
struct Client(ureq::Agent);

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let mut post = self.0.post(head.uri.to_string());
        for (name, value) in &head.headers {
            post = post.header(name, value);
        }
        let (head, mut body) = post.send(&body[..])?.into_parts();
        let answer = body.with_config().limit(ANSWER_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, answer.into()))
    }
}
