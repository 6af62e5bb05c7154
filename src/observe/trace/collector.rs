//! The exporter: OTLP over HTTP, protobuf in POSTs, on its own thread.

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

/// The most of a collector's answer that is read; its content does not matter.
const ANSWER_MAX: u64 = 64 * 1024;

/// Counts of spans.
#[derive(Debug, Default)]
pub struct Count {
    /// Accepted by the collector.
    pub sent: Counter,
    /// Lost: the collector refused them or did not answer.
    pub failed: Counter,
    /// All ended spans to be sent. The rest is waiting or did not fit into the queue.
    pub ended: Counter,
}

static COUNT: std::sync::LazyLock<Count> = std::sync::LazyLock::new(Count::default);

/// The counts since the start of the process.
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
                // At most one batch in two seconds, so this cannot flood the log.
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

/// The HTTP client that the command line uses as well. It blocks, but it has a thread of its own.
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
