//! All sales of this edge, by path, and the answers that the edge gives itself.
//!
//! Takes a request as [`Head`] and body. Every reader of connections therefore gets the same answer.

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::json;

use crate::http::answer::{Answer, PurchaseLabel};
use crate::http::client::Client;
use crate::http::head::Head;
use crate::ledger::{LedgerError, OrderId};
use crate::observe::trace;
use crate::sale::metrics::SaleMetrics;
use crate::sale::request::{self, Dialect};
use crate::sale::{Sale, reply};

/// Path prefix of the counters and orders of all sales.
const SALES: &str = "/sales/";
const ORDERS: &str = "/orders/";

/// The sales of an edge.
pub struct Shop {
    sales: Vec<Arc<Sale>>,
    /// The exact paths of purchases, sorted. Every request is looked up here; a few comparisons cost less than a hash.
    by_path: Vec<(String, usize)>,
    by_id: HashMap<String, usize>,
}

/// What a path of the edge's own API stands for.
#[derive(Clone, Copy)]
pub enum Endpoint<'a> {
    /// Sells tickets.
    Purchase(&'a Arc<Sale>),
    /// Shows a sale's counters.
    Display(&'a Arc<Sale>),
    /// Shows one order; the text is its unparsed ID.
    Order(&'a Arc<Sale>, &'a str),
}

impl Shop {
    /// `sales` must have distinct IDs and paths.
    #[must_use]
    pub fn new(sales: Vec<Arc<Sale>>) -> Self {
        let all = || sales.iter().enumerate();
        let path = |sale: &Arc<Sale>| sale.rules().settings.path.clone();
        let mut by_path: Vec<_> = all().map(|(index, sale)| (path(sale), index)).collect();
        by_path.sort_unstable();
        Self { by_path, by_id: all().map(|(index, sale)| (sale.id().to_owned(), index)).collect(), sales }
    }

    /// Every sale, in the order of the configuration.
    #[must_use]
    pub fn sales(&self) -> &[Arc<Sale>] {
        &self.sales
    }

    /// Finds a sale by its ID.
    #[must_use]
    pub fn sale(&self, id: &str) -> Option<&Arc<Sale>> {
        self.by_id.get(id).map(|index| &self.sales[*index])
    }

    /// Finds the endpoint of a path; `None` if it belongs to no sale.
    #[must_use]
    pub fn find<'a>(&'a self, path: &'a str) -> Option<Endpoint<'a>> {
        if let Ok(at) = self.by_path.binary_search_by(|(own, _)| own.as_str().cmp(path)) {
            return Some(Endpoint::Purchase(&self.sales[self.by_path[at].1]));
        }
        let rest = path.strip_prefix(SALES)?;
        match rest.split_once('/') {
            None => self.sale(rest).map(Endpoint::Display),
            Some((id, _)) => {
                let sale = self.sale(id)?;
                rest[id.len()..].strip_prefix(ORDERS).map(|order| Endpoint::Order(sale, order))
            }
        }
    }
}

impl<'a> Endpoint<'a> {
    /// The sale of this endpoint.
    #[must_use]
    pub fn sale(self) -> &'a Arc<Sale> {
        match self {
            Self::Purchase(sale) | Self::Display(sale) | Self::Order(sale, _) => sale,
        }
    }

    /// Whether a request with this method may have a body.
    #[must_use]
    pub fn takes_body(&self, method: &str) -> bool {
        matches!(self, Self::Purchase(_)) && method == "POST"
    }

    /// Counts a purchase that is refused before it reaches its sale. Returns the dialect of the refusal.
    #[must_use]
    pub fn turn_away(self, method: &str, count: impl Fn(&SaleMetrics)) -> Dialect {
        let Self::Purchase(sale) = self else { return Dialect::Rest };
        let dialect = request::dialect(method, &sale.rules().settings);
        if dialect.is_ok() {
            count(sale.metrics());
        }
        dialect.unwrap_or(Dialect::Rest)
    }

    /// Answers a request of `client`. `body` is at most one byte longer than [`request::BODY_MAX`], and empty if the
    /// endpoint takes none.
    pub async fn answer(self, client: Client, head: &dyn Head, body: &[u8]) -> Cow<'static, Answer> {
        match self.start(client, head, body) {
            Started::Ready(answer) => answer,
            Started::Waiting(answer) => answer.await,
        }
    }

    /// Answers a request from memory or starts the work for its answer; `body` as in [`Endpoint::answer`].
    #[must_use]
    pub fn start(self, client: Client, head: &dyn Head, body: &[u8]) -> Started {
        match self {
            Self::Purchase(sale) => buy(sale, client, head, body),
            _ if !matches!(head.method(), "GET" | "HEAD") => {
                let mut answer = Answer::problem(
                    405,
                    "method-not-allowed",
                    "Method not allowed",
                    "This resource is read-only.",
                    serde_json::Value::Null,
                );
                answer.allow = Some("GET, HEAD");
                Started::from(answer)
            }
            Self::Display(sale) => display(sale).into(),
            Self::Order(sale, id) => match id.parse() {
                Ok(id) => {
                    let sale = Arc::clone(sale);
                    Started::Waiting(Box::pin(async move { Cow::Owned(order(&sale, id).await) }))
                }
                Err(_) => malformed_id().into(),
            },
        }
    }
}

