//! The control listener: health, metrics, and what an operator does to a sale. No buyer may reach it.
//!
//! It is plain HTTP, on loopback by default. Off loopback, the configuration must set a token.

mod delivery;
mod exposition;
pub mod logs;
mod orders;
pub mod process;
mod process_commands;
mod reconcile;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use self::process_commands::ProcessCommand;
use crate::control::exposition::Exposition;
use crate::control::logs::Logs;
use crate::delivery::Delivery;
use crate::http::answer::Answer;
use crate::ledger::reconcile::Bookkeeper;
use crate::ledger::{LedgerError, SaleState, TOTAL_MAX, View};
use crate::limits::Limits;
use crate::observe::telemetry::Codes;
use crate::observe::trace;
use crate::sale::shop::Shop;
use crate::sale::{Sale, reply};
use crate::traffic::rules::Current;

/// The longest id of a stock change, in bytes.
const CHANGE_ID_MAX: usize = 128;

/// The most ledger steps of one `sweep` call.
const SWEEPS_MAX: usize = 1_000;

/// What the control listener needs.
pub struct Control {
    /// The sales.
    pub shop: Arc<Shop>,
    /// The groups of backends, what ends TLS, and what `Authorization: Bearer` must be, if anything.
    pub rules: Current,
    /// The deliveries of the sales; empty without `delivery`.
    pub deliveries: Vec<Arc<Delivery>>,
    /// Limits of client connections and requests.
    pub limits: Arc<Limits>,
    /// Requests by status class.
    pub answers: Arc<Codes>,
    /// The logs.
    pub logs: Logs,
    /// The records of all sales; none if nothing is sold.
    pub keeper: Option<Arc<dyn Bookkeeper>>,
    /// True from the moment the edge begins to stop.
    pub leaving: Arc<AtomicBool>,
    /// Commands to the process.
    pub process_commands: mpsc::Sender<ProcessCommand>,
}

/// The service, ready to be bound to a listener.
pub fn router(control: Control) -> Router {
    let control = Arc::new(control);
    let managed = Router::new()
        .route("/metrics", get(metrics))
        .route("/reload", post(process_commands::reload))
        .route("/upgrade", post(process_commands::upgrade))
        .route("/sales", get(list))
        .route("/sales/{id}", get(show))
        .route("/sales/{id}/open", post(open))
        .route("/sales/{id}/pause", post(pause))
        .route("/sales/{id}/resume", post(resume))
        .route("/sales/{id}/close", post(close))
        .route("/sales/{id}/stock", post(stock))
        .route("/sales/{id}/sweep", post(sweep))
        .route("/sales/{id}/reconcile", post(reconcile::reconcile))
        .route("/sales/{id}/delivery", get(delivery::show))
        .route("/sales/{id}/delivery/retry", post(delivery::retry))
        .route("/sales/{id}/orders/{order}", get(orders::show))
        .route("/sales/{id}/orders/{order}/confirm", post(orders::confirm))
        .route("/sales/{id}/orders/{order}/cancel", post(orders::cancel))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), check_caller));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(managed)
        .fallback(|| async { problem(404, "not-found", "Not found", "The control listener has no such path.") })
        .with_state(control)
}

type Shared = State<Arc<Control>>;

async fn check_caller(State(control): Shared, request: Request, next: Next) -> Response {
    // Only browsers send Origin. Without this check, any web page that an operator visits could close a sale on
    // loopback.
    if request.headers().contains_key(ORIGIN) {
        return problem(403, "forbidden", "Forbidden", "The control listener does not serve web pages.");
    }
    let given = request.headers().get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let token = control.rules.load().token.clone();
    match &token {
        Some(token) if !given.is_some_and(|given| same(given, token.as_bytes())) => {
            let text = "The control token is required: Authorization: Bearer TOKEN.";
            let mut refused = problem(401, "unauthorized", "Unauthorized", text);
            refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refused
        }
        _ => next.run(request).await,
    }
}

