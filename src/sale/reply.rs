//! Renders the outcome of a purchase as an HTTP answer, in both dialects. No other file does.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::request::{BODY_MAX, Dialect, RequestRefusal};
use super::{Outcome, Refusal, Sale};
use crate::auth::admission::AdmissionRefusal;
use crate::http::answer::{Answer, PurchaseLabel};
use crate::ledger::{LedgerError, Order, OrderId, OrderState, SaleState};
use crate::sale::metrics::SaleMetrics;

/// `Retry-After` of a fault that may pass at any moment, in seconds.
const RETRY_SOON_S: u64 = 1;
/// Clients that are refused because there are too many must not all return in the same second: `Retry-After` cycles
/// from 1 to this number of seconds.
pub(crate) const RETRY_SPREAD_S: u64 = 3;
/// `Retry-After` of a paused sale, in seconds. When it resumes is not known.
const RETRY_PAUSED_S: u64 = 5;

/// The refusals whose answer never varies. They are searched in this order; sold out is by far the most frequent.
const CONSTANT: [Refusal; 13] = [
    Refusal::SoldOut,
    Refusal::Closed,
    Refusal::Paused,
    Refusal::Busy,
    Refusal::Unavailable,
    Refusal::Missing,
    Refusal::KeyReused,
    Refusal::LostData,
    Refusal::TokenMissing,
    Refusal::BuyerUnknown,
    Refusal::NotAdmitted(AdmissionRefusal::Missing),
    Refusal::NotAdmitted(AdmissionRefusal::Invalid),
    Refusal::NotAdmitted(AdmissionRefusal::Expired),
];
/// Labels of purchases that are refused before they reach their sale.
const LIMITED: PurchaseLabel = PurchaseLabel::Refused("limited");
const DENIED: PurchaseLabel = PurchaseLabel::Refused("denied");
/// Answers of [`CONSTANT`], rendered once.
static CONSTANT_REST: LazyLock<[Answer; CONSTANT.len()]> =
    LazyLock::new(|| CONSTANT.map(|r| refused(refusal_problem, r)));
/// The same for answers whose `Retry-After` varies, one for each value.
static BUSY_REST: LazyLock<[Answer; RETRY_SPREAD_S as usize]> =
    LazyLock::new(|| spread(&refused(refusal_problem, Refusal::Busy)));
static UNAVAILABLE_REST: LazyLock<[Answer; RETRY_SPREAD_S as usize]> =
    LazyLock::new(|| spread(&refused(refusal_problem, Refusal::Unavailable)));
static TOO_MANY_REST: LazyLock<[Answer; RETRY_SPREAD_S as usize]> = LazyLock::new(|| {
    let detail = "This client address exceeds its request rate. No order was created.";
    let answer = Answer::problem(429, "too-many-requests", "Too many requests", detail, Value::Null);
    spread(&answer.label(LIMITED))
});
static TOO_MANY_OF_BUYER: LazyLock<[Answer; RETRY_SPREAD_S as usize]> =
    LazyLock::new(|| spread(&refused(refusal_problem, Refusal::TooOften)));
static TOO_MANY_SEED: LazyLock<Answer> = LazyLock::new(|| seed(-16, "请求过于频繁，请稍后再试", None).label(LIMITED));
static DENIED_REST: LazyLock<Answer> = LazyLock::new(|| {
    Answer::problem(
        403,
        "address-denied",
        "Address denied",
        "Requests from this client address are denied. No order was created.",
        Value::Null,
    )
    .label(DENIED)
});
static DENIED_SEED: LazyLock<Answer> = LazyLock::new(|| seed(-17, "此地址不允许访问", None).label(DENIED));
static CONSTANT_SEED: LazyLock<[Answer; CONSTANT.len()]> = LazyLock::new(|| CONSTANT.map(|r| refused(refusal_seed, r)));

