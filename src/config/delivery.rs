//! `delivery`: who is told of the changes of the sales, where, and with which signature.

use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::Value;

use super::node::Node;
use super::value::{MILLISECOND, MINUTE, SECOND, duration, file_path, is_url_path, text, upstream_named};
use crate::auth::secret::Secret;

/// Who is told of every change of the sales.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Index into [`super::Config::upstreams`].
    pub upstream: usize,
    /// Where its backends take deliveries; default `/hooks/spikegate`.
    pub path: String,
    /// The file with the secret that signs them, made if it is missing; default `data/delivery.secret`.
    pub secret_file: PathBuf,
    /// How long one POST may take until its answer, 100 ms to 60 s; default 5 s.
    pub timeout: Duration,
}

/// None if the group has no settings: then nothing is delivered.
pub(super) fn delivery(node: &Node<'_>, upstreams: &[&str]) -> Option<Delivery> {
    if matches!(node.value(), Value::Null) {
        return None;
    }
    Some(node.mapping(|delivery| Delivery {
        upstream: delivery.require("upstream", |node| upstream_named(node, upstreams)).unwrap_or_default(),
        path: delivery.read("path", hook_path).unwrap_or_else(|| "/hooks/spikegate".to_owned()),
        secret_file: delivery.read("secret_file", secret_file).unwrap_or_else(|| "data/delivery.secret".into()),
        timeout: delivery.read("timeout", duration(100 * MILLISECOND..=MINUTE)).unwrap_or(5 * SECOND),
    }))
}

fn hook_path(node: &Node<'_>) -> Option<String> {
    text("must be a path such as /hooks/spikegate, without pattern, query, empty or dot segments", |path| {
        is_url_path(path).then(|| path.to_owned())
    })(node)
}

/// The file may be missing: an edge makes it when it starts. What is in it is only looked at here.
fn secret_file(node: &Node<'_>) -> Option<PathBuf> {
    let path = file_path(node)?;
    if let Err(error) = Secret::read(&path) {
        node.error(error.to_string());
    }
    Some(path)
}
