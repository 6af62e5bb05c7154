//! All sales of this edge, found by path, and the answers that the edge gives itself.
//!
//! Knows requests only as [`Head`] and body, so that whoever reads a connection can ask it, with the same answer.

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

/// Where the orders and the counters of all sales stand.
const SALES: &str = "/sales/";
const ORDERS: &str = "/orders/";

/// The sales of an edge.
pub struct Shop {
    sales: Vec<Arc<Sale>>,
    /// The exact paths of purchases, in order. Every request looks for its own here, and few comparisons cost less than
    /// a hash.
    by_path: Vec<(String, usize)>,
    by_id: HashMap<String, usize>,
}

/// What a path means to us.
#[derive(Clone, Copy)]
pub enum Endpoint<'a> {
    /// Tickets are bought here.
    Purchase(&'a Arc<Sale>),
    /// What is left is shown here.
    Display(&'a Arc<Sale>),
    /// An order is shown here.
    Order(&'a Arc<Sale>, &'a str),
}

impl Shop {
    /// A shop of these sales; their ids and paths differ.
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

    /// A sale by its id.
    #[must_use]
    pub fn sale(&self, id: &str) -> Option<&Arc<Sale>> {
        self.by_id.get(id).map(|index| &self.sales[*index])
    }

    /// Whose path this is; `None` if it is not ours.
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
    /// Whose endpoint it is.
    #[must_use]
    pub fn sale(self) -> &'a Arc<Sale> {
        match self {
            Self::Purchase(sale) | Self::Display(sale) | Self::Order(sale, _) => sale,
        }
    }

    /// Whether the body of a request means anything here.
    #[must_use]
    pub fn takes_body(&self, method: &str) -> bool {
        matches!(self, Self::Purchase(_)) && method == "POST"
    }

    /// Counts a purchase that is refused before its sale sees it, and gives the words in which a request with this
    /// method is refused here.
    #[must_use]
    pub fn turn_away(self, method: &str, count: impl Fn(&SaleMetrics)) -> Dialect {
        let Self::Purchase(sale) = self else { return Dialect::Rest };
        let dialect = request::dialect(method, &sale.rules().settings);
        if dialect.is_ok() {
            count(sale.metrics());
        }
        dialect.unwrap_or(Dialect::Rest)
    }

    /// Answers a request of `client`. `body` is at most one byte longer than [`request::BODY_MAX`], and empty where
    /// none is taken.
    pub async fn answer(self, client: Client, head: &dyn Head, body: &[u8]) -> Cow<'static, Answer> {
        match self.start(client, head, body) {
            Started::Ready(answer) => answer,
            Started::Waiting(answer) => answer.await,
        }
    }

    /// Answers a request from memory, or sets its answer going; `body` as in [`Endpoint::answer`].
    #[must_use]
    pub fn start(self, client: Client, head: &dyn Head, body: &[u8]) -> Started {
        match self {
            Self::Purchase(sale) => buy(sale, client, head, body),
            _ if !matches!(head.method(), "GET" | "HEAD") => {
                let mut answer = Answer::problem(
                    405,
                    "method-not-allowed",
                    "Method not allowed",
                    "This can only be read.",
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

/// An answer, or the wait for one that the ledger has to give.
pub enum Started {
    /// Given from memory.
    Ready(Cow<'static, Answer>),
    /// To come.
    Waiting(Pin<Box<dyn Future<Output = Cow<'static, Answer>> + Send>>),
}

impl From<Answer> for Started {
    fn from(answer: Answer) -> Self {
        Self::Ready(Cow::Owned(answer))
    }
}

fn buy(sale: &Arc<Sale>, client: Client, head: &dyn Head, body: &[u8]) -> Started {
    // Read once: a purchase that begins with these ends with them.
    let rules = sale.rules();
    let settings = &rules.settings;
    let dialect = match request::dialect(head.method(), settings) {
        Ok(dialect) => dialect,
        Err(refusal) => return reply::refusal(Dialect::Rest, &refusal, settings.seed_dialect).into(),
    };
    let read = request::read(head, body, settings, client.by_proxy);
    let mut ask = match read.and_then(|ask| sale.must_know_buyer(&rules, &ask).map(|()| ask)) {
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
        "An order id is 32 hexadecimal digits.",
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
            "The ledger has no order of this id.",
            json!({ "order_id": id }),
        ),
        Err(error) => reply::fault(&error),
    }
}
