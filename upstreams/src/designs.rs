//! The two designs that Spikegate is compared with, as well as a database alone can do them
//! (docs/internals/designs.md). For measuring only; `spikegate-orders` has them if it is started with `--designs`.
//!
//! | | purchase | payment | an order that is never paid |
//! |---|---|---|---|
//! | `order-first` | takes a ticket and writes the order, one transaction | of a held order | gives its ticket back |
//! | `pay-first` | writes the order | takes a ticket, or the money is due back | holds nothing |
//!
//! ```text
//! PUT  /designs/{design}                  {"total": 10000, "hold_ms": 60000}: a new sale, and none of the old orders
//! POST /designs/{design}/purchase         201, or 409 sold-out; X-User-Id is the buyer
//! POST /designs/{design}/orders/{id}/pay  200 (as often as it is asked), or 409 refund-due, 409 order-released
//! ```
//!
//! Neither takes money from anybody, so a payment here is one transaction, where a real one
//! ([`settlements`](crate::settlements)) is several, and there is nothing that a crash could leave half done.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{MissedTickBehavior, interval};

use crate::response::{database_error, document, problem};

const TABLES: &str = include_str!("designs/tables.sql");

/// Connections to PostgreSQL for each design, chosen by measurement. Those who take a ticket wait for each other at its
/// row, and the more of them wait there the slower it gets: of 1, 2, 3, 4, 6, 8 and 16, four sold the most orders per
/// second. Orders that take none share the disk's syncs.
const ORDER_FIRST_CONNECTIONS: u32 = 4;
const PAY_FIRST_CONNECTIONS: u32 = 16;

/// The longest wait for a connection; that for a statement is as long.
const TIMEOUT: Duration = Duration::from_secs(4);

/// How often unpaid orders are looked for whose hold has ended; an edge does so with its sync, by default as often.
const SWEEP: Duration = Duration::from_millis(100);

/// Which design. In paths and in the database it has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Design {
    OrderFirst,
    PayFirst,
}

impl Design {
    fn name(self) -> &'static str {
        match self {
            Self::OrderFirst => "order-first",
            Self::PayFirst => "pay-first",
        }
    }
}

/// Each design's connections.
#[derive(Clone)]
struct Designs {
    order_first: PgPool,
    pay_first: PgPool,
}

impl Designs {
    fn of(&self, design: Design) -> &PgPool {
        match design {
            Design::OrderFirst => &self.order_first,
            Design::PayFirst => &self.pay_first,
        }
    }
}

/// Why the designs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// They are written for PostgreSQL.
    #[error("--designs needs --database postgres://...")]
    NotPostgres,
    /// It cannot be reached, or the tables cannot be made.
    #[error("--designs: {0}")]
    Database(#[from] sqlx::Error),
}

/// The paths of both designs, their tables made and the sweep of unpaid orders going.
///
/// # Errors
///
/// See [`OpenError`].
pub async fn routes(url: &str) -> Result<Router, OpenError> {
    if !url.starts_with("postgres:") && !url.starts_with("postgresql:") {
        return Err(OpenError::NotPostgres);
    }
    let designs = Designs {
        order_first: pool(url, ORDER_FIRST_CONNECTIONS).await?,
        pay_first: pool(url, PAY_FIRST_CONNECTIONS).await?,
    };
    sqlx::raw_sql(TABLES).execute(&designs.order_first).await?;
    tokio::spawn(sweep(designs.order_first.clone()));
    Ok(Router::new()
        .route("/designs/{design}", put(open))
        .route("/designs/{design}/purchase", post(purchase))
        .route("/designs/{design}/orders/{id}/pay", post(pay))
        .with_state(designs))
}

