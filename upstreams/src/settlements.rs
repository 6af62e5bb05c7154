//! Settlements in the database. A settlement is a payment or a cancellation: it ends an order's hold.
//!
//! ```text
//! payment        pending ──▶ charged ──▶ paid
//!                   │            └─────▶ refund_due ──▶ refunded
//!                   └──▶ declined (──▶ refund_due, should the money come after all)
//! cancellation   cancelling ──▶ cancelled
//!                   └──▶ refused
//! ```
//!
//! A settlement is stored before the provider or the ledger gets a request. `pending`: the provider may have received
//! the charge. `charged`: the provider has the money, and the ledger may have received the confirmation. Both identify
//! requests by the settlement's id, so retries are safe.
//!
//! At most one settlement of an order can be in progress or successful: the database has a unique index on those that
//! are pending, charged, paid, cancelling or cancelled. A second click joins the payment of the first, and an order
//! that is being cancelled cannot be charged.
//!
//! A worker holds a lease on its settlement until `due_at_ms`; other workers skip it until then. If the worker's
//! process dies, the lease expires and another worker takes over. Each step names the state that it leaves: two workers
//! cannot take the same step twice.

use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use crate::clock::now_ms;
use crate::database::Database;
use crate::order::{OrderId, Payment};
use crate::payment::Verdict;

/// Duration of a lease; each step renews it, and no step may take longer. The clocks of machines that share a database
/// should differ by much less.
pub(crate) const LEASE_MS: i64 = 10_000;

/// What a settlement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlementKind {
    /// A payment.
    Pay,
    /// A cancellation.
    Cancel,
}

/// The state of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the module documentation shows them")]
pub enum SettlementState {
    Pending,
    Charged,
    Paid,
    Declined,
    RefundDue,
    Refunded,
    Cancelling,
    Cancelled,
    Refused,
}

use SettlementState::{Cancelled, Cancelling, Charged, Declined, Paid, Pending, RefundDue, Refunded, Refused};

impl SettlementState {
    const ALL: [Self; 9] = [Pending, Charged, Paid, Declined, RefundDue, Refunded, Cancelling, Cancelled, Refused];

    fn text(self) -> &'static str {
        match self {
            Pending => "pending",
            Charged => "charged",
            Paid => "paid",
            Declined => "declined",
            RefundDue => "refund_due",
            Refunded => "refunded",
            Cancelling => "cancelling",
            Cancelled => "cancelled",
            Refused => "refused",
        }
    }

    /// Whether the outcome for the buyer is final. A refund may still be in progress.
    #[must_use]
    pub fn is_decided(self) -> bool {
        !matches!(self, Pending | Charged | Cancelling)
    }
}

/// Maps a payment's state to the API: a payment stays pending until the ledger has decided, even if the money was
/// taken.
#[must_use]
pub fn public_state(state: &str) -> &str {
    if state == Charged.text() { Pending.text() } else { state }
}

/// A payment or a cancellation.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Its own id, 32 hexadecimal digits.
    pub id: String,
    /// The order.
    pub order: OrderId,
    /// The sale's id.
    pub sale: String,
    /// How many tickets.
    pub quantity: i64,
    /// Its state.
    pub state: SettlementState,
    /// Why the money is refunded.
    pub reason: Option<String>,
    /// How many workers have leased it so far.
    pub attempts: i64,
}

impl Settlement {
    /// The settlement as buyers see it.
    #[must_use]
    pub fn as_payment(&self) -> Payment {
        let state = public_state(self.state.text()).to_owned();
        Payment { id: self.id.clone(), state, reason: self.reason.clone() }
    }
}

/// The order to settle.
#[derive(Debug, Clone, Copy)]
pub struct OrderRef<'a> {
    /// Its id.
    pub id: &'a OrderId,
    /// The sale's id.
    pub sale: &'a str,
    /// How many tickets.
    pub quantity: i64,
}

/// The result of [`begin`].
#[derive(Debug)]
pub enum BeginResult {
    /// A new settlement; the caller holds its lease.
    New(Settlement),
    /// An earlier settlement is in progress or successful, or has the same idempotency key.
    Existing(Settlement),
}

/// A time-limited exclusive right to work on settlements.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    token: String,
    now_ms: i64,
    until_ms: i64,
}

impl Lease {
    /// A lease that starts now.
    pub(crate) fn new() -> Self {
        let now_ms = now_ms();
        Self { token: format!("{:032x}", rand::random::<u128>()), now_ms, until_ms: now_ms + LEASE_MS }
    }
}