/// The answer to a purchase.
#[must_use]
pub fn answer(dialect: Dialect, sale: &Sale, outcome: &Outcome) -> Cow<'static, Answer> {
    if *outcome == Outcome::Refused(Refusal::TooOften) {
        return Cow::Borrowed(too_many_purchases(dialect));
    }
    if let Outcome::Refused(refusal) = outcome
        && let Some(at) = CONSTANT.iter().position(|constant| constant == refusal)
    {
        return Cow::Borrowed(match (dialect, refusal) {
            (Dialect::Rest, Refusal::Busy) => in_turn(&*BUSY_REST),
            (Dialect::Rest, Refusal::Unavailable) => in_turn(&*UNAVAILABLE_REST),
            (Dialect::Rest, _) => &CONSTANT_REST[at],
            (Dialect::Seed, _) => &CONSTANT_SEED[at],
        });
    }
    Cow::Owned(in_words(dialect, sale, outcome).label(label(outcome)))
}

/// The label of an outcome in logs and metrics.
fn label(outcome: &Outcome) -> PurchaseLabel {
    let label = SaleMetrics::label(outcome);
    match outcome {
        Outcome::Ordered { id, .. } | Outcome::Unknown { id } => PurchaseLabel::Ended(label, Some(*id)),
        Outcome::Refused(_) => PurchaseLabel::Refused(label),
    }
}

/// A refusal rendered in a dialect, with its label.
fn refused(render: fn(&Refusal) -> Answer, refusal: Refusal) -> Answer {
    render(&refusal).label(label(&Outcome::Refused(refusal)))
}

fn in_words(dialect: Dialect, sale: &Sale, outcome: &Outcome) -> Answer {
    match (dialect, outcome) {
        (_, Outcome::Ordered { order: Order { state: OrderState::Released, .. }, id, .. }) => released(dialect, *id),
        (Dialect::Rest, Outcome::Ordered { id, order, .. }) => {
            let mut answer = Answer::json(201, &order_document(sale, *id, order));
            answer.location = Some(format!("/sales/{}/orders/{id}", sale.id()));
            answer
        }
        (Dialect::Seed, Outcome::Ordered { id, order, .. }) => {
            Answer::json(200, &Seed { code: 1, msg: "抢票成功", data: Some(order_document(sale, *id, order)) })
        }
        (Dialect::Rest, Outcome::Refused(refusal)) => refusal_problem(refusal),
        (Dialect::Seed, Outcome::Refused(refusal)) => refusal_seed(refusal),
        (Dialect::Rest, Outcome::Unknown { id }) => Answer::problem(
            503,
            "outcome-unknown",
            "Outcome unknown",
            "The ledger did not answer in time, so the order may or may not exist. Read the order, or repeat the purchase with the same Idempotency-Key.",
            json!({ "order_id": id }),
        )
        .retry_after(RETRY_SOON_S),
        (Dialect::Seed, Outcome::Unknown { id }) => seed(-10, "结果未知，请稍后查询订单", Some(json!({ "order_id": id }))),
    }
}

/// The answer to a request of an address that asks too often. The longest that it has to wait for one request is a
/// second.
#[must_use]
pub fn too_many_requests(dialect: Dialect) -> &'static Answer {
    match dialect {
        Dialect::Rest => in_turn(&*TOO_MANY_REST),
        Dialect::Seed => &TOO_MANY_SEED,
    }
}

/// The answer to a purchase of a buyer who exceeds a rate or a number of purchases at a time.
fn too_many_purchases(dialect: Dialect) -> &'static Answer {
    match dialect {
        Dialect::Rest => in_turn(&*TOO_MANY_OF_BUYER),
        Dialect::Seed => &TOO_MANY_SEED,
    }
}

/// The answer to a request of a client address that is denied.
#[must_use]
pub fn address_denied(dialect: Dialect) -> &'static Answer {
    match dialect {
        Dialect::Rest => &DENIED_REST,
        Dialect::Seed => &DENIED_SEED,
    }
}

/// The answer to a request whose body is longer than its route allows.
#[must_use]
pub fn body_too_large(most: u64) -> Answer {
    let detail = format!("The request body must have at most {most} bytes.");
    Answer::problem(413, "body-too-large", "Body too large", &detail, Value::Null)
}

/// Copies of an answer, one for each `Retry-After` from 1 to [`RETRY_SPREAD_S`].
pub(crate) fn spread(answer: &Answer) -> [Answer; RETRY_SPREAD_S as usize] {
    std::array::from_fn(|at| answer.clone().retry_after(1 + at as u64))
}

