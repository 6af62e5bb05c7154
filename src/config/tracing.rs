//! `tracing`: the collector, and the share of requests to trace.

use super::node::Node;
use super::value::{host_and_port, is_url_path, share, text};

/// Tracing settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The URL of a collector that takes OTLP over HTTP.
    pub endpoint: String,
    /// The share of traces that begin here, 0 to 1.
    pub sample: f64,
    /// The name of the edge at the collector: `service.name`.
    pub service: String,
}

pub(super) fn tracing(node: &Node<'_>) -> Tracing {
    node.mapping(|tracing| Tracing {
        endpoint: tracing.require("endpoint", endpoint).unwrap_or_default(),
        sample: tracing.read("sample", share).unwrap_or(0.01),
        service: tracing.read("service", service).unwrap_or_else(|| "spikegate".to_owned()),
    })
}

/// Without TLS: the collector runs beside the edge.
fn endpoint(node: &Node<'_>) -> Option<String> {
    text("must be a URL such as http://127.0.0.1:4318/v1/traces", |url| {
        let rest = url.strip_prefix("http://")?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        (host_and_port(host).is_some() && is_url_path(path)).then(|| url.to_owned())
    })(node)
}

fn service(node: &Node<'_>) -> Option<String> {
    text("must be a name of 1 to 128 characters", |name| {
        ((1..=128).contains(&name.len()) && !name.contains(char::is_control)).then(|| name.to_owned())
    })(node)
}