macro_rules! select {
    ($which:literal) => {
        concat!("SELECT id, order_id, sale, quantity, state, reason, attempts FROM settlements ", $which)
    };
}

/// Stores a new settlement unless one exists.
pub(crate) async fn begin(
    database: &Database,
    kind: SettlementKind,
    order: OrderRef<'_>,
    key: Option<&str>,
    lease: &Lease,
) -> sqlx::Result<BeginResult> {
    let mut transaction = database.write().await?;
    if let Some(key) = key
        && let Some(known) = by_key(&mut transaction, order, key).await?
    {
        return Ok(BeginResult::Existing(known));
    }
    let id = format!("{:032x}", rand::random::<u128>());
    let state = if kind == SettlementKind::Pay { Pending } else { Cancelling };
    // After losing a race, the INSERT waits for the other transaction and the SELECT finds its settlement. If that one
    // has already failed (a payment that was declined at once), the SELECT finds nothing, and the INSERT is tried
    // again.
    for _ in 0..5 {
        let statement =
            "INSERT INTO settlements (id, order_id, sale, quantity, state, idempotency_key, attempts, lease,
                                                  due_at_ms, created_at_ms, updated_at_ms)
                         VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $9, $9) ON CONFLICT DO NOTHING";
        let query = sqlx::query(statement).bind(&id).bind(order.id.as_str()).bind(order.sale).bind(order.quantity);
        let query = query.bind(state.text()).bind(key).bind(&lease.token).bind(lease.until_ms).bind(lease.now_ms);
        if query.execute(&mut *transaction).await?.rows_affected() == 1 {
            transaction.commit().await?;
            let (id, sale) = (id.clone(), order.sale.to_owned());
            let (order, quantity) = (order.id.clone(), order.quantity);
            return Ok(BeginResult::New(Settlement { id, order, sale, quantity, state, reason: None, attempts: 1 }));
        }
        if let Some(key) = key
            && let Some(known) = by_key(&mut transaction, order, key).await?
        {
            return Ok(BeginResult::Existing(known));
        }
        let statement = select!(
            "WHERE order_id = $1 AND sale = $2 AND state IN ('pending', 'charged', 'paid', 'cancelling', 'cancelled')"
        );
        let query = sqlx::query(statement).bind(order.id.as_str()).bind(order.sale);
        if let Some(row) = query.fetch_optional(&mut *transaction).await? {
            return Ok(BeginResult::Existing(settlement(&row)?));
        }
    }
    Err(sqlx::Error::Protocol("the settlements of this order keep changing".to_owned()))
}

async fn by_key(
    transaction: &mut Transaction<'static, Any>,
    order: OrderRef<'_>,
    key: &str,
) -> sqlx::Result<Option<Settlement>> {
    let statement = select!("WHERE order_id = $1 AND sale = $2 AND idempotency_key = $3");
    let query = sqlx::query(statement).bind(order.id.as_str()).bind(order.sale).bind(key);
    query.fetch_optional(&mut **transaction).await?.as_ref().map(settlement).transpose()
}

/// Finds a settlement by id.
pub(crate) async fn get(database: &Database, id: &str) -> sqlx::Result<Option<Settlement>> {
    let query = sqlx::query(select!("WHERE id = $1")).bind(id);
    query.fetch_optional(database.read()).await?.as_ref().map(settlement).transpose()
}

/// Returns the payment that paid the order, otherwise the newest attempt in any state.
pub(crate) async fn newest_payment(
    database: &Database,
    order: &OrderId,
    sale: &str,
) -> sqlx::Result<Option<Settlement>> {
    let statement = select!(
        "WHERE order_id = $1 AND sale = $2 AND state NOT IN ('cancelling', 'cancelled', 'refused')
         ORDER BY CASE state WHEN 'paid' THEN 0 ELSE 1 END, created_at_ms DESC, id LIMIT 1"
    );
    let query = sqlx::query(statement).bind(order.as_str()).bind(sale);
    query.fetch_optional(database.read()).await?.as_ref().map(settlement).transpose()
}

/// Finds the payment with this idempotency key.
pub(crate) async fn payment_of_key(
    database: &Database,
    order: &OrderId,
    sale: &str,
    key: &str,
) -> sqlx::Result<Option<Settlement>> {
    let statement = select!("WHERE order_id = $1 AND sale = $2 AND idempotency_key = $3");
    let query = sqlx::query(statement).bind(order.as_str()).bind(sale).bind(key);
    query.fetch_optional(database.read()).await?.as_ref().map(settlement).transpose()
}