/// The answers in turn, so that clients spread their retries.
pub(crate) fn in_turn(answers: &'static [Answer]) -> &'static Answer {
    &answers[turn() % answers.len()]
}

/// A counter of the thread: it needs no shared cache line.
fn turn() -> usize {
    thread_local! {
        static TURN: Cell<usize> = const { Cell::new(0) };
    }
    TURN.try_with(|turn| turn.replace(turn.get().wrapping_add(1))).unwrap_or_default()
}

/// The answer to a request that is no purchase.
#[must_use]
pub fn refusal(dialect: Dialect, refusal: &RequestRefusal, allows_get: bool) -> Answer {
    match (dialect, refusal) {
        (Dialect::Seed, RequestRefusal::Bad { field, .. }) => seed(-7, "请求有误", Some(json!({ "field": field }))),
        (_, RequestRefusal::Bad { field, detail }) => {
            Answer::problem(400, "bad-request", "Bad request", &format!("{field} {detail}"), json!({ "field": field }))
        }
        (_, RequestRefusal::Method) => {
            let mut answer = Answer::problem(
                405,
                "method-not-allowed",
                "Method not allowed",
                "Buy a ticket with POST.",
                Value::Null,
            );
            answer.allow = Some(if allows_get { "GET, POST" } else { "POST" });
            answer
        }
        (_, RequestRefusal::MediaType) => {
            let mut answer = Answer::problem(
                415,
                "unsupported-media-type",
                "Unsupported media type",
                "The body of a purchase must be application/json or application/x-www-form-urlencoded.",
                Value::Null,
            );
            answer.accept_post = Some("application/json, application/x-www-form-urlencoded");
            answer
        }
        (_, RequestRefusal::TooLarge) => Answer::problem(
            413,
            "body-too-large",
            "Body too large",
            &format!("The body of a purchase must have at most {BODY_MAX} bytes."),
            Value::Null,
        ),
    }
}

fn refusal_problem(refusal: &Refusal) -> Answer {
    let problem = |status, name, title, detail: &str| Answer::problem(status, name, title, detail, Value::Null);
    match refusal {
        Refusal::SoldOut => problem(
            409,
            "sold-out",
            "Sold out",
            "All tickets are held or paid. Tickets that are not paid in time return to sale.",
        ),
        Refusal::NotEnough { left } => Answer::problem(
            409,
            "not-enough-left",
            "Not enough left",
            &format!("Only {left} tickets are left."),
            json!({ "left": left }),
        ),
        Refusal::BuyerLimit { limit, have } => Answer::problem(
            409,
            "buyer-limit",
            "Buyer limit reached",
            &format!("A buyer may have {limit} tickets; this buyer has {have}."),
            json!({ "limit": limit, "have": have }),
        ),
        Refusal::UnpaidLimit { limit, have } => Answer::problem(
            409,
            "unpaid-limit",
            "Too many unpaid orders",
            &format!("A buyer may have {limit} unpaid orders; this buyer has {have}. Pay or cancel an order first."),
            json!({ "limit": limit, "have": have }),
        ),
        Refusal::NotYet { wait } => {
            problem(403, "sale-not-open", "Sale not open", "The sale is not open yet.").retry_after(ceil_s(*wait))
        }
        Refusal::Paused => {
            problem(403, "sale-paused", "Sale paused", "The sale is paused.").retry_after(RETRY_PAUSED_S)
        }
        Refusal::Closed => problem(410, "sale-closed", "Sale closed", "The sale is closed."),
        Refusal::KeyReused => problem(
            422,
            "key-reused",
            "Idempotency-Key reused",
            "An order with this Idempotency-Key and other content exists.",
        ),
        Refusal::TokenMissing => Answer {
            www_authenticate: Some("Bearer"),
            ..problem(
                401,
                "token-missing",
                "Token missing",
                "A token that proves the buyer is required. No order was created.",
            )
        },
        Refusal::TokenInvalid(fault) => Answer {
            www_authenticate: Some("Bearer error=\"invalid_token\""),
            ..Answer::problem(
                401,
                "token-invalid",
                "Token invalid",
                "The token does not prove the buyer. No order was created.",
                json!({ "reason": fault.word() }),
            )
        },
        Refusal::BuyerUnknown => problem(
            403,
            "buyer-unknown",
            "Buyer unknown",
            "No trusted proxy supplied the buyer ID. No order was created.",
        ),
        Refusal::NotAdmitted(AdmissionRefusal::Missing) => problem(
            403,
            "admission-required",
            "Admission required",
            "An admission token is required. No order was created.",
        ),
        Refusal::NotAdmitted(AdmissionRefusal::Invalid) => problem(
            403,
            "admission-invalid",
            "Admission invalid",
            "The admission token is not valid for this sale and buyer. No order was created.",
        ),
        Refusal::NotAdmitted(AdmissionRefusal::Early(seconds)) => problem(
            403,
            "admission-early",
            "Admission early",
            "The admission token is not valid yet. No order was created.",
        )
        .retry_after(*seconds),
        Refusal::NotAdmitted(AdmissionRefusal::Expired) => problem(
            403,
            "admission-expired",
            "Admission expired",
            "The admission token has expired. No order was created.",
        ),
        Refusal::TooOften => problem(
            429,
            "too-many-requests",
            "Too many requests",
            "This buyer exceeds the purchase rate. No order was created.",
        ),
        Refusal::Busy => problem(503, "busy", "Busy", "Too many purchases are waiting. No order was created.")
            .retry_after(RETRY_SOON_S),
        Refusal::Unavailable => problem(
            503,
            "ledger-unavailable",
            "Ledger unavailable",
            "The ledger is not reachable. No order was created.",
        )
        .retry_after(RETRY_SOON_S),
        Refusal::Missing => {
            problem(503, "sale-missing", "Sale missing", "The ledger has no such sale. No order was created.")
                .retry_after(RETRY_PAUSED_S)
        }
        Refusal::LostData => problem(
            503,
            "ledger-lost-data",
            "Ledger lost data",
            "The ledger may have lost orders. Nothing is sold until it is reconciled. No order was created.",
        )
        .retry_after(RETRY_PAUSED_S),
    }
}

fn refusal_seed(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::SoldOut => seed(-1, "已售罄", None),
        Refusal::NotEnough { left } => seed(-2, "余票不足", Some(json!({ "left": left }))),
        Refusal::BuyerLimit { limit, have } => seed(-3, "超出限购数量", Some(json!({ "limit": limit, "have": have }))),
        Refusal::UnpaidLimit { limit, have } => {
            seed(-14, "未支付订单过多", Some(json!({ "limit": limit, "have": have })))
        }
        Refusal::NotYet { wait } => seed(-4, "尚未开售", Some(json!({ "retry_after": ceil_s(*wait) }))),
        Refusal::Closed => seed(-5, "已结束", None),
        Refusal::Paused => seed(-6, "暂停销售", None),
        Refusal::KeyReused => seed(-8, "幂等键已用于其他请求", None),
        Refusal::TokenMissing => seed(-18, "请先登录", None),
        Refusal::TokenInvalid(fault) => seed(-19, "登录凭证无效", Some(json!({ "reason": fault.word() }))),
        Refusal::BuyerUnknown => seed(-20, "无法确认购票人", None),
        Refusal::NotAdmitted(AdmissionRefusal::Missing) => seed(-21, "需要入场凭证", None),
        Refusal::NotAdmitted(AdmissionRefusal::Invalid) => seed(-22, "入场凭证无效", None),
        Refusal::NotAdmitted(AdmissionRefusal::Early(seconds)) => {
            seed(-23, "入场凭证尚未生效", Some(json!({ "retry_after": seconds })))
        }
        Refusal::NotAdmitted(AdmissionRefusal::Expired) => seed(-24, "入场凭证已过期", None),
        Refusal::TooOften => TOO_MANY_SEED.clone(),
        Refusal::Busy => seed(-9, "系统繁忙，请稍后再试", None),
        Refusal::Unavailable => seed(-11, "服务暂不可用", None),
        Refusal::Missing => seed(-12, "没有该场次", None),
        Refusal::LostData => seed(-15, "订单数据核对中，暂停销售", None),
    }
}

