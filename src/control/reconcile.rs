//! Reconciliation: compares the records of a sale with everything that is known of it, and repairs them.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Control, Shared, bad_body, json_response, problem, response, unknown};
use crate::delivery::KnownError;
use crate::ledger::reconcile::{Bookkeeper, Findings, Witness, apply, compare};
use crate::ledger::{LedgerError, SaleState};
use crate::sale::{Sale, reply};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReconcileOptions {
    /// Whether to repair what is found; the sale must be fenced, paused or closed.
    apply: bool,
    /// Continue if the order service does not answer.
    without_order_service: bool,
}

/// Why there is no report.
enum ReconcileError {
    Ledger(LedgerError),
    OrderService(String),
    Selling,
}

impl From<LedgerError> for ReconcileError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

pub(super) async fn reconcile(
    State(control): Shared,
    Path(id): Path<String>,
    body: Result<Json<ReconcileOptions>, JsonRejection>,
) -> Response {
    let (Some(sale), Some(keeper)) = (control.shop.sale(&id), &control.keeper) else { return unknown(&id) };
    let options = match body {
        Ok(Json(options)) => options,
        Err(error) => return bad_body(&error.body_text()),
    };
    match report(&control, sale, &**keeper, &options).await {
        Ok(report) => json_response(&report),
        Err(ReconcileError::Ledger(error)) => {
            log::warn!("control: reconciling sale {}: {error}", sale.id());
            response(reply::fault(&error))
        }
        Err(ReconcileError::OrderService(why)) => {
            problem(503, "order-service-unavailable", "Order service unavailable", &why)
        }
        Err(ReconcileError::Selling) => {
            let detail = "The sale is open. Pause it first. Nothing was changed.";
            problem(409, "sale-open", "Sale open", detail)
        }
    }
}

async fn report(
    control: &Control,
    sale: &Sale,
    keeper: &dyn Bookkeeper,
    options: &ReconcileOptions,
) -> Result<Value, ReconcileError> {
    let epoch = sale.epoch().ok_or(LedgerError::Missing)?;
    let key = sale.key();
    let mut witnesses: Vec<Witness> = keeper.remembered(key).into_iter().collect();
    let mut order_service = "there is none";
    if let Some(delivery) = control.deliveries.iter().find(|delivery| delivery.sale_id() == sale.id()) {
        match delivery.known(epoch).await {
            Ok(witness) => {
                order_service = "asked";
                witnesses.push(witness);
            }
            Err(KnownError::Unsupported(_)) => order_service = "it does not say what it knows",
            Err(error @ KnownError::Failed(_)) if options.without_order_service => {
                log::warn!("sale {}: reconciled without the order service: {error}", sale.id());
                order_service = "it cannot be asked";
            }
            Err(error) => return Err(ReconcileError::OrderService(error.to_string())),
        }
    }
    let books = keeper.books(key, epoch).await?;
    let found = compare(&books, &witnesses);
    let mut report = json!({
        "sale": sale.id(),
        "fenced": books.fence,
        "version": books.version,
        "orders": books.orders.len(),
        "known": witnesses.iter().map(known).collect::<Vec<_>>(),
        "order_service": order_service,
        "applied": false,
    });
    let (found, left) = if options.apply && (books.fence.is_some() || !found.differences.is_empty()) {
        if books.fence.is_none() && books.state == SaleState::Open {
            return Err(ReconcileError::Selling);
        }
        let (found, left) = apply(keeper, key, epoch, &witnesses).await?;
        report["applied"] = true.into();
        tell(sale, &found, &left);
        sale.sync_soon();
        (found, left)
    } else {
        (found.clone(), found)
    };
    report["differences"] = json!(found.differences);
    report["left"] = json!(left.differences);
    report["excess"] = left.excess.into();
    Ok(report)
}

fn known(witness: &Witness) -> Value {
    json!({ "by": witness.name, "version": witness.version, "orders": witness.orders.len() })
}

fn tell(sale: &Sale, found: &Findings, left: &Findings) {
    let kinds = |findings: &Findings| {
        let one =
            |difference: &crate::ledger::reconcile::Difference| format!("{} {}", difference.count, difference.kind);
        findings.differences.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    log::warn!("sale {}: reconciled; found: {}; left: {}", sale.id(), kinds(found), kinds(left));
}
