//! Orders in the database.
//!
//! # Which update wins
//!
//! The ledger decides; the database has a copy with two sources. **Deliveries** carry the number of the log entry: a
//! row stores the number of the last event applied to it, and only newer events change the row. **Responses of the
//! control API** to `confirm` and `cancel` arrive sooner and carry no number. An older event that is delivered after
//! such a response must not undo it. One rule prevents this for both sources, and the ledger obeys it as well:
//!
//! > An order goes from HELD to RELEASED to PAID. It can skip a state, and it never goes back.
//!
//! (RELEASED to PAID is a late payment that took the order back.) Therefore PAID is final, and a later event only
//! advances the row's number. A RELEASED response changes only rows that are HELD; the only event older than a release
//! is the `held` that created the row, and it is not newer than the row. Responses do not change the row's number:
//! events that the row has not seen are still applied.

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use crate::database::{Database, Dialect};
use crate::delivery::Delivery;
use crate::order::{Order, OrderId, OrderState, Payment, optional_time};
use crate::settlements;

/// Maximum number of orders in a buyer's list.
pub const LIST_MAX: i64 = 100;

/// Reads the rows from one JSON parameter: deliveries of every length share one prepared statement.
macro_rules! apply {
    ($row:literal, $from:literal) => {
        concat!(
            "INSERT INTO orders (order_id, sale, epoch, seq, buyer, quantity, state, expires_at_ms, reason, payment,
                                 created_at_ms, updated_at_ms) SELECT ",
            $row,
            " FROM ",
            $from,
            " WHERE true
             ON CONFLICT (order_id, sale, epoch) DO UPDATE SET
                seq = excluded.seq,
                state = CASE WHEN orders.state = 'PAID' THEN orders.state ELSE excluded.state END,
                reason = CASE WHEN orders.state = 'PAID' THEN orders.reason ELSE excluded.reason END,
                payment = CASE WHEN orders.state = 'PAID' THEN orders.payment ELSE excluded.payment END,
                updated_at_ms = CASE WHEN orders.state = 'PAID' THEN orders.updated_at_ms ELSE excluded.updated_at_ms END,
                expires_at_ms = COALESCE(orders.expires_at_ms, excluded.expires_at_ms)
             WHERE excluded.seq > orders.seq"
        )
    };
}

const APPLY_SQLITE: &str = apply!(
    "value->>'order_id', $1, $2, value->>'seq', value->>'buyer', value->>'quantity', value->>'state',
     value->>'expires_at_ms', value->>'reason', value->>'payment', value->>'created_at_ms', value->>'updated_at_ms'",
    "json_each($3)"
);

const APPLY_POSTGRES: &str = apply!(
    "e.order_id, $1, $2, e.seq, e.buyer, e.quantity, e.state, e.expires_at_ms, e.reason, e.payment, e.created_at_ms,
     e.updated_at_ms",
    "jsonb_to_recordset($3::jsonb) AS e (order_id text, seq bigint, buyer text, quantity bigint, state text,
     expires_at_ms bigint, reason text, payment text, created_at_ms bigint, updated_at_ms bigint)"
);

/// Applies a delivery in one transaction. When this returns, the transaction is as durable as the database is
/// configured to be. A delivery without events only tests whether the database is writable.
///
/// # Errors
///
/// The database failed, and it is unknown whether the delivery was applied. Applying it again is safe.
pub async fn apply(database: &Database, delivery: &Delivery) -> sqlx::Result<()> {
    let mut transaction = database.write().await?;
    if !delivery.updates.is_empty() {
        let updates: Vec<_> = delivery.updates.values().collect();
        let updates = serde_json::to_string(&updates).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let statement = match database.dialect() {
            Dialect::Sqlite => APPLY_SQLITE,
            Dialect::Postgres => APPLY_POSTGRES,
        };
        sqlx::query(statement)
            .bind(&delivery.sale)
            .bind(&delivery.epoch)
            .bind(updates)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// Stores the ledger's response: the order was paid by this payment.
pub(crate) async fn paid(
    transaction: &mut Transaction<'static, Any>,
    sale: &str,
    order: &OrderId,
    payment: &str,
    now_ms: i64,
) -> sqlx::Result<()> {
    let statement = "UPDATE orders SET state = 'PAID', reason = NULL, payment = $3, updated_at_ms = $4
                     WHERE order_id = $1 AND sale = $2 AND state <> 'PAID'";
    let query = sqlx::query(statement).bind(order.as_str()).bind(sale).bind(payment).bind(now_ms);
    query.execute(&mut **transaction).await.map(drop)
}

/// Stores the ledger's response: the order was released, for this reason if the response has one.
pub(crate) async fn released(
    transaction: &mut Transaction<'static, Any>,
    sale: &str,
    order: &OrderId,
    reason: Option<&str>,
    now_ms: i64,
) -> sqlx::Result<()> {
    let statement = "UPDATE orders SET state = 'RELEASED', reason = $3, updated_at_ms = $4
                     WHERE order_id = $1 AND sale = $2 AND state = 'HELD'";
    let query = sqlx::query(statement).bind(order.as_str()).bind(sale).bind(reason).bind(now_ms);
    query.execute(&mut **transaction).await.map(drop)
}

/// Joins the payment that paid the order, otherwise the newest. The condition repeats order and sale for the index:
/// with the id alone, PostgreSQL scans all settlements until its first statistics exist, which takes a minute or more.
macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT o.order_id, o.sale, o.buyer, o.quantity, o.state, o.expires_at_ms, o.reason, o.payment,
                    o.updated_at_ms, s.id AS tried, s.state AS tried_state, s.reason AS tried_reason
             FROM orders o LEFT JOIN settlements s ON s.order_id = o.order_id AND s.sale = o.sale AND s.id = (
                SELECT p.id FROM settlements p
                WHERE p.order_id = o.order_id AND p.sale = o.sale
                  AND p.state IN ('pending', 'charged', 'paid', 'declined', 'refund_due', 'refunded')
                ORDER BY CASE p.state WHEN 'paid' THEN 0 ELSE 1 END, p.created_at_ms DESC, p.id LIMIT 1) ",
            $which
        )
    };
}

