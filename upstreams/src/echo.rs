//! The demo backend: each response names the backend and describes the request.
//!
//! The same request always gets a response of the same length, because `ab` counts responses of another length as
//! failed.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

/// Response header with the backend's name.
pub const BACKEND_HEADER: &str = "x-backend";

/// Maximum size of a request body in bytes.
pub const BODY_LIMIT: u64 = 100_000_000;

/// One backend and its request counter.
struct Backend {
    name: String,
    header: HeaderValue,
    requests: AtomicU64,
    /// Where browsers that ask for `/` are redirected to.
    start: Option<&'static str>,
}

/// Responds to all paths that `service` does not have, and counts these requests except `/healthz` and `/stats`. All
/// responses, including those of `service`, name the backend.
///
/// # Errors
///
/// The name is not a valid header value.
pub fn routes(name: &str, start: Option<&'static str>, service: Router) -> Result<Router, String> {
    let header = HeaderValue::from_str(name).map_err(|_| format!("--name {name:?} is not a valid header value"))?;
    let backend = Arc::new(Backend { name: name.to_string(), header, requests: AtomicU64::new(0), start });
    Ok(Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/stats", get(stats))
        .fallback(echo)
        .with_state(Arc::clone(&backend))
        .merge(service)
        .layer(map_response_with_state(backend, name_the_backend)))
}

async fn stats(State(backend): State<Arc<Backend>>) -> Json<Value> {
    Json(json!({ "name": backend.name, "requests": backend.requests.load(Ordering::Relaxed) }))
}

async fn name_the_backend(State(backend): State<Arc<Backend>>, mut answer: Response) -> Response {
    answer.headers_mut().insert(BACKEND_HEADER, backend.header.clone());
    answer
}

async fn echo(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    backend.requests.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    if let Some(start) = backend.start.filter(|_| is_browser_at_the_root(&head)) {
        return ([(VARY, "Accept"), (CACHE_CONTROL, "no-store")], Redirect::temporary(start)).into_response();
    }
    match length(body).await {
        Ok(length) => {
            let mut text = describe(&backend.name, &head, length).to_string();
            text.push('\n');
            ([(CONTENT_TYPE, "application/json")], text).into_response()
        }
        // The rest of the body was not read, so the connection cannot be reused.
        Err((status, words)) => (status, [(CONNECTION, "close")], format!("{words}\n")).into_response(),
    }
}

/// Browsers send `text/html` in Accept; `ab` and curl do not.
fn is_browser_at_the_root(head: &request::Parts) -> bool {
    let mut accepted = head.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    head.method == Method::GET && head.uri.path() == "/" && accepted.any(|value| value.contains("text/html"))
}

/// Reads and discards the body, and returns its length.
async fn length(mut body: Body) -> Result<u64, (StatusCode, &'static str)> {
    const TOO_LONG: (StatusCode, &str) = (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 100 MB");
    if body.size_hint().lower() > BODY_LIMIT {
        return Err(TOO_LONG);
    }
    let mut length = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the body ended early"))?;
        length += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        if length > BODY_LIMIT {
            return Err(TOO_LONG);
        }
    }
    Ok(length)
}

fn describe(name: &str, head: &request::Parts, body_bytes: u64) -> Value {
    json!({
        "backend": name,
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "host": head.headers.get(HOST).map(text),
        "forwarded": forwarded(&head.headers),
        "body_bytes": body_bytes,
    })
}

/// The headers that a proxy adds; repeated headers are joined with commas, as HTTP allows.
fn forwarded(headers: &HeaderMap) -> Map<String, Value> {
    let of_a_proxy = |name: &str| name.starts_with("x-forwarded-") || ["forwarded", "via", "x-real-ip"].contains(&name);
    let names = headers.keys().filter(|name| of_a_proxy(name.as_str()));
    names
        .map(|name| {
            let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
            (name.to_string(), values.join(", ").into())
        })
        .collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