/// An answer, or a future that waits for the ledger.
pub enum Started {
    /// Answered from memory.
    Ready(Cow<'static, Answer>),
    /// The ledger has to answer.
    Waiting(Pin<Box<dyn Future<Output = Cow<'static, Answer>> + Send>>),
}

impl From<Answer> for Started {
    fn from(answer: Answer) -> Self {
        Self::Ready(Cow::Owned(answer))
    }
}

fn buy(sale: &Arc<Sale>, client: Client, head: &dyn Head, body: &[u8]) -> Started {
    // Load the rules once: a reload must not change them within one purchase.
    let rules = sale.rules();
    let settings = &rules.settings;
    let dialect = match request::dialect(head.method(), settings) {
        Ok(dialect) => dialect,
        Err(refusal) => return reply::refusal(Dialect::Rest, &refusal, settings.seed_dialect).into(),
    };
    let read = request::read(head, body, settings, client.by_proxy);
    let mut ask = match read.and_then(|ask| sale.require_buyer(&rules, &ask).map(|()| ask)) {
        Ok(ask) => ask,
        Err(refusal) => {
            sale.metrics().bad_request();
            let answer = reply::refusal(dialect, &refusal, settings.seed_dialect);
            return answer.label(PurchaseLabel::Ended("bad_request", None)).into();
        }
    };
    if client.by_proxy {
        ask.parent = trace::parent(head);
    }
    match sale.submit(&rules, &ask) {
        Err(outcome) => Started::Ready(reply::answer(dialect, sale, &outcome)),
        Ok(queued) => {
            let sale = Arc::clone(sale);
            Started::Waiting(Box::pin(async move { reply::answer(dialect, &sale, &sale.outcome(queued).await) }))
        }
    }
}

fn display(sale: &Sale) -> Answer {
    match reply::sale_document(sale) {
        Some(document) => Answer::json(200, &document),
        None if sale.is_missing() => reply::fault(&LedgerError::Missing),
        None if sale.fence().is_some() => reply::fault(&LedgerError::Fenced(String::new())),
        None => reply::fault(&LedgerError::Unavailable(String::new())),
    }
}

fn malformed_id() -> Answer {
    Answer::problem(
        400,
        "bad-request",
        "Bad request",
        "An order ID has 32 hexadecimal digits.",
        json!({ "field": "order id" }),
    )
}

async fn order(sale: &Sale, id: OrderId) -> Answer {
    let Some(read) = sale.order_for_anyone(id).await else { return reply::too_many_readers() };
    match read {
        Ok(Some(order)) => Answer::json(200, &reply::order_document(sale, id, &order)),
        Ok(None) => Answer::problem(
            404,
            "order-unknown",
            "Order unknown",
            "The ledger has no order with this ID.",
            json!({ "order_id": id }),
        ),
        Err(error) => reply::fault(&error),
    }
}
