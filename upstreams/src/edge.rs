//! Client of the edge's control API, the only way to the ledger.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::order::{Order, OrderId, OrderState};

/// Timeout of a request; the edge's own timeouts are shorter.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Maximum size of a response in bytes; the list of all sales is the largest.
const ANSWER_MAX: usize = 1024 * 1024;

/// How long the list of sales is cached.
const SALES_AGE: Duration = Duration::from_secs(10);

/// A client of one edge.
pub struct EdgeClient {
    client: Client<HttpConnector, Full<Bytes>>,
    authority: Authority,
    token: Option<HeaderValue>,
    sales: Mutex<Option<(Instant, Vec<String>)>>,
}

/// The ledger's decision is unknown. All requests can be retried safely.
#[derive(Debug, thiserror::Error)]
#[error("control API of the edge: {0}")]
pub struct EdgeError(String);

/// The outcome of a payment at the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmOutcome {
    /// The payment paid the order.
    Paid,
    /// The payment must be refunded.
    RefundDue {
        /// `sold-out`, `buyer-limit`, ...
        reason: String,
        /// The other payment that paid the order, if there is one.
        payment: Option<String>,
    },
}

/// The outcome of a cancellation at the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The order is released, or its id was given up.
    Released {
        /// `expired` or `cancelled`, if there was an order.
        reason: Option<String>,
    },
    /// The order is already paid.
    AlreadyPaid {
        /// The payment's id.
        payment: Option<String>,
    },
}

#[derive(Deserialize)]
struct OrderDocument {
    order_id: OrderId,
    sale: String,
    buyer: Option<String>,
    quantity: i64,
    state: OrderState,
    expires_at: Option<Timestamp>,
    reason: Option<String>,
}

/// The client's settings are invalid.
#[derive(Debug, thiserror::Error)]
pub enum EdgeConfigError {
    /// The URL has the wrong form.
    #[error("--control must be http://HOST:PORT, is {0:?}")]
    Url(String),
    /// The token is not a valid header value.
    #[error("--control-token-file must hold a token of visible ASCII characters")]
    Token,
}

