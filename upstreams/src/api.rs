//! The HTTP API for buyers and edges.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::clock::now_s;
use crate::database::Database;
use crate::delivery::{BODY_MAX, Delivery};
use crate::edge::EdgeClient;
use crate::order::{Order, OrderId, OrderState};
use crate::orders;
use crate::response::{bad_request, boxed_error, database_error, document, problem, retry_soon, unavailable};
use crate::settlement_worker::SettlementWorker;
use crate::settlements::{self, Settlement, SettlementKind, SettlementState};
use crate::signature::{self, SecretFile};

/// Maximum number of concurrent requests to the edge for orders that are not in the database. The limit protects the
/// ledger from clients that guess ids.
const LOOKUPS: usize = 32;

/// Maximum time for a response. A database connection without a peer can take minutes to fail.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Maximum length of an Idempotency-Key in bytes; the same as at the edge.
const KEY_MAX: usize = 255;

/// Maximum size of an edge's query in bytes.
const QUERY_MAX: usize = 4 * 1024;

/// Maximum number of orders in one response to an edge.
const PAGE_MAX: u32 = 1_000;

/// An edge's query; see `docs/integrating/webhook.md`.
#[derive(Deserialize)]
struct OrdersQuery {
    sale: String,
    /// Without an epoch the response has the newest entry of all epochs, and no orders.
    epoch: Option<String>,
    /// Only orders with a greater id.
    after: Option<OrderId>,
    limit: u32,
}

/// The header with the buyer's id.
const BUYER: &str = "x-user-id";

/// What the routes need.
pub struct Service {
    /// Stores orders and settlements.
    pub database: Database,
    /// Client of the edge's control API.
    pub edge: Arc<EdgeClient>,
    /// Executes payments and cancellations.
    pub worker: Arc<SettlementWorker>,
    /// The secret that signs deliveries.
    pub secret: SecretFile,
}

struct Shared {
    service: Service,
    lookups: Semaphore,
}

/// The routes of a service with a database.
pub fn routes(service: Service) -> Router {
    Router::new()
        .route("/hooks/spikegate", post(deliver).layer(DefaultBodyLimit::max(BODY_MAX)))
        .route("/hooks/spikegate/orders", post(orders_of_sale).layer(DefaultBodyLimit::max(QUERY_MAX)))
        .route("/orders", get(list))
        .route("/orders/{id}", get(show))
        .route("/orders/{id}/pay", post(pay))
        .route("/orders/{id}/cancel", post(cancel))
        .layer(middleware::from_fn(with_deadline))
        .with_state(Arc::new(Shared { service, lookups: Semaphore::new(LOOKUPS) }))
}

/// The routes of a service without a database: it rejects deliveries.
pub fn without_database() -> Router {
    let boxed_error =
        || async { unavailable("The order service was started without --database and cannot store orders.") };
    Router::new().route("/hooks/spikegate", post(boxed_error))
}

async fn with_deadline(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(ANSWER_MAX, next.run(request)).await;
    answer.unwrap_or_else(|_| unavailable("The request timed out. Retrying is safe."))
}

type SharedState = State<Arc<Shared>>;

/// A response that ends the request early.
type ErrorResponse = Box<Response>;

/// Checks the signature of an edge's request and returns its body.
fn signed(shared: &Shared, headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, ErrorResponse> {
    let body = body.map_err(|error| {
        let status = error.status();
        let name = if status == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "bad-request" };
        Box::new(problem(status, name, "Invalid body", &error.body_text(), Value::Null))
    })?;
    let secret = shared.service.secret.read().map_err(|error| {
        log::warn!("delivery postponed: {error}");
        Box::new(unavailable("The delivery secret is not available yet."))
    })?;
    signature::check(headers, &body, &secret, now_s()).map_err(|error| {
        log::warn!("delivery rejected: {error}");
        let detail = error.to_string();
        Box::new(problem(StatusCode::UNAUTHORIZED, "bad-signature", "Bad signature", &detail, Value::Null))
    })?;
    Ok(body)
}

