//! What buyers and edges ask the order service over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::cashier::Cashier;
use crate::clock::now_s;
use crate::database::Database;
use crate::delivery::{BODY_MAX, Delivery};
use crate::edge::Edge;
use crate::order::{Order, OrderId, OrderState};
use crate::orders;
use crate::settlements::{self, Settlement, SettlementState, Wish};
use crate::signature::{self, SecretFile};

/// Questions to the edge that may be under way for orders that the database does not have. Ids can be guessed at, and
/// the ledger has better things to do.
const LOOKUPS: usize = 32;

/// The longest that an answer takes. A database that has fallen silent does not say so, and a connection may take many
/// minutes to end.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// The longest Idempotency-Key in bytes, as at the edge.
const KEY_MAX: usize = 255;

/// The longest question of an edge, in bytes.
const QUESTION_MAX: usize = 4 * 1024;

/// The most orders that an edge is told of at a time.
const PAGE_MAX: u32 = 1_000;

/// What an edge asks; see `docs/integrating/webhook.md`.
#[derive(Deserialize)]
struct Question {
    sale: String,
    /// None asks for the newest entry of any sale that has had this id, and for no orders.
    epoch: Option<String>,
    /// Orders behind this one, by their ids.
    after: Option<OrderId>,
    limit: u32,
}

/// The header with the buyer's id.
const BUYER: &str = "x-user-id";

/// What the service works with.
pub struct Service {
    /// Where orders are kept.
    pub database: Database,
    /// The way to the ledger.
    pub edge: Arc<Edge>,
    /// Who settles.
    pub cashier: Arc<Cashier>,
    /// What deliveries are signed with.
    pub secret: SecretFile,
}

struct Shared {
    service: Service,
    lookups: Semaphore,
}

/// The service's paths.
pub fn routes(service: Service) -> Router {
    Router::new()
        .route("/hooks/spikegate", post(deliver).layer(DefaultBodyLimit::max(BODY_MAX)))
        .route("/hooks/spikegate/orders", post(tell).layer(DefaultBodyLimit::max(QUESTION_MAX)))
        .route("/orders", get(list))
        .route("/orders/{id}", get(show))
        .route("/orders/{id}/pay", post(pay))
        .route("/orders/{id}/cancel", post(cancel))
        .layer(middleware::from_fn(in_time))
        .with_state(Arc::new(Shared { service, lookups: Semaphore::new(LOOKUPS) }))
}

/// What there is without a database: whoever delivers orders hears that they are not kept. Every other path only
/// echoes.
pub fn without_database() -> Router {
    let refuse = || async { unavailable("This process keeps no orders: it was started without --database.") };
    Router::new().route("/hooks/spikegate", post(refuse))
}

async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(ANSWER_MAX, next.run(request)).await;
    answer.unwrap_or_else(|_| unavailable("No answer was found in time. Asking again is safe."))
}

type Asked = State<Arc<Shared>>;

/// An answer that ends the matter early.
type Refused = Box<Response>;

/// The body of an edge: whole, and signed.
fn signed(shared: &Shared, headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Refused> {
    let body = body.map_err(|error| {
        let status = error.status();
        let name = if status == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "bad-request" };
        Box::new(problem(status, name, "Body not taken", &error.body_text(), Value::Null))
    })?;
    let secret = shared.service.secret.read().map_err(|error| {
        log::warn!("a delivery is put off: {error}");
        Box::new(unavailable("The secret of deliveries is not there yet."))
    })?;
    signature::check(headers, &body, &secret, now_s()).map_err(|error| {
        log::warn!("a delivery is refused: {error}");
        let detail = error.to_string();
        Box::new(problem(StatusCode::UNAUTHORIZED, "bad-signature", "Bad signature", &detail, Value::Null))
    })?;
    Ok(body)
}

/// Tells an edge which orders of a sale are known here, a page at a time.
async fn tell(State(shared): Asked, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match signed(&shared, &headers, body) {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => return bad_request(&format!("the body: {error}")),
    };
    let database = &shared.service.database;
    // It is told once, for it takes a look at every order.
    let newest = match question.after {
        None => orders::newest_entry(database, &question.sale, question.epoch.as_deref()).await,
        Some(_) => Ok(0),
    };
    let after = question.after.as_ref().map_or("", OrderId::as_str);
    let page = match &question.epoch {
        Some(epoch) => orders::page(database, &question.sale, epoch, after, question.limit.min(PAGE_MAX)).await,
        None => Ok(Vec::new()),
    };
    match (newest, page) {
        (Ok(seq), Ok(orders)) => document(StatusCode::OK, &json!({ "seq": seq, "orders": orders })),
        (Err(error), _) | (_, Err(error)) => failed(&error),
    }
}

