//! What whoever takes payments does to an order.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Control, Shared, bad_body, json_response, response, told, unknown};
use crate::http::answer::Answer;
use crate::ledger::{Cancelled, Confirmed, LedgerError, Order, OrderId, PaymentId, RefundReason};
use crate::sale::{Sale, reply};

/// One order, as the ledger has it.
pub(super) async fn show(State(control): Shared, Path((sale, order)): Path<(String, String)>) -> Response {
    let (sale, id) = match find(&control, &sale, &order) {
        Ok(found) => found,
        Err(refused) => return *refused,
    };
    match sale.order(id).await {
        Ok(Some(order)) => json_response(&document(sale, id, &order)),
        Ok(None) => no_such_order(id),
        Err(error) => failed(sale, error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payment {
    payment: String,
}

/// Confirms a payment.
pub(super) async fn confirm(
    State(control): Shared,
    Path((sale, order)): Path<(String, String)>,
    body: Result<Json<Payment>, JsonRejection>,
) -> Response {
    let (sale, id) = match find(&control, &sale, &order) {
        Ok(found) => found,
        Err(refused) => return *refused,
    };
    let payment = match body {
        Ok(Json(Payment { payment })) => payment,
        Err(error) => return bad_body(&error.body_text()),
    };
    let payment: PaymentId = match payment.parse() {
        Ok(payment) => payment,
        Err(error) => return bad_body(&format!("payment: {error}")),
    };
    match sale.confirm(id, &payment).await {
        Ok(Confirmed::Paid { order, retaken }) => {
            let mut document = document(sale, id, &order);
            if retaken {
                document["retaken"] = true.into();
            }
            json_response(&document)
        }
        Ok(Confirmed::RefundDue(reason)) => refund_due(id, &reason),
        Ok(Confirmed::UnknownOrder) => no_such_order(id),
        Err(error) => failed(sale, error),
    }
}

/// Cancels.
pub(super) async fn cancel(State(control): Shared, Path((sale, order)): Path<(String, String)>) -> Response {
    let (sale, id) = match find(&control, &sale, &order) {
        Ok(found) => found,
        Err(refused) => return *refused,
    };
    match sale.cancel(id).await {
        Ok(Cancelled::Released(order)) => json_response(&document(sale, id, &order)),
        Ok(Cancelled::GivenUp) => json_response(&json!({ "order_id": id, "sale": sale.id(), "state": "GIVEN_UP" })),
        Ok(Cancelled::AlreadyPaid(order)) => response(Answer::problem(
            409,
            "already-paid",
            "Already paid",
            "The order is paid and cannot be cancelled.",
            json!({ "order_id": id, "payment": order.payment }),
        )),
        Err(error) => failed(sale, error),
    }
}

fn find<'a>(control: &'a Control, sale: &str, order: &str) -> Result<(&'a Sale, OrderId), Box<Response>> {
    let found = control.shop.sale(sale).ok_or_else(|| Box::new(unknown(sale)))?;
    let id = order.parse::<OrderId>().map_err(|error| Box::new(bad_body(&format!("order: {error}"))))?;
    Ok((found, id))
}

fn failed(sale: &Sale, error: LedgerError) -> Response {
    told(sale, Err(error))
}

fn no_such_order(id: OrderId) -> Response {
    let detail = "The ledger has no order with this id.";
    response(Answer::problem(404, "order-unknown", "Order unknown", detail, json!({ "order_id": id })))
}

/// One problem type for every reason, because the caller always does the same: refund the payment.
fn refund_due(id: OrderId, reason: &RefundReason) -> Response {
    let (reason, detail, members) = match reason {
        RefundReason::PaidOtherwise { payment } => {
            ("paid-otherwise", "another payment already paid the order", json!({ "payment": payment }))
        }
        RefundReason::SoldOut => ("sold-out", "the order was released and no tickets are left", Value::Null),
        RefundReason::NotEnough { left } => (
            "not-enough-left",
            "the order was released and fewer tickets are left than it needs",
            json!({ "left": left }),
        ),
        RefundReason::BuyerLimit { have } => {
            ("buyer-limit", "the order was released and the buyer has reached the limit", json!({ "have": have }))
        }
        RefundReason::GivenUp => ("given-up", "the order id was given up before an order was created", Value::Null),
    };
    let mut all = json!({ "order_id": id, "reason": reason });
    if let (Some(all), Value::Object(members)) = (all.as_object_mut(), members) {
        all.extend(members);
    }
    let detail = format!("The payment must be refunded: {detail}.");
    response(Answer::problem(409, "refund-due", "Refund due", &detail, all))
}

/// The order as its buyer sees it, plus payment and reason, which only the payment side needs.
fn document(sale: &Sale, id: OrderId, order: &Order) -> Value {
    let mut document = json!(reply::order_document(sale, id, order));
    if let Some(payment) = &order.payment {
        document["payment"] = json!(payment);
    }
    if let Some(reason) = &order.reason {
        document["reason"] = json!(reason);
    }
    document
}
