//! The two designs of selling that Spikegate is compared with (docs/internals/designs.md). They sell from PostgreSQL
//! alone.
//!
//! | | purchase | payment | an order that is never paid |
//! |---|---|---|---|
//! | `order-first` | takes a ticket and writes the order, one transaction | of a held one | releases its ticket |
//! | `pay-first` | writes the order | takes a ticket, or the payment is refunded | holds nothing |
//!
//! ```text
//! PUT  /designs/{design}                  {"total": 10000, "hold_ms": 60000}: starts a new sale and deletes all orders
//! POST /designs/{design}/purchase         201, or 409 sold-out; X-User-Id is the buyer
//! POST /designs/{design}/orders/{id}/pay  200 (also when repeated), or 409 refund-due, 409 order-released
//! ```
//!
//! Neither design has a payment provider: a payment is one transaction. Real payments (`upstreams/src/settlements.rs`)
//! take several.

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

use response::{database_error, document, problem};

mod response;

const TABLES: &str = include_str!("tables.sql");

/// Connections to PostgreSQL for each design, chosen by measurement. Transactions that take a ticket wait for the
/// lock of one row, and more waiters make it slower: of 1, 2, 3, 4, 6, 8 and 16 connections, 4 sold the most orders per
/// second. Transactions that take no ticket run in parallel and share the syncs of the disk.
const ORDER_FIRST_CONNECTIONS: u32 = 4;
const PAY_FIRST_CONNECTIONS: u32 = 16;

/// Timeout for a connection of the pool, and for a statement.
const TIMEOUT: Duration = Duration::from_secs(4);

/// How often expired holds are released; the same as the default sync interval of an edge.
const SWEEP: Duration = Duration::from_millis(100);

/// A design; its name appears in paths and in the database.
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

/// The connection pool of each design.
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

/// Why the designs cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database is not PostgreSQL.
    #[error("--database must be postgres://...")]
    NotPostgres,
    /// The database cannot be reached, or the tables cannot be created.
    #[error("cannot open the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Creates the tables, starts the release of expired holds, and returns the routes of both designs.
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
        // Waits for purchases in progress and locks the sale.
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

/// One statement is one transaction and one round trip: the row of the sale stays locked only until its commit.
const ORDER_FIRST: &str = "
    WITH ticket AS (
        UPDATE design_stock SET sold = sold + 1 WHERE design = 'order-first' AND sold < total RETURNING hold
    )
    INSERT INTO design_orders (order_id, design, buyer, state, expires_at)
    SELECT $1, 'order-first', $2, 'HELD', now() + hold FROM ticket";

/// Accepts orders while paid tickets are fewer than the total; the read takes no lock.
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
        // Already paid, or not payable.
        Ok(false) => state(pool, design, &id).await,
        Err(error) => Err(error),
    };
    let members = json!({ "order_id": id });
    let conflict = |name, title, detail| problem(StatusCode::CONFLICT, name, title, detail, members.clone());
    match paid.as_ref().map(Option::as_deref) {
        Ok(Some("PAID")) => document(StatusCode::OK, &json!({ "order_id": id, "state": "PAID" })),
        Ok(Some("REFUND_DUE")) => conflict("refund-due", "Refund due", "No ticket is left. The payment is refunded."),
        Ok(Some(_)) => conflict("order-released", "Order released", "The hold has ended; no money was taken."),
        Ok(None) => {
            let detail = "No order has this id.";
            problem(StatusCode::NOT_FOUND, "order-unknown", "Order unknown", detail, members)
        }
        Err(error) => database_error(error).into_response(),
    }
}

/// Returns whether this call paid the order.
async fn pay_held(pool: &PgPool, id: &str) -> sqlx::Result<bool> {
    let statement = "UPDATE design_orders SET state = 'PAID'
                     WHERE order_id = $1 AND design = 'order-first' AND state = 'HELD' AND expires_at > now()";
    Ok(sqlx::query(statement).bind(id).execute(pool).await?.rows_affected() == 1)
}

/// Returns whether this call paid the order and took a ticket. It locks the order first and the contended row of the
/// sale last.
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

/// Releases expired holds until the process ends. Several processes share the work: each skips orders that another has
/// locked.
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
            eprintln!("cannot release expired holds: {error}");
        }
    }
}