/// The token of `Authorization: Bearer TOKEN`; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Compares in constant time. Comparing hashes hides the length as well.
fn same(given: &[u8], token: &[u8]) -> bool {
    // `blake3::Hash` compares in constant time.
    blake3::hash(given) == blake3::hash(token)
}

/// Ready if the edge is not stopping, every sale has recent data from its ledger, and no sale is fenced.
async fn ready(State(control): Shared) -> Response {
    if control.leaving.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    let deaf: Vec<_> = control.shop.sales().iter().filter(|sale| !sale.hears()).map(|sale| sale.id()).collect();
    let fenced: Vec<_> =
        control.shop.sales().iter().filter(|sale| sale.fence().is_some()).map(|sale| sale.id()).collect();
    if deaf.is_empty() && fenced.is_empty() {
        "ready\n".into_response()
    } else if deaf.is_empty() {
        let text = format!("the ledger lost data of: {}; run spikegate sale reconcile\n", fenced.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    } else {
        let text = format!("no recent data from the ledger for: {}\n", deaf.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn metrics(State(control): Shared) -> Response {
    let mut text = Exposition::default();
    text.process();
    text.requests(&control.answers);
    let rules = control.rules.load_full();
    let terminators = rules.doors.iter().filter_map(|door| Some((door.address, door.tls.clone()?)));
    text.certificates(&terminators.collect::<Vec<_>>());
    text.spans(trace::counts());
    text.logs(&control.logs.counts());
    let sales: Vec<_> = control.shop.sales().iter().map(|sale| (sale.id(), sale.metrics())).collect();
    text.sales(&sales);
    text.upstreams(&rules.groups.iter().map(|group| Arc::clone(&group.upstream)).collect::<Vec<_>>());
    text.deliveries(&control.deliveries);
    text.limits(control.limits.counts());
    text.stock(&control.shop.sales().iter().filter_map(|sale| Some((sale.id(), sale.view()?))).collect::<Vec<_>>());
    let sales = control.shop.sales();
    text.fences(&sales.iter().map(|sale| (sale.id(), sale.fence().is_some())).collect::<Vec<_>>());
    text.heard(&sales.iter().map(|sale| (sale.id(), sale.hears())).collect::<Vec<_>>());
    let dropped: u64 = control.shop.sales().iter().map(|sale| sale.stat_log_dropped()).sum();
    let help = "Stat log lines dropped because the disk was full or too slow.";
    text.single("spikegate_stat_log_dropped_total", "counter", help, dropped);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text.finish()).into_response()
}

async fn list(State(control): Shared) -> Response {
    let mut documents = Vec::new();
    for sale in control.shop.sales() {
        documents.push(match sale.snapshot().await {
            Ok(view) => document(sale, &view),
            Err(error) => json!({ "sale": sale.id(), "error": error.to_string() }),
        });
    }
    json_response(&Value::Array(documents))
}

async fn show(State(control): Shared, Path(id): Path<String>) -> Response {
    match control.shop.sale(&id) {
        Some(sale) => told(sale, sale.snapshot().await),
        None => unknown(&id),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    total: Option<u64>,
}

/// Creates a sale that the ledger does not have, or opens one that is paused or closed.
async fn open(State(control): Shared, Path(id): Path<String>, headers: HeaderMap, body: String) -> Response {
    let Some(sale) = control.shop.sale(&id) else { return unknown(&id) };
    // An empty body means no options.
    let wish = if body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        Ok(Open::default())
    } else {
        serde_json::from_str::<Open>(&body)
    };
    let total = match wish {
        Ok(wish) => wish.total.or(sale.rules().settings.total),
        Err(error) => return bad_body(&error.to_string()),
    };
    if total.is_some_and(|total| !(1..=TOTAL_MAX).contains(&total)) {
        return bad_body(&format!("total: must be 1 to {TOTAL_MAX}"));
    }
    if let Err(error) = sale.open(total).await {
        return told(sale, Err(error));
    }
    told(sale, sale.set_state(SaleState::Open).await)
}

async fn pause(State(control): Shared, Path(id): Path<String>) -> Response {
    set(&control, &id, SaleState::Paused, &[SaleState::Open, SaleState::Paused]).await
}

async fn resume(State(control): Shared, Path(id): Path<String>) -> Response {
    set(&control, &id, SaleState::Open, &[SaleState::Open, SaleState::Paused]).await
}

async fn close(State(control): Shared, Path(id): Path<String>) -> Response {
    set(&control, &id, SaleState::Closed, &[SaleState::Open, SaleState::Paused, SaleState::Closed]).await
}

/// `from` are the states in which the change is allowed. If two operators act at once, the state may change between the
/// read and the write; then the last one wins.
async fn set(control: &Control, id: &str, state: SaleState, from: &[SaleState]) -> Response {
    let Some(sale) = control.shop.sale(id) else { return unknown(id) };
    match sale.snapshot().await {
        Ok(view) if !from.contains(&view.state) => {
            problem(409, "sale-closed", "Sale closed", "The sale is closed. Only `open` reopens it.")
        }
        Ok(_) => told(sale, sale.set_state(state).await),
        Err(error) => told(sale, Err(error)),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stock {
    change_id: String,
    delta: i64,
}

async fn stock(State(control): Shared, Path(id): Path<String>, body: Result<Json<Stock>, JsonRejection>) -> Response {
    let Some(sale) = control.shop.sale(&id) else { return unknown(&id) };
    let Json(change) = match body {
        Ok(change) => change,
        Err(error) => return bad_body(&error.body_text()),
    };
    if change.change_id.is_empty() || change.change_id.len() > CHANGE_ID_MAX {
        return bad_body(&format!("change_id: must have 1 to {CHANGE_ID_MAX} bytes"));
    }
    told(sale, sale.add_stock(&change.change_id, change.delta).await)
}

/// Releases orders whose hold has ended, at once; every edge also does this by itself.
async fn sweep(State(control): Shared, Path(id): Path<String>) -> Response {
    let Some(sale) = control.shop.sale(&id) else { return unknown(&id) };
    let mut released = 0;
    // Bounded: holds that end meanwhile are left to the next call.
    for _ in 0..SWEEPS_MAX {
        match sale.sweep().await {
            Ok(swept) if swept.ended > 0 => released += swept.released,
            Ok(_) => break,
            Err(error) => return told(sale, Err(error)),
        }
    }
    json_response(&json!({ "released": released }))
}

fn told(sale: &Sale, outcome: Result<View, LedgerError>) -> Response {
    match outcome {
        Ok(view) => json_response(&document(sale, &view)),
        Err(error) => {
            log::warn!("control: sale {}: {error}", sale.id());
            response(reply::fault(&error))
        }
    }
}

/// All counters of a sale at one moment.
fn document(sale: &Sale, view: &View) -> Value {
    json!({
        "sale": sale.id(),
        "fenced": sale.fence().as_deref(),
        "total": view.total,
        "available": view.available(),
        "held": view.sold.saturating_sub(view.paid),
        "paid": view.paid,
        "sold": view.sold,
        "state": view.state,
        "version": view.version,
        "hold_ms": view.terms.hold_ms,
        "per_buyer": view.terms.per_buyer,
        "unpaid_per_buyer": view.terms.unpaid_per_buyer,
        "opens_at": view.terms.opens_at_ms.map(reply::time),
        "closes_at": view.terms.closes_at_ms.map(reply::time),
    })
}

fn unknown(id: &str) -> Response {
    problem(404, "sale-unknown", "Sale unknown", &format!("The configuration has no sale {id}."))
}

fn bad_body(detail: &str) -> Response {
    problem(400, "bad-request", "Bad request", detail)
}

fn problem(status: u16, name: &str, title: &str, detail: &str) -> Response {
    response(Answer::problem(status, name, title, detail, Value::Null))
}

fn json_response(document: &Value) -> Response {
    response(Answer::json(200, document))
}

fn response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = answer.retry_after_s {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}
