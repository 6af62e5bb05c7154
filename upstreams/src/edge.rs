//! The edge's control API: the only way to the ledger.

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

/// The longest wait for an answer; the edge itself gives up sooner.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The longest answer in bytes; a list of all sales is the longest.
const ANSWER_MAX: usize = 1024 * 1024;

/// How long the names of the sales are remembered.
const SALES_AGE: Duration = Duration::from_secs(10);

/// A client of one edge.
pub struct Edge {
    client: Client<HttpConnector, Full<Bytes>>,
    authority: Authority,
    token: Option<HeaderValue>,
    sales: Mutex<Option<(Instant, Vec<String>)>>,
}

/// It is not known what the ledger says. Everything may be asked again.
#[derive(Debug, thiserror::Error)]
#[error("the edge's control API: {0}")]
pub struct NoAnswer(String);

/// What came of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// It has paid the order.
    Paid,
    /// It has to be given back, for this reason; `payment` is another that has paid the order.
    RefundDue {
        /// `sold-out`, `buyer-limit`, ...
        reason: String,
        /// Who won.
        payment: Option<String>,
    },
}

/// What came of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// The order is released, or can never come to be.
    Released {
        /// expired or cancelled, if there was an order.
        reason: Option<String>,
    },
    /// It is paid, by this payment.
    AlreadyPaid {
        /// The payment's id.
        payment: Option<String>,
    },
}

#[derive(Deserialize)]
struct Document {
    order_id: OrderId,
    sale: String,
    buyer: Option<String>,
    quantity: i64,
    state: OrderState,
    expires_at: Option<Timestamp>,
    reason: Option<String>,
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum BadControl {
    /// Not a URL.
    #[error("--control must be http://HOST:PORT, is {0:?}")]
    Url(String),
    /// A token that no header can carry.
    #[error("--control-token-file must hold a token of visible ASCII characters")]
    Token,
}

impl Edge {
    /// A client of the control API at `url` (`http://HOST:PORT`), which shows this token.
    ///
    /// # Errors
    ///
    /// See [`BadControl`].
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, BadControl> {
        let bad = || BadControl::Url(url.to_owned());
        let parts = url.parse::<Uri>().map_err(|_| bad())?.into_parts();
        let is_bare = parts.path_and_query.is_none_or(|path| path == "/");
        let is_plain = parts.scheme.is_some_and(|scheme| scheme.as_str() == "http");
        let authority = parts.authority.filter(|_| is_bare && is_plain).ok_or_else(bad)?;
        let token = token.map(str::trim).map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| BadControl::Token)?;
            value.set_sensitive(true);
            Ok(value)
        });
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(32).build(connector);
        Ok(Self { client, authority, token: token.transpose()?, sales: Mutex::default() })
    }

    /// Looks for an order among all sales.
    ///
    /// # Errors
    ///
    /// One of the sales did not say whether it has the order, and no other has it.
    pub async fn find(&self, order: &OrderId) -> Result<Option<Order>, NoAnswer> {
        let mut silent = None;
        for sale in self.sales().await? {
            match self.order(&sale, order).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Ok(None), Err)
    }

    /// An order as the ledger has it.
    async fn order(&self, sale: &str, order: &OrderId) -> Result<Option<Order>, NoAnswer> {
        let (status, body) = self.ask(Method::GET, &path(sale, order, ""), None).await?;
        match status {
            StatusCode::OK => {
                let document: Document = read(&body)?;
                // What is left of an id that was given up is no order.
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

    /// Takes a payment. The same may be asked again, and hears the same.
    ///
    /// # Errors
    ///
    /// Nothing is known; ask again.
    pub async fn confirm(&self, sale: &str, order: &OrderId, payment: &str) -> Result<Confirmed, NoAnswer> {
        let body = json!({ "payment": payment });
        let (status, body) = self.ask(Method::POST, &path(sale, order, "/confirm"), Some(&body)).await?;
        let text = |member: &str| body[member].as_str().map(str::to_owned);
        match (status, problem(&body)) {
            (StatusCode::OK, _) if body["state"] == "PAID" => Ok(Confirmed::Paid),
            (StatusCode::CONFLICT, "refund-due") => Ok(Confirmed::RefundDue {
                reason: text("reason").unwrap_or_else(|| "refund-due".to_owned()),
                payment: text("payment"),
            }),
            // Only the order is unknown. An unknown sale is a fault of somebody's configuration.
            (StatusCode::NOT_FOUND, "order-unknown") => {
                Ok(Confirmed::RefundDue { reason: "order-unknown".to_owned(), payment: None })
            }
            _ => Err(unexpected(status, &body)),
        }
    }

    /// Cancels an order. The same may be asked again, and hears the same.
    ///
    /// # Errors
    ///
    /// Nothing is known; ask again.
    pub async fn cancel(&self, sale: &str, order: &OrderId) -> Result<Cancelled, NoAnswer> {
        let (status, body) = self.ask(Method::POST, &path(sale, order, "/cancel"), None).await?;
        let text = |member: &str| body[member].as_str().map(str::to_owned);
        match (status, problem(&body)) {
            (StatusCode::OK, _) => Ok(Cancelled::Released { reason: text("reason") }),
            (StatusCode::CONFLICT, "already-paid") => Ok(Cancelled::AlreadyPaid { payment: text("payment") }),
            _ => Err(unexpected(status, &body)),
        }
    }

    /// The ids of all sales, up to ten seconds old.
    ///
    /// # Errors
    ///
    /// Nothing is known; ask again.
    pub async fn sales(&self) -> Result<Vec<String>, NoAnswer> {
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

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), NoAnswer> {
        let fault = |error: &dyn std::fmt::Display| NoAnswer(error.to_string());
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
            .map_err(|_| fault(&format!("no answer in {TIMEOUT:?}")))??;
        let document = serde_json::from_slice(&body).map_err(|error| fault(&format!("{status}, no JSON: {error}")))?;
        Ok((status, document))
    }
}

/// Sales' ids and orders' ids have only characters that a path may have.
fn path(sale: &str, order: &OrderId, step: &str) -> String {
    format!("/sales/{sale}/orders/{}{step}", order.as_str())
}

fn problem(body: &Value) -> &str {
    body["type"].as_str().and_then(|name| name.strip_prefix("urn:spikegate:problem:")).unwrap_or_default()
}

fn read<'a, T: Deserialize<'a>>(body: &'a Value) -> Result<T, NoAnswer> {
    T::deserialize(body).map_err(|error| NoAnswer(format!("its answer cannot be read: {error}")))
}

fn unexpected(status: StatusCode, body: &Value) -> NoAnswer {
    NoAnswer(format!("{status}: {}", body["detail"].as_str().unwrap_or("no details")))
}