/// Finds an order by id.
///
/// # Errors
///
/// The database failed.
pub async fn find(database: &Database, id: &OrderId) -> sqlx::Result<Option<Order>> {
    let statement = select!("WHERE o.order_id = $1 ORDER BY o.updated_at_ms DESC LIMIT 1");
    let row = sqlx::query(statement).bind(id.as_str()).fetch_optional(database.read()).await?;
    row.as_ref().map(order).transpose()
}

/// Returns a buyer's orders, newest first, at most [`LIST_MAX`].
///
/// # Errors
///
/// The database failed.
pub async fn of_buyer(database: &Database, buyer: &str) -> sqlx::Result<Vec<Order>> {
    let statement = select!("WHERE o.buyer = $1 ORDER BY o.created_at_ms DESC, o.order_id LIMIT $2");
    let rows = sqlx::query(statement).bind(buyer).bind(LIST_MAX).fetch_all(database.read()).await?;
    rows.iter().map(order).collect()
}

/// An order as edges receive it during a reconciliation.
#[derive(Debug, Clone, Serialize)]
pub struct StoredOrder {
    order_id: OrderId,
    /// The log entry of the last event applied to the order.
    seq: i64,
    state: OrderState,
    quantity: i64,
    buyer: Option<String>,
    #[serde(rename = "expires_at", serialize_with = "optional_time")]
    expires_at_ms: Option<i64>,
    reason: Option<String>,
    payment: Option<String>,
}

/// Returns the newest log entry applied to an order of the sale, in all epochs if none is given; 0 if there is none.
///
/// # Errors
///
/// The database failed.
pub async fn newest_entry(database: &Database, sale: &str, epoch: Option<&str>) -> sqlx::Result<i64> {
    let of_sale = "SELECT COALESCE(MAX(seq), 0) AS seq FROM orders WHERE sale = $1";
    let of_epoch = "SELECT COALESCE(MAX(seq), 0) AS seq FROM orders WHERE sale = $1 AND epoch = $2";
    let query = match epoch {
        Some(epoch) => sqlx::query(of_epoch).bind(sale).bind(epoch),
        None => sqlx::query(of_sale).bind(sale),
    };
    query.fetch_one(database.read()).await?.try_get("seq")
}

/// Returns at most `limit` orders of a sale with ids greater than `after`, in the order of their ids.
///
/// # Errors
///
/// The database failed.
pub async fn page(
    database: &Database,
    sale: &str,
    epoch: &str,
    after: &str,
    limit: u32,
) -> sqlx::Result<Vec<StoredOrder>> {
    let statement = "SELECT order_id, seq, state, quantity, buyer, expires_at_ms, reason, payment FROM orders
                     WHERE sale = $1 AND epoch = $2 AND order_id > $3 ORDER BY order_id LIMIT $4";
    let query = sqlx::query(statement).bind(sale).bind(epoch).bind(after).bind(i64::from(limit));
    query.fetch_all(database.read()).await?.iter().map(stored_order).collect()
}

fn stored_order(row: &AnyRow) -> sqlx::Result<StoredOrder> {
    let id: String = row.try_get("order_id")?;
    Ok(StoredOrder {
        order_id: OrderId::parse(&id).ok_or_else(|| decode(format!("an order has the id {id:?}")))?,
        seq: row.try_get("seq")?,
        state: state(row)?,
        quantity: row.try_get("quantity")?,
        buyer: row.try_get("buyer")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
        reason: row.try_get("reason")?,
        payment: row.try_get("payment")?,
    })
}

fn state(row: &AnyRow) -> sqlx::Result<OrderState> {
    Ok(match row.try_get::<String, _>("state")?.as_str() {
        "HELD" => OrderState::Held,
        "RELEASED" => OrderState::Released,
        "PAID" => OrderState::Paid,
        other => return Err(decode(format!("an order has the state {other:?}"))),
    })
}

fn order(row: &AnyRow) -> sqlx::Result<Order> {
    let state = state(row)?;
    let id: String = row.try_get("order_id")?;
    let payment = match row.try_get::<Option<String>, _>("payment")?.filter(|_| state == OrderState::Paid) {
        Some(id) => Some(Payment { id, state: "paid".to_owned(), reason: None }),
        None => match row.try_get::<Option<String>, _>("tried")? {
            Some(id) => Some(Payment {
                id,
                state: settlements::public_state(&row.try_get::<String, _>("tried_state")?).to_owned(),
                reason: row.try_get("tried_reason")?,
            }),
            None => None,
        },
    };
    Ok(Order {
        order_id: OrderId::parse(&id).ok_or_else(|| decode(format!("an order has the id {id:?}")))?,
        sale: row.try_get("sale")?,
        buyer: row.try_get("buyer")?,
        quantity: row.try_get("quantity")?,
        state,
        expires_at_ms: row.try_get("expires_at_ms")?,
        reason: row.try_get("reason")?,
        payment,
        updated_at_ms: row.try_get("updated_at_ms")?,
    })
}

fn decode(message: String) -> sqlx::Error {
    sqlx::Error::Decode(message.into())
}