async fn deliver(State(shared): Asked, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match signed(&shared, &headers, body) {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let delivery = match Delivery::parse(&body) {
        Ok(delivery) => delivery,
        Err(error) => {
            log::warn!("a delivery is malformed: {error}");
            return problem(StatusCode::BAD_REQUEST, "bad-request", "Bad request", &error.to_string(), Value::Null);
        }
    };
    match orders::apply(&shared.service.database, &delivery).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failed(&error),
    }
}

async fn show(State(shared): Asked, Path(id): Path<String>) -> Response {
    match shared.find(&id).await {
        Ok(Found::Kept(order)) => document(StatusCode::OK, &order),
        Ok(Found::OnItsWay(order)) => soon(document(StatusCode::ACCEPTED, &order)),
        Err(refused) => *refused,
    }
}

async fn list(State(shared): Asked, headers: HeaderMap) -> Response {
    let buyer = headers.get(BUYER).and_then(|buyer| std::str::from_utf8(buyer.as_bytes()).ok());
    let Some(buyer) = buyer.filter(|buyer| !buyer.is_empty()) else {
        return bad_request("X-User-Id: must say whose orders are asked for");
    };
    match orders::of_buyer(&shared.service.database, buyer).await {
        Ok(orders) => document(StatusCode::OK, &json!({ "orders": orders })),
        Err(error) => failed(&error),
    }
}

async fn pay(State(shared): Asked, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match shared.pay(&id, &headers).await {
        Ok(answer) => answer,
        Err(refused) => *refused,
    }
}

async fn cancel(State(shared): Asked, Path(id): Path<String>) -> Response {
    match shared.cancel(&id).await {
        Ok(answer) => answer,
        Err(refused) => *refused,
    }
}

/// Where an order was found.
enum Found {
    /// In the database.
    Kept(Order),
    /// Only in the ledger; its delivery is still to come.
    OnItsWay(Order),
}

impl Found {
    fn order(self) -> Order {
        match self {
            Self::Kept(order) | Self::OnItsWay(order) => order,
        }
    }
}

