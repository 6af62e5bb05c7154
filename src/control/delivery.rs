//! What operators ask of a sale's delivery.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::{Control, Shared, json_response, problem, response, unknown};
use crate::delivery::Delivery;
use crate::ledger::{DeliveryStatus, LedgerError, SET_ASIDE_MAX, SetAside};
use crate::sale::reply;

/// How far it is, who has it, and what is set aside.
pub(super) async fn show(State(control): Shared, Path(sale): Path<String>) -> Response {
    let delivery = match find(&control, &sale) {
        Ok(found) => found,
        Err(refused) => return *refused,
    };
    match delivery.status().await {
        Ok((epoch, status)) => json_response(&document(delivery, epoch, &status)),
        Err(error) => failed(delivery, &error),
    }
}

/// Has what is set aside delivered after all.
pub(super) async fn retry(State(control): Shared, Path(sale): Path<String>) -> Response {
    let delivery = match find(&control, &sale) {
        Ok(found) => found,
        Err(refused) => return *refused,
    };
    match delivery.retry().await {
        Ok(count) => json_response(&json!({ "sale": delivery.sale_id(), "retrying": count })),
        Err(error) => failed(delivery, &error),
    }
}

fn find<'a>(control: &'a Control, sale: &str) -> Result<&'a Delivery, Box<Response>> {
    let found = control.deliveries.iter().find(|delivery| delivery.sale_id() == sale);
    found.map(|delivery| &**delivery).ok_or_else(|| {
        Box::new(match control.shop.sale(sale) {
            Some(_) => problem(404, "no-delivery", "No delivery", "The configuration has no delivery."),
            None => unknown(sale),
        })
    })
}

fn failed(delivery: &Delivery, error: &LedgerError) -> Response {
    log::warn!("control: delivery of sale {}: {error}", delivery.sale_id());
    response(reply::fault(error))
}

fn document(delivery: &Delivery, epoch: u64, status: &DeliveryStatus) -> Value {
    let progress = &status.progress;
    json!({
        "sale": delivery.sale_id(),
        "epoch": format!("{epoch:016x}"),
        "version": progress.version,
        "delivered": progress.delivered,
        "lag_entries": progress.version.saturating_sub(progress.delivered),
        "oldest_at": progress.oldest_at_ms.map(reply::time),
        "owner": status.lease.as_ref().map(|lease| &*lease.edge),
        "lease_ms": status.lease.as_ref().map(|lease| u64::try_from(lease.left.as_millis()).unwrap_or(u64::MAX)),
        "set_aside_max": SET_ASIDE_MAX,
        "set_aside": status.set_aside.iter().map(set_aside).collect::<Vec<_>>(),
    })
}

fn set_aside(SetAside { refused, at_ms, again }: &SetAside) -> Value {
    json!({
        "seq": refused.event.seq,
        "part": refused.event.part,
        "order_id": refused.order,
        "at": reply::time(*at_ms),
        "why": refused.why,
        "retrying": again,
    })
}