/// Leases at most `count` settlements that are due.
pub(crate) async fn claim(database: &Database, count: usize, lease: &Lease) -> sqlx::Result<Vec<Settlement>> {
    let statement = select!(
        "WHERE state IN ('pending', 'charged', 'refund_due', 'cancelling') AND due_at_ms <= $1
         ORDER BY due_at_ms LIMIT $2"
    );
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let due = sqlx::query(statement).bind(lease.now_ms).bind(count).fetch_all(database.read()).await?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let mut claimed = Vec::new();
    let mut transaction = database.write().await?;
    for row in &due {
        let settlement = settlement(row)?;
        // Another process may have leased it in between, or changed its state.
        let statement = "UPDATE settlements SET lease = $3, due_at_ms = $4, attempts = attempts + 1
                         WHERE id = $1 AND due_at_ms <= $2 AND state = $5";
        let query = sqlx::query(statement).bind(&settlement.id).bind(lease.now_ms).bind(&lease.token);
        let query = query.bind(lease.until_ms).bind(settlement.state.text());
        if query.execute(&mut *transaction).await?.rows_affected() == 1 {
            claimed.push(Settlement { attempts: settlement.attempts + 1, ..settlement });
        }
    }
    transaction.commit().await?;
    Ok(claimed)
}

/// Changes the state and renews the lease. Returns false if the settlement has already left the old state.
pub(crate) async fn step(
    transaction: &mut Transaction<'static, Any>,
    settlement: &Settlement,
    to: SettlementState,
    reason: Option<&str>,
) -> sqlx::Result<bool> {
    let now_ms = now_ms();
    let statement =
        "UPDATE settlements SET state = $3, reason = COALESCE($4, reason), due_at_ms = $5, updated_at_ms = $6
                     WHERE id = $1 AND state = $2";
    let query = sqlx::query(statement).bind(&settlement.id).bind(settlement.state.text()).bind(to.text()).bind(reason);
    let done = query.bind(now_ms + LEASE_MS).bind(now_ms).execute(&mut **transaction).await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the lease; workers can take the settlement again after `wait_ms`.
pub(crate) async fn postpone(database: &Database, id: &str, lease: &Lease, wait_ms: i64) -> sqlx::Result<()> {
    let mut transaction = database.write().await?;
    let statement = "UPDATE settlements SET lease = NULL, due_at_ms = $3 WHERE id = $1 AND lease = $2";
    let query = sqlx::query(statement).bind(id).bind(&lease.token).bind(now_ms() + wait_ms);
    query.execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Whether this lease is still valid.
pub(crate) async fn is_leased(database: &Database, id: &str, lease: &Lease) -> sqlx::Result<bool> {
    let query = sqlx::query("SELECT id FROM settlements WHERE id = $1 AND lease = $2").bind(id).bind(&lease.token);
    Ok(query.fetch_optional(database.read()).await?.is_some())
}

/// Stores a provider's report. If a declined payment turns out to be paid, it is refunded, because the buyer was told
/// that it failed. Other reports after a decision change nothing.
pub(crate) async fn report(database: &Database, id: &str, verdict: Verdict) -> sqlx::Result<()> {
    let mut transaction = database.write().await?;
    let statement = match verdict {
        Verdict::Paid => {
            "UPDATE settlements SET state = CASE state WHEN 'pending' THEN 'charged' ELSE 'refund_due' END,
                reason = CASE state WHEN 'pending' THEN reason ELSE 'paid-after-decline' END,
                updated_at_ms = $2 WHERE id = $1 AND state IN ('pending', 'declined')"
        }
        Verdict::Declined => {
            "UPDATE settlements SET state = 'declined', updated_at_ms = $2 WHERE id = $1 AND state = 'pending'"
        }
    };
    sqlx::query(statement).bind(id).bind(now_ms()).execute(&mut *transaction).await?;
    transaction.commit().await
}

fn settlement(row: &AnyRow) -> sqlx::Result<Settlement> {
    let state: String = row.try_get("state")?;
    let state = SettlementState::ALL.into_iter().find(|known| known.text() == state);
    let order: String = row.try_get("order_id")?;
    let fault = |what: &str| sqlx::Error::Decode(format!("a settlement has an invalid {what}").into());
    Ok(Settlement {
        id: row.try_get("id")?,
        order: OrderId::parse(&order).ok_or_else(|| fault("order"))?,
        sale: row.try_get("sale")?,
        quantity: row.try_get("quantity")?,
        state: state.ok_or_else(|| fault("state"))?,
        reason: row.try_get("reason")?,
        attempts: row.try_get("attempts")?,
    })
}