async fn pool(url: &str, connections: u32) -> sqlx::Result<PgPool> {
    let options = PgPoolOptions::new().max_connections(connections).acquire_timeout(TIMEOUT);
    let options = options.after_connect(|connection, _| {
        Box::pin(async move {
            sqlx::query("SET statement_timeout = '4s'").execute(connection).await?;
            Ok(())
        })
    });
    options.connect(url).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sale {
    total: u32,
    hold_ms: u32,
}

async fn open(State(designs): State<Designs>, Path(design): Path<Design>, Json(sale): Json<Sale>) -> Response {
    let opened = async {
        let mut transaction = designs.of(design).begin().await?;
        // Locks the sale against purchases that are under way.
        let statement = "INSERT INTO design_stock (design, total, sold, hold)
                         VALUES ($1, $2, 0, $3 * interval '1 millisecond')
                         ON CONFLICT (design) DO UPDATE SET total = excluded.total, sold = 0, hold = excluded.hold";
        let query =
            sqlx::query(statement).bind(design.name()).bind(i64::from(sale.total)).bind(f64::from(sale.hold_ms));
        query.execute(&mut *transaction).await?;
        sqlx::query("DELETE FROM design_orders WHERE design = $1")
            .bind(design.name())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    };
    match opened.await {
        Ok(()) => document(StatusCode::OK, &json!({ "design": design.name(), "total": sale.total })),
        Err(error) => database_error(&error),
    }
}

/// One statement is one transaction and one round trip, and the sale's row stays locked for no longer than its commit.
const ORDER_FIRST: &str = "
    WITH ticket AS (
        UPDATE design_stock SET sold = sold + 1 WHERE design = 'order-first' AND sold < total RETURNING hold
    )
    INSERT INTO design_orders (order_id, design, buyer, state, expires_at)
    SELECT $1, 'order-first', $2, 'HELD', now() + hold FROM ticket";

/// Orders are taken for as long as a ticket is left that nobody has paid; reading locks nothing.
const PAY_FIRST: &str = "
    INSERT INTO design_orders (order_id, design, buyer, state)
    SELECT $1, 'pay-first', $2, 'UNPAID' FROM design_stock WHERE design = 'pay-first' AND sold < total";

async fn purchase(State(designs): State<Designs>, Path(design): Path<Design>, headers: HeaderMap) -> Response {
    let buyer = headers.get("x-user-id").and_then(|buyer| buyer.to_str().ok());
    let id = format!("{:032x}", rand::random::<u128>());
    let (statement, state) = match design {
        Design::OrderFirst => (ORDER_FIRST, "HELD"),
        Design::PayFirst => (PAY_FIRST, "UNPAID"),
    };
    match sqlx::query(statement).bind(&id).bind(buyer).execute(designs.of(design)).await {
        Ok(done) if done.rows_affected() == 1 => {
            let order = json!({ "order_id": id, "sale": design.name(), "buyer": buyer, "quantity": 1, "state": state });
            document(StatusCode::CREATED, &order)
        }
        Ok(_) => problem(StatusCode::CONFLICT, "sold-out", "Sold out", "No tickets are left.", Value::Null),
        Err(error) => database_error(&error),
    }
}

async fn pay(State(designs): State<Designs>, Path((design, id)): Path<(Design, String)>) -> Response {
    let pool = designs.of(design);
    let paid = match design {
        Design::OrderFirst => pay_held(pool, &id).await,
        Design::PayFirst => pay_unpaid(pool, &id).await,
    };
    let paid = match paid {
        Ok(true) => Ok(Some("PAID".to_owned())),
        // Paid before, or not to be paid.
        Ok(false) => state(pool, design, &id).await,
        Err(error) => Err(error),
    };
    let members = json!({ "order_id": id });
    let conflict = |name, title, detail| problem(StatusCode::CONFLICT, name, title, detail, members.clone());
    match paid.as_ref().map(Option::as_deref) {
        Ok(Some("PAID")) => document(StatusCode::OK, &json!({ "order_id": id, "state": "PAID" })),
        Ok(Some("REFUND_DUE")) => conflict("refund-due", "Refund due", "No ticket is left. The money is given back."),
        Ok(Some(_)) => conflict("order-released", "Order released", "The hold has ended, and nothing was taken."),
        Ok(None) => {
            let detail = "There is no order of this id.";
            problem(StatusCode::NOT_FOUND, "order-unknown", "Order unknown", detail, members)
        }
        Err(error) => database_error(error).into_response(),
    }
}

/// Whether it was paid now.
async fn pay_held(pool: &PgPool, id: &str) -> sqlx::Result<bool> {
    let statement = "UPDATE design_orders SET state = 'PAID'
                     WHERE order_id = $1 AND design = 'order-first' AND state = 'HELD' AND expires_at > now()";
    Ok(sqlx::query(statement).bind(id).execute(pool).await?.rows_affected() == 1)
}

/// Whether it was paid now and has its ticket. The order is taken hold of first and the sale's row last, since that is
/// the one which everybody waits for.
async fn pay_unpaid(pool: &PgPool, id: &str) -> sqlx::Result<bool> {
    let mut transaction = pool.begin().await?;
    let statement = "UPDATE design_orders SET state = 'PAID'
                     WHERE order_id = $1 AND design = 'pay-first' AND state = 'UNPAID'";
    if sqlx::query(statement).bind(id).execute(&mut *transaction).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let statement = "UPDATE design_stock SET sold = sold + 1 WHERE design = 'pay-first' AND sold < total";
    let has_ticket = sqlx::query(statement).execute(&mut *transaction).await?.rows_affected() == 1;
    if !has_ticket {
        let statement = "UPDATE design_orders SET state = 'REFUND_DUE' WHERE order_id = $1";
        sqlx::query(statement).bind(id).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(has_ticket)
}

async fn state(pool: &PgPool, design: Design, id: &str) -> sqlx::Result<Option<String>> {
    let statement = "SELECT state FROM design_orders WHERE order_id = $1 AND design = $2";
    sqlx::query_scalar(statement).bind(id).bind(design.name()).fetch_optional(pool).await
}

/// Gives back what unpaid orders hold, for as long as the process lives. Several processes share the work: an order
/// that one has locked is left to it.
async fn sweep(pool: PgPool) {
    let statement = "
        WITH due AS (
            SELECT order_id FROM design_orders
            WHERE design = 'order-first' AND state = 'HELD' AND expires_at <= now()
            ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED
        ), gone AS (
            UPDATE design_orders o SET state = 'RELEASED' FROM due WHERE o.order_id = due.order_id RETURNING 1
        ), counted AS (
            SELECT count(*) AS tickets FROM gone
        )
        UPDATE design_stock SET sold = sold - tickets FROM counted WHERE design = 'order-first' AND tickets > 0";
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sqlx::query(statement).execute(&pool).await {
            log::warn!("unpaid orders cannot be looked for: {error}");
        }
    }
}