/// Returns the stored orders of a sale, one page at a time.
async fn orders_of_sale(
    State(shared): SharedState,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match signed(&shared, &headers, body) {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let query: OrdersQuery = match serde_json::from_slice(&body) {
        Ok(query) => query,
        Err(error) => return bad_request(&format!("the body: {error}")),
    };
    let database = &shared.service.database;
    // Only with the first page: this query reads every order of the sale.
    let newest = match query.after {
        None => orders::newest_entry(database, &query.sale, query.epoch.as_deref()).await,
        Some(_) => Ok(0),
    };
    let after = query.after.as_ref().map_or("", OrderId::as_str);
    let page = match &query.epoch {
        Some(epoch) => orders::page(database, &query.sale, epoch, after, query.limit.min(PAGE_MAX)).await,
        None => Ok(Vec::new()),
    };
    match (newest, page) {
        (Ok(seq), Ok(orders)) => document(StatusCode::OK, &json!({ "seq": seq, "orders": orders })),
        (Err(error), _) | (_, Err(error)) => database_error(&error),
    }
}

async fn deliver(State(shared): SharedState, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match signed(&shared, &headers, body) {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let delivery = match Delivery::parse(&body) {
        Ok(delivery) => delivery,
        Err(error) => {
            log::warn!("delivery rejected: {error}");
            return problem(StatusCode::BAD_REQUEST, "bad-request", "Bad request", &error.to_string(), Value::Null);
        }
    };
    match orders::apply(&shared.service.database, &delivery).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => database_error(&error),
    }
}

async fn show(State(shared): SharedState, Path(id): Path<String>) -> Response {
    match shared.find(&id).await {
        Ok(FoundOrder::Stored(order)) => document(StatusCode::OK, &order),
        Ok(FoundOrder::InLedger(order)) => retry_soon(document(StatusCode::ACCEPTED, &order)),
        Err(refused) => *refused,
    }
}

async fn list(State(shared): SharedState, headers: HeaderMap) -> Response {
    let buyer = headers.get(BUYER).and_then(|buyer| std::str::from_utf8(buyer.as_bytes()).ok());
    let Some(buyer) = buyer.filter(|buyer| !buyer.is_empty()) else {
        return bad_request("X-User-Id: the header must be set to the buyer's id");
    };
    match orders::of_buyer(&shared.service.database, buyer).await {
        Ok(orders) => document(StatusCode::OK, &json!({ "orders": orders })),
        Err(error) => database_error(&error),
    }
}

async fn pay(State(shared): SharedState, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match shared.pay(&id, &headers).await {
        Ok(answer) => answer,
        Err(refused) => *refused,
    }
}

async fn cancel(State(shared): SharedState, Path(id): Path<String>) -> Response {
    match shared.cancel(&id).await {
        Ok(answer) => answer,
        Err(refused) => *refused,
    }
}

/// An order and where it was found.
enum FoundOrder {
    /// In the database.
    Stored(Order),
    /// Only in the ledger; its delivery has not arrived yet.
    InLedger(Order),
}

impl FoundOrder {
    fn order(self) -> Order {
        match self {
            Self::Stored(order) | Self::InLedger(order) => order,
        }
    }
}

impl Shared {
    /// Searches the database, then the ledger.
    async fn find(&self, id: &str) -> Result<FoundOrder, ErrorResponse> {
        let no_such_order = || {
            let detail = "No order has this id.";
            Box::new(problem(
                StatusCode::NOT_FOUND,
                "order-unknown",
                "Order unknown",
                detail,
                json!({ "order_id": id }),
            ))
        };
        let id = OrderId::parse(id).ok_or_else(no_such_order)?;
        let Service { database, edge, .. } = &self.service;
        if let Some(order) = orders::find(database, &id).await.map_err(boxed_error)? {
            return Ok(FoundOrder::Stored(order));
        }
        let Ok(_permit) = self.lookups.try_acquire() else {
            return Err(Box::new(unavailable("Too many order lookups are in progress.")));
        };
        match edge.find(&id).await {
            Ok(Some(mut order)) => {
                let payment = settlements::newest_payment(database, &id, &order.sale).await.map_err(boxed_error)?;
                order.payment = payment.as_ref().map(Settlement::as_payment);
                Ok(FoundOrder::InLedger(order))
            }
            Ok(None) => Err(no_such_order()),
            Err(error) => {
                log::warn!("order lookup failed: {error}");
                Err(Box::new(unavailable("The ledger cannot be reached; it is unknown whether this order exists.")))
            }
        }
    }

    async fn pay(&self, id: &str, headers: &HeaderMap) -> Result<Response, ErrorResponse> {
        let key = idempotency_key(headers)?;
        let Service { database, worker, .. } = &self.service;
        let order = self.find(id).await?.order();
        // A retry with the same key gets the outcome of that payment, even if the order has changed since.
        let asked_before = match key {
            Some(key) => settlements::payment_of_key(database, &order.order_id, &order.sale, key)
                .await
                .map_err(boxed_error)?
                .is_some(),
            None => false,
        };
        if !asked_before {
            match order.state {
                OrderState::Paid => return Ok(already_paid(&order)),
                OrderState::Released => return Ok(released(&order)),
                OrderState::Held => {}
            }
        }
        let (before, settlement) =
            worker.settle(SettlementKind::Pay, to_settle(&order), key).await.map_err(boxed_error)?;
        let order = self.find(id).await?.order();
        Ok(match settlement.state {
            SettlementState::Pending | SettlementState::Charged => retry_soon(document(StatusCode::ACCEPTED, &order)),
            SettlementState::Paid if before == Some(SettlementState::Paid) && !asked_before => already_paid(&order),
            SettlementState::Paid => document(StatusCode::OK, &order),
            SettlementState::Declined => problem(
                StatusCode::PAYMENT_REQUIRED,
                "payment-declined",
                "Payment declined",
                "The payment was declined; no money was taken. Another payment can be made.",
                json!({ "order_id": order.order_id, "payment": settlement.as_payment() }),
            ),
            SettlementState::RefundDue | SettlementState::Refunded => refund_due(&order, &settlement),
            SettlementState::Cancelling | SettlementState::Cancelled | SettlementState::Refused => released(&order),
        })
    }

    async fn cancel(&self, id: &str) -> Result<Response, ErrorResponse> {
        let order = self.find(id).await?.order();
        match order.state {
            OrderState::Paid => return Ok(already_paid(&order)),
            OrderState::Released => return Ok(document(StatusCode::OK, &order)),
            OrderState::Held => {}
        }
        let settling = self.service.worker.settle(SettlementKind::Cancel, to_settle(&order), None);
        let (_, settlement) = settling.await.map_err(boxed_error)?;
        let order = self.find(id).await?.order();
        Ok(match settlement.state {
            SettlementState::Cancelled => document(StatusCode::OK, &order),
            // The cancellation is stored and will be executed.
            SettlementState::Cancelling => retry_soon(document(StatusCode::ACCEPTED, &order)),
            SettlementState::Paid | SettlementState::Refused => already_paid(&order),
            _ => match order.state {
                OrderState::Paid => already_paid(&order),
                OrderState::Released => document(StatusCode::OK, &order),
                // Money may have been taken. If the order were released now, the payment would take it back.
                OrderState::Held => retry_soon(problem(
                    StatusCode::CONFLICT,
                    "payment-under-way",
                    "Payment under way",
                    "A payment for this order is in progress. If it fails, the order can be cancelled.",
                    json!({ "order_id": order.order_id, "payment": settlement.as_payment() }),
                )),
            },
        })
    }
}

fn to_settle(order: &Order) -> settlements::OrderRef<'_> {
    settlements::OrderRef { id: &order.order_id, sale: &order.sale, quantity: order.quantity }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ErrorResponse> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let key = value.to_str().ok().map(|key| key.trim_matches('"'));
    let key = key.filter(|key| second.is_none() && (1..=KEY_MAX).contains(&key.len()));
    key.map(Some).ok_or_else(|| {
        Box::new(bad_request(&format!(
            "Idempotency-Key: must be sent once, with 1 to {KEY_MAX} visible ASCII characters"
        )))
    })
}

fn already_paid(order: &Order) -> Response {
    let members = json!({ "order_id": order.order_id, "payment": order.payment });
    problem(StatusCode::CONFLICT, "already-paid", "Already paid", "The order has been paid.", members)
}

/// The response for a released order; it mentions the refund if there is one.
fn released(order: &Order) -> Response {
    match &order.payment {
        Some(payment) if payment.state.starts_with("refund") => {
            let members = json!({ "order_id": order.order_id, "order": order, "refund": payment });
            let detail = "The payment came too late and is refunded.";
            problem(StatusCode::CONFLICT, "refund-due", "Refund due", detail, members)
        }
        _ => {
            let members = json!({ "order_id": order.order_id, "reason": order.reason });
            let detail = "The order was released and no money was taken. Make a new purchase.";
            problem(StatusCode::CONFLICT, "order-released", "Order released", detail, members)
        }
    }
}

fn refund_due(order: &Order, settlement: &Settlement) -> Response {
    let members = json!({ "order_id": order.order_id, "order": order, "refund": settlement.as_payment() });
    let detail = "The order can no longer be paid. The payment is refunded.";
    problem(StatusCode::CONFLICT, "refund-due", "Refund due", detail, members)
}
