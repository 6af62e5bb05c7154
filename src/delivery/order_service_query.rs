//! Queries what the order service has recorded of a sale, page by page: it may have more than a ledger that lost data.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::post::{Poster, QueryOutcome};
use crate::ledger::reconcile::Witness;
use crate::ledger::{Order, OrderId, OrderState, PaymentId, ReleaseReason};

/// Orders per page.
const PAGE: usize = 1_000;

/// The most pages: ten million orders.
const PAGES_MAX: usize = 10_000;

/// Why the order service gives no answer to the query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KnownError {
    /// It does not support the query.
    #[error("the order service does not support this query ({0})")]
    Unsupported(String),
    /// It does not answer, or its answer cannot be read.
    #[error("the order service does not answer: {0}")]
    Failed(String),
}

/// See `docs/integrating/webhook.md`.
#[derive(Deserialize)]
struct Page {
    seq: u64,
    orders: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    order_id: OrderId,
    seq: u64,
    state: OrderState,
    quantity: u32,
    #[serde(default)]
    buyer: Option<String>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    reason: Option<ReleaseReason>,
    #[serde(default)]
    payment: Option<PaymentId>,
}

impl Row {
    fn order(self) -> Order {
        let Self { order_id: _, seq: _, state, quantity, buyer, expires_at, reason, payment } = self;
        let expires_at_ms = expires_at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(0);
        let reason = (state == OrderState::Released).then(|| reason.unwrap_or(ReleaseReason::Expired));
        let payment = payment.filter(|_| state == OrderState::Paid);
        Order { state, quantity, buyer: buyer.map(Into::into), expires_at_ms, payment, reason }
    }
}

impl Poster {
    /// The newest log entry that the order service has received, of any sale with this id; 0 for none.
    ///
    /// # Errors
    /// See [`KnownError`].
    pub async fn newest_of_any(&self, sale: &str) -> Result<u64, KnownError> {
        newest(self, sale, None).await
    }
}

/// The newest entry that it has received, of the sale of this epoch or of any with this id; 0 for none.
pub(super) async fn newest(poster: &Poster, sale: &str, epoch: Option<u64>) -> Result<u64, KnownError> {
    Ok(page(poster, sale, epoch, None, 0).await?.seq)
}

/// All orders.
pub(super) async fn all(poster: &Poster, sale: &str, epoch: u64) -> Result<Witness, KnownError> {
    let mut witness = Witness { name: "the order service", ..Witness::default() };
    let mut orders = HashMap::new();
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let Page { seq, orders: rows } = page(poster, sale, Some(epoch), after, PAGE).await?;
        witness.version = witness.version.max(seq);
        let is_last = rows.len() < PAGE;
        for row in rows {
            if after.is_some_and(|after| row.order_id <= after) {
                return Err(KnownError::Failed("its pages do not go forward".to_owned()));
            }
            after = Some(row.order_id);
            let (id, seq) = (row.order_id, row.seq);
            // Without an id, a payment cannot be told apart from another.
            if row.state == OrderState::Paid && row.payment.is_none() {
                return Err(KnownError::Failed(format!("order {id} is PAID by no payment")));
            }
            orders.insert(id, (row.order(), seq));
        }
        if is_last {
            witness.orders = orders;
            return Ok(witness);
        }
    }
    Err(KnownError::Failed("it has too many orders".to_owned()))
}

async fn page(
    poster: &Poster,
    sale: &str,
    epoch: Option<u64>,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Page, KnownError> {
    let epoch = epoch.map(|epoch| format!("{epoch:016x}"));
    let question = json!({ "sale": sale, "epoch": epoch, "after": after, "limit": limit });
    match poster.ask("/orders", &question.to_string()).await {
        QueryOutcome::Answered(body) => {
            // Some servers answer 2xx to anything.
            serde_json::from_slice(&body).map_err(|error| KnownError::Unsupported(format!("its answer: {error}")))
        }
        QueryOutcome::Refused(why) => Err(KnownError::Unsupported(why)),
        QueryOutcome::Failed(why) => Err(KnownError::Failed(why)),
    }
}