fn released(dialect: Dialect, id: OrderId) -> Answer {
    let members = json!({ "order_id": id });
    match dialect {
        Dialect::Rest => Answer::problem(
            409,
            "order-released",
            "Order released",
            "The order with this Idempotency-Key was not paid in time or was cancelled. Its tickets returned to sale.",
            members,
        ),
        Dialect::Seed => seed(-13, "订单已失效", Some(members)),
    }
}

/// The answer to a read of an order while too many are under way.
#[must_use]
pub fn too_many_readers() -> Answer {
    Answer::problem(503, "busy", "Busy", "Too many orders are being read. Try again.", Value::Null)
        .retry_after(1 + turn() as u64 % RETRY_SPREAD_S)
}

/// The answer to a read or a management call that the ledger did not perform.
#[must_use]
pub fn fault(error: &LedgerError) -> Answer {
    let problem = |status, name, title| Answer::problem(status, name, title, &error.to_string(), Value::Null);
    match error {
        LedgerError::Missing => refusal_problem(&Refusal::Missing),
        LedgerError::Fenced(_) => Answer::problem(
            503,
            "ledger-lost-data",
            "Ledger lost data",
            "The ledger may have lost orders. Nothing is changed until it is reconciled.",
            Value::Null,
        )
        .retry_after(RETRY_PAUSED_S),
        // The details are for the operator; the log has them.
        LedgerError::Unavailable(_) | LedgerError::Changed | LedgerError::Damaged(_) => Answer::problem(
            503,
            "ledger-unavailable",
            "Ledger unavailable",
            "The ledger is not reachable. Nothing was changed.",
            Value::Null,
        )
        .retry_after(RETRY_SOON_S),
        LedgerError::Unknown(_) => Answer::problem(
            503,
            "outcome-unknown",
            "Outcome unknown",
            "The ledger did not answer in time. Repeating the same request is safe.",
            Value::Null,
        )
        .retry_after(RETRY_SOON_S),
        LedgerError::BelowSold { sold } => {
            Answer::problem(409, "below-sold", "Below the sold quantity", &error.to_string(), json!({ "sold": sold }))
        }
        LedgerError::Unsupported => problem(501, "unsupported", "Unsupported"),
        LedgerError::AboveMaximum => problem(409, "above-maximum", "Above the maximum"),
        LedgerError::ChangeIdReused => problem(409, "change-id-reused", "Change id reused"),
    }
}