impl EdgeClient {
    /// Creates a client of the control API at `url` (`http://HOST:PORT`) with this token.
    ///
    /// # Errors
    ///
    /// See [`EdgeConfigError`].
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, EdgeConfigError> {
        let bad = || EdgeConfigError::Url(url.to_owned());
        let parts = url.parse::<Uri>().map_err(|_| bad())?.into_parts();
        let is_bare = parts.path_and_query.is_none_or(|path| path == "/");
        let is_plain = parts.scheme.is_some_and(|scheme| scheme.as_str() == "http");
        let authority = parts.authority.filter(|_| is_bare && is_plain).ok_or_else(bad)?;
        let token = token.map(str::trim).map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| EdgeConfigError::Token)?;
            value.set_sensitive(true);
            Ok(value)
        });
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(32).build(connector);
        Ok(Self { client, authority, token: token.transpose()?, sales: Mutex::default() })
    }

    /// Searches all sales for an order.
    ///
    /// # Errors
    ///
    /// The lookup failed for one sale, and no other sale has the order.
    pub async fn find(&self, order: &OrderId) -> Result<Option<Order>, EdgeError> {
        let mut failed = None;
        for sale in self.sales().await? {
            match self.order(&sale, order).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Reads an order of a sale from the ledger.
    async fn order(&self, sale: &str, order: &OrderId) -> Result<Option<Order>, EdgeError> {
        let (status, body) = self.ask(Method::GET, &path(sale, order, ""), None).await?;
        match status {
            StatusCode::OK => {
                let document: OrderDocument = read(&body)?;
                // A given-up id has a document with quantity 0.
                let is_order = document.quantity > 0;
                Ok(is_order.then_some(Order {
                    order_id: document.order_id,
                    sale: document.sale,
                    buyer: document.buyer,
                    quantity: document.quantity,
                    state: document.state,
                    expires_at_ms: document.expires_at.map(Timestamp::as_millisecond),
                    reason: document.reason,
                    payment: None,
                    updated_at_ms: None,
                }))
            }
            StatusCode::NOT_FOUND if problem(&body) == "order-unknown" => Ok(None),
            _ => Err(unexpected(status, &body)),
        }
    }

    /// Confirms a payment. Repeated calls return the same outcome.
    ///
    /// # Errors
    ///
    /// The outcome is unknown; call again.
    pub async fn confirm(&self, sale: &str, order: &OrderId, payment: &str) -> Result<ConfirmOutcome, EdgeError> {
        let body = json!({ "payment": payment });
        let (status, body) = self.ask(Method::POST, &path(sale, order, "/confirm"), Some(&body)).await?;
        let text = |member: &str| body[member].as_str().map(str::to_owned);
        match (status, problem(&body)) {
            (StatusCode::OK, _) if body["state"] == "PAID" => Ok(ConfirmOutcome::Paid),
            (StatusCode::CONFLICT, "refund-due") => Ok(ConfirmOutcome::RefundDue {
                reason: text("reason").unwrap_or_else(|| "refund-due".to_owned()),
                payment: text("payment"),
            }),
            // An unknown sale, in contrast, is a configuration error.
            (StatusCode::NOT_FOUND, "order-unknown") => {
                Ok(ConfirmOutcome::RefundDue { reason: "order-unknown".to_owned(), payment: None })
            }
            _ => Err(unexpected(status, &body)),
        }
    }

    /// Cancels an order. Repeated calls return the same outcome.
    ///
    /// # Errors
    ///
    /// The outcome is unknown; call again.
    pub async fn cancel(&self, sale: &str, order: &OrderId) -> Result<CancelOutcome, EdgeError> {
        let (status, body) = self.ask(Method::POST, &path(sale, order, "/cancel"), None).await?;
        let text = |member: &str| body[member].as_str().map(str::to_owned);
        match (status, problem(&body)) {
            (StatusCode::OK, _) => Ok(CancelOutcome::Released { reason: text("reason") }),
            (StatusCode::CONFLICT, "already-paid") => Ok(CancelOutcome::AlreadyPaid { payment: text("payment") }),
            _ => Err(unexpected(status, &body)),
        }
    }

    /// Returns the ids of all sales, cached for ten seconds.
    ///
    /// # Errors
    ///
    /// The request failed; call again.
    pub async fn sales(&self) -> Result<Vec<String>, EdgeError> {
        if let Ok(sales) = self.sales.lock()
            && let Some((at, sales)) = &*sales
            && at.elapsed() < SALES_AGE
        {
            return Ok(sales.clone());
        }
        let (status, body) = self.ask(Method::GET, "/sales", None).await?;
        let listed = body.as_array().filter(|_| status == StatusCode::OK).ok_or_else(|| unexpected(status, &body))?;
        let names: Vec<String> = listed.iter().filter_map(|sale| Some(sale["sale"].as_str()?.to_owned())).collect();
        if let Ok(mut sales) = self.sales.lock() {
            *sales = Some((Instant::now(), names.clone()));
        }
        Ok(names)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), EdgeError> {
        let fault = |error: &dyn std::fmt::Display| EdgeError(error.to_string());
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.authority))
            .header(ACCEPT, "application/json, application/problem+json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let content = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(content)).map_err(|error| fault(&error))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| fault(&error))?;
            let status = answer.status();
            let body = Limited::new(Body::new(answer.into_body()), ANSWER_MAX).collect().await;
            Ok((status, body.map_err(|error| fault(&error))?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| fault(&format!("no response within {TIMEOUT:?}")))??;
        let document =
            serde_json::from_slice(&body).map_err(|error| fault(&format!("status {status}, invalid JSON: {error}")))?;
        Ok((status, document))
    }
}

/// Sale ids and order ids need no escaping in a path.
fn path(sale: &str, order: &OrderId, step: &str) -> String {
    format!("/sales/{sale}/orders/{}{step}", order.as_str())
}

fn problem(body: &Value) -> &str {
    body["type"].as_str().and_then(|name| name.strip_prefix("urn:spikegate:problem:")).unwrap_or_default()
}

fn read<'a, T: Deserialize<'a>>(body: &'a Value) -> Result<T, EdgeError> {
    T::deserialize(body).map_err(|error| EdgeError(format!("invalid response: {error}")))
}

fn unexpected(status: StatusCode, body: &Value) -> EdgeError {
    EdgeError(format!("{status}: {}", body["detail"].as_str().unwrap_or("no details")))
}