impl Shared {
    /// Looks in the database, then in the ledger.
    async fn find(&self, id: &str) -> Result<Found, Refused> {
        let no_such_order = || {
            let detail = "There is no order of this id.";
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
        if let Some(order) = orders::find(database, &id).await.map_err(refuse)? {
            return Ok(Found::Kept(order));
        }
        let Ok(_place) = self.lookups.try_acquire() else {
            return Err(Box::new(unavailable("Too many orders are being looked for.")));
        };
        match edge.find(&id).await {
            Ok(Some(mut order)) => {
                let payment = settlements::newest_payment(database, &id, &order.sale).await.map_err(refuse)?;
                order.payment = payment.as_ref().map(Settlement::as_payment);
                Ok(Found::OnItsWay(order))
            }
            Ok(None) => Err(no_such_order()),
            Err(error) => {
                log::warn!("an order is looked for in vain: {error}");
                Err(Box::new(unavailable("It cannot be found out now whether there is such an order.")))
            }
        }
    }

    async fn pay(&self, id: &str, headers: &HeaderMap) -> Result<Response, Refused> {
        let key = idempotency_key(headers)?;
        let Service { database, cashier, .. } = &self.service;
        let order = self.find(id).await?.order();
        // Whoever asks again under the same key hears of that payment, whatever has become of the order since.
        let asked_before = match key {
            Some(key) => settlements::payment_of_key(database, &order.order_id, &order.sale, key)
                .await
                .map_err(refuse)?
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
        let (before, settlement) = cashier.settle(Wish::Pay, to_settle(&order), key).await.map_err(refuse)?;
        let order = self.find(id).await?.order();
        Ok(match settlement.state {
            SettlementState::Pending | SettlementState::Charged => soon(document(StatusCode::ACCEPTED, &order)),
            SettlementState::Paid if before == Some(SettlementState::Paid) && !asked_before => already_paid(&order),
            SettlementState::Paid => document(StatusCode::OK, &order),
            SettlementState::Declined => problem(
                StatusCode::PAYMENT_REQUIRED,
                "payment-declined",
                "Payment declined",
                "The payment was declined, and nothing was taken. The order may be paid otherwise.",
                json!({ "order_id": order.order_id, "payment": settlement.as_payment() }),
            ),
            SettlementState::RefundDue | SettlementState::Refunded => refund_due(&order, &settlement),
            SettlementState::Cancelling | SettlementState::Cancelled | SettlementState::Refused => released(&order),
        })
    }

    async fn cancel(&self, id: &str) -> Result<Response, Refused> {
        let order = self.find(id).await?.order();
        match order.state {
            OrderState::Paid => return Ok(already_paid(&order)),
            OrderState::Released => return Ok(document(StatusCode::OK, &order)),
            OrderState::Held => {}
        }
        let wish = self.service.cashier.settle(Wish::Cancel, to_settle(&order), None);
        let (_, settlement) = wish.await.map_err(refuse)?;
        let order = self.find(id).await?.order();
        Ok(match settlement.state {
            SettlementState::Cancelled => document(StatusCode::OK, &order),
            // It is written down and will be done.
            SettlementState::Cancelling => soon(document(StatusCode::ACCEPTED, &order)),
            SettlementState::Paid | SettlementState::Refused => already_paid(&order),
            _ => match order.state {
                OrderState::Paid => already_paid(&order),
                OrderState::Released => document(StatusCode::OK, &order),
                // Money may have been taken. Were the order released now, the payment would take it back.
                OrderState::Held => soon(problem(
                    StatusCode::CONFLICT,
                    "payment-under-way",
                    "Payment under way",
                    "The order is being paid. Once that has ended, it is paid or can be cancelled.",
                    json!({ "order_id": order.order_id, "payment": settlement.as_payment() }),
                )),
            },
        })
    }
}

fn to_settle(order: &Order) -> settlements::Order<'_> {
    settlements::Order { id: &order.order_id, sale: &order.sale, quantity: order.quantity }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let key = value.to_str().ok().map(|key| key.trim_matches('"'));
    let key = key.filter(|key| second.is_none() && (1..=KEY_MAX).contains(&key.len()));
    key.map(Some).ok_or_else(|| {
        Box::new(bad_request(&format!("Idempotency-Key: must be one of 1 to {KEY_MAX} visible ASCII characters")))
    })
}

fn already_paid(order: &Order) -> Response {
    let members = json!({ "order_id": order.order_id, "payment": order.payment });
    problem(StatusCode::CONFLICT, "already-paid", "Already paid", "The order is paid.", members)
}

/// A released order cannot be paid, and who has paid for it in vain is told what becomes of the money.
fn released(order: &Order) -> Response {
    match &order.payment {
        Some(payment) if payment.state.starts_with("refund") => {
            let members = json!({ "order_id": order.order_id, "order": order, "refund": payment });
            let detail = "The payment came too late. Its money is given back.";
            problem(StatusCode::CONFLICT, "refund-due", "Refund due", detail, members)
        }
        _ => {
            let members = json!({ "order_id": order.order_id, "reason": order.reason });
            let detail = "The order was released, and nothing was taken for it. The tickets can be bought anew.";
            problem(StatusCode::CONFLICT, "order-released", "Order released", detail, members)
        }
    }
}

fn refund_due(order: &Order, settlement: &Settlement) -> Response {
    let members = json!({ "order_id": order.order_id, "order": order, "refund": settlement.as_payment() });
    let detail = "The order could not be paid any more. The money is given back.";
    problem(StatusCode::CONFLICT, "refund-due", "Refund due", detail, members)
}

pub(crate) fn document(status: StatusCode, document: &impl serde::Serialize) -> Response {
    let mut answer = (status, Json(document)).into_response();
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn soon(mut answer: Response) -> Response {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn bad_request(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail, Value::Null)
}

fn unavailable(detail: &str) -> Response {
    soon(problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail, Value::Null))
}

fn refuse(error: sqlx::Error) -> Refused {
    Box::new(failed(&error))
}

/// What exactly is wrong with the database is for its operator.
pub(crate) fn failed(error: &sqlx::Error) -> Response {
    log::error!("the database: {error}");
    unavailable("The database cannot be used now.")
}

/// A problem (RFC 9457), as the edge's are.
pub(crate) fn problem(status: StatusCode, name: &str, title: &str, detail: &str, members: Value) -> Response {
    let mut body = json!({
        "type": format!("urn:spikegate:problem:{name}"), "title": title, "status": status.as_u16(), "detail": detail,
    });
    if let (Some(body), Value::Object(members)) = (body.as_object_mut(), members) {
        body.extend(members);
    }
    let mut answer = document(status, &body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}