/// An answer in the article's dialect.
#[derive(Serialize)]
struct Seed<'a, T> {
    code: i32,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

fn seed(code: i32, msg: &str, data: Option<Value>) -> Answer {
    Answer::json(200, &Seed { code, msg, data })
}

/// An order, as its buyer sees it.
#[derive(Debug, Serialize)]
pub struct OrderDocument<'a> {
    order_id: OrderId,
    sale: &'a str,
    buyer: Option<&'a str>,
    quantity: u32,
    state: OrderState,
    expires_at: String,
}

/// See [`OrderDocument`].
#[must_use]
pub fn order_document<'a>(sale: &'a Sale, id: OrderId, order: &'a Order) -> OrderDocument<'a> {
    OrderDocument {
        order_id: id,
        sale: sale.id(),
        buyer: order.buyer.as_deref(),
        quantity: order.quantity,
        state: order.state,
        expires_at: time(order.expires_at_ms),
    }
}

/// The sale for display; `None` if the edge has no recent data from the ledger.
#[must_use]
pub fn sale_document(sale: &Sale) -> Option<Value> {
    let view = sale.view()?;
    let after = |at: Option<u64>| at.is_some_and(|at| view.now_ms >= at);
    let state = if view.state == SaleState::Closed || after(view.terms.closes_at_ms) {
        "closed"
    } else if view.terms.opens_at_ms.is_some() && !after(view.terms.opens_at_ms) {
        "pending"
    } else if view.state == SaleState::Paused {
        "paused"
    } else if view.available() == 0 {
        "sold_out"
    } else {
        "open"
    };
    let mut document = json!({ "sale": sale.id(), "total": view.total, "available": view.available(), "state": state });
    for (name, at_ms) in [("opens_at", view.terms.opens_at_ms), ("closes_at", view.terms.closes_at_ms)] {
        if let Some(at_ms) = at_ms {
            document[name] = time(at_ms).into();
        }
    }
    Some(document)
}

/// RFC 3339 in UTC, to the millisecond, so that all of them are of one length; the number itself for a time that no
/// calendar has.
pub(crate) fn time(at_ms: u64) -> String {
    i64::try_from(at_ms)
        .ok()
        .and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok())
        .map_or_else(|| at_ms.to_string(), |at| format!("{at:.3}"))
}

fn ceil_s(wait: std::time::Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
