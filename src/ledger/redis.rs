//! The ledger in Redis, shared by any number of edges: one script a step (see `lua/`), one round trip a script.
//!
//! One multiplexed connection carries everything. It is made anew by whoever comes next after it broke, and is given up
//! when an answer does not come in time: what was under way on it is then unknown, and asking again with the same ids
//! finds out. Redis itself is the clock.

mod keys;
mod outbox;
mod reply;
mod scripts;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use async_trait::async_trait;
use tokio::sync::Mutex;

use self::keys::Keys;
use self::scripts::{Call, SCRIPTS};
use super::{
    Cancelled, Confirmed, Identity, Ledger, LedgerError, LogEntry, Order, OrderId, PaymentId, Purchase, Reserved,
    SWEEP_MAX, SYNC_LINES_MAX, SaleState, Swept, SyncAsk, Synced, TOTAL_MAX, Terms, View,
};

/// See the module's own words.
pub struct RedisLedger {
    client: Client,
    settings: AsyncConnectionConfig,
    link: Mutex<Link>,
}

/// The connection, and what is known of those before it.
#[derive(Default)]
struct Link {
    /// Counts connections, so that a caller gives up only the one that it used.
    number: u64,
    connection: Option<MultiplexedConnection>,
    /// How Redis calls the connection, or the one that was given up: its id and our name for it.
    known_as: Option<(u64, String)>,
}

impl RedisLedger {
    /// Connects and makes the scripts known.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] if the URL makes no sense or Redis cannot be reached.
    pub async fn connect(
        url: &str,
        connect_timeout: Duration,
        response_timeout: Duration,
    ) -> Result<Self, LedgerError> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_timeout))
            .set_response_timeout(Some(response_timeout));
        let ledger =
            Self { client: Client::open(url).map_err(|error| unavailable(&error))?, settings, link: Mutex::default() };
        ledger.connection().await?;
        Ok(ledger)
    }

    /// The connection and its number. Whatever fails here, nothing was asked yet.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), LedgerError> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok((link.number, connection.clone()));
        }
        // The address has no password in it.
        let named = |error: RedisError| {
            LedgerError::Unavailable(format!("Redis at {}: {error}", self.client.get_connection_info().addr()))
        };
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&self.settings).await.map_err(named)?;
        scripts::load_all(&mut connection).await.map_err(named)?;
        if let Some((id, name)) = &link.known_as {
            end_connection(&mut connection, *id, name).await.map_err(named)?;
        }
        link.known_as = Some(name_connection(&mut connection).await.map_err(named)?);
        link.number += 1;
        link.connection = Some(connection.clone());
        Ok((link.number, connection))
    }

    /// Sends several commands in one round trip and gives their answers, errors among them.
    /// Scripts that Redis has forgotten are loaded, and everything is asked again; every step may be asked twice.
    async fn ask_all(&self, pipeline: &Pipeline, count: usize) -> Result<Vec<Value>, LedgerError> {
        for last_try in [false, true] {
            let (number, mut connection) = self.connection().await?;
            let values = match connection.req_packed_commands(pipeline, 0, count).await {
                Ok(values) => values,
                Err(error) => {
                    let mut link = self.link.lock().await;
                    if link.number == number {
                        link.connection = None;
                    }
                    return Err(LedgerError::Unknown(error.to_string()));
                }
            };
            if last_try || !values.iter().any(is_forgotten_script) {
                return Ok(values);
            }
            scripts::load_all(&mut connection).await.map_err(|error| unavailable(&error))?;
        }
        Err(LedgerError::Unavailable("the scripts could not be loaded".into()))
    }

    async fn ask(&self, command: &Cmd) -> Result<Value, LedgerError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command.clone());
        match self.ask_all(&pipeline, 1).await?.pop() {
            Some(value) => refuse_errors(value),
            None => Err(reply::damaged("no reply")),
        }
    }
}

/// Gives a connection a name of its own, since ids begin anew when Redis does; gives its id and its name.
async fn name_connection(connection: &mut MultiplexedConnection) -> Result<(u64, String), RedisError> {
    let name = format!("spikegate-{:016x}", rand::random::<u64>());
    let (id,): (u64,) = ::redis::pipe()
        .cmd("CLIENT")
        .arg("SETNAME")
        .arg(&name)
        .ignore()
        .cmd("CLIENT")
        .arg("ID")
        .query_async(connection)
        .await?;
    Ok((id, name))
}

/// Ends a connection that was given up. What was sent over it and is still on its way must not be done later, after its
/// successor was told that it had not been done.
async fn end_connection(connection: &mut MultiplexedConnection, id: u64, name: &str) -> Result<(), RedisError> {
    let there: String = ::redis::cmd("CLIENT").arg("LIST").arg("ID").arg(id).query_async(connection).await?;
    if there.split_whitespace().any(|field| field.strip_prefix("name=") == Some(name)) {
        let _ended: u64 = ::redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(connection).await?;
    }
    Ok(())
}

fn is_forgotten_script(value: &Value) -> bool {
    match value {
        Value::ServerError(error) => {
            RedisError::from(error.clone()).kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        }
        _ => false,
    }
}

/// An error that Redis answered. Scripts write only when nothing can fail any more, so their own errors are certain.
fn refuse_errors(value: Value) -> Result<Value, LedgerError> {
    let Value::ServerError(error) = value else { return Ok(value) };
    let text = error.details().unwrap_or_default().to_owned();
    Err(match error.code() {
        "MISSING" => LedgerError::Missing,
        "CHANGED" => LedgerError::Changed,
        "DAMAGED" => LedgerError::Damaged(text),
        "WRONGTYPE" => LedgerError::Damaged(format!("a key of the sale has another type: {text}")),
        // With these, Redis says that it did not run the script. Of any other nobody knows who wrote it, and when: a
        // proxy in front of Redis, or Redis in the middle of a script that an access rule stopped.
        code @ ("LOADING" | "BUSY" | "OOM" | "READONLY" | "MISCONF" | "NOSCRIPT" | "MASTERDOWN" | "CLUSTERDOWN"
        | "MOVED" | "ASK" | "TRYAGAIN" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS") => {
            LedgerError::Unavailable(format!("{code} {text}"))
        }
        code => LedgerError::Unknown(format!("{code} {text}")),
    })
}

/// The step was made by now, so what cannot be read of its reply leaves its outcome unknown, not refused.
fn made_but_unread(error: LedgerError) -> LedgerError {
    LedgerError::Unknown(error.to_string())
}

fn unavailable(error: &RedisError) -> LedgerError {
    LedgerError::Unavailable(error.to_string())
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn open(&self, sale: &str, total: Option<u64>) -> Result<Identity, LedgerError> {
        let fresh = Identity { epoch: rand::random::<u64>().max(1), secret: rand::random() };
        let keys = Keys::of(sale);
        let mut names =
            vec![keys.hash().to_owned(), keys.orders(), keys.due(), keys.buyers(), keys.log(), keys.changes()];
        names.extend(keys.put_away(fresh.epoch));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let call = Call::new(&SCRIPTS.open, &names)
            .arg(total.map_or(String::new(), |total| total.to_string()))
            .arg(format!("{:016x}", fresh.epoch))
            .arg(reply::hex(&fresh.secret));
        reply::identity(&self.ask(&call.command()).await?)
    }

    async fn reserve(
        &self,
        sale: &str,
        epoch: u64,
        terms: &Terms,
        batch: &Arc<Vec<Purchase>>,
    ) -> Result<Reserved, LedgerError> {
        if batch.is_empty() {
            return Err(reply::damaged("an empty batch"));
        }
        let keys = Keys::of(sale);
        let names = [keys.hash(), &keys.orders(), &keys.due(), &keys.buyers(), &keys.log()];
        let mut call = Call::new(&SCRIPTS.reserve, &names).arg(format!("{epoch:016x}")).terms(terms);
        let mut line = String::new();
        for purchase in batch.iter() {
            let buyer = purchase.buyer.as_deref().unwrap_or_default();
            // Writing to a String cannot fail.
            line.clear();
            let _ = write!(line, "{} {buyer}", purchase.quantity);
            call = call.arg(&purchase.id.hex()[..]).arg(line.as_str());
        }
        reply::reserved(&self.ask(&call.command()).await?, batch).map_err(made_but_unread)
    }

    async fn sync(&self, asks: &[SyncAsk]) -> Result<Vec<Result<Synced, LedgerError>>, LedgerError> {
        let mut pipeline = Pipeline::with_capacity(asks.len());
        for ask in asks {
            let epoch = format!("{:016x}", ask.epoch);
            pipeline.add_command(sync_call(&ask.sale, &epoch, &ask.terms, ask.read_to, SYNC_LINES_MAX));
        }
        let values = self.ask_all(&pipeline, asks.len()).await?;
        Ok(values.into_iter().map(|value| reply::synced(&refuse_errors(value)?)).collect())
    }

    async fn snapshot(&self, sale: &str, terms: &Terms) -> Result<View, LedgerError> {
        Ok(reply::synced(&self.ask(&sync_call(sale, "", terms, 0, 0)).await?)?.view)
    }

    async fn order(&self, sale: &str, id: OrderId) -> Result<Option<Order>, LedgerError> {
        let mut command = ::redis::cmd("HGET");
        command.arg(Keys::of(sale).orders()).arg(id.to_string());
        match self.ask(&command).await? {
            Value::Nil => Ok(None),
            value => reply::order(&value).map(Some),
        }
    }

    async fn confirm(
        &self,
        sale: &str,
        terms: &Terms,
        order: OrderId,
        payment: &PaymentId,
    ) -> Result<Confirmed, LedgerError> {
        let keys = Keys::of(sale);
        let call = Call::new(&SCRIPTS.confirm, &[keys.hash(), &keys.orders(), &keys.buyers(), &keys.log()])
            .terms(terms)
            .arg(&order.hex()[..])
            .arg(payment.as_str());
        reply::confirmed(&self.ask(&call.command()).await?).map_err(made_but_unread)
    }

    async fn cancel(&self, sale: &str, order: OrderId) -> Result<Cancelled, LedgerError> {
        let keys = Keys::of(sale);
        let call = Call::new(&SCRIPTS.cancel, &[keys.hash(), &keys.orders(), &keys.buyers(), &keys.log()])
            .arg(&order.hex()[..]);
        reply::cancelled(&self.ask(&call.command()).await?).map_err(made_but_unread)
    }

    async fn sweep(&self, sale: &str, epoch: u64) -> Result<Swept, LedgerError> {
        let keys = Keys::of(sale);
        let names = [keys.hash(), &keys.orders(), &keys.due(), &keys.buyers(), &keys.log()];
        let call = Call::new(&SCRIPTS.sweep, &names).arg(format!("{epoch:016x}")).arg(SWEEP_MAX);
        reply::swept(&self.ask(&call.command()).await?).map_err(made_but_unread)
    }

    async fn set_state(&self, sale: &str, state: SaleState) -> Result<(), LedgerError> {
        let keys = Keys::of(sale);
        let call = Call::new(&SCRIPTS.state, &[keys.hash(), &keys.log()]).arg(reply::state_name(state));
        self.ask(&call.command()).await.map(|_changed| ())
    }

    async fn add_stock(&self, sale: &str, change_id: &str, delta: i64) -> Result<(), LedgerError> {
        let keys = Keys::of(sale);
        let call = Call::new(&SCRIPTS.stock, &[keys.hash(), &keys.changes(), &keys.log()])
            .arg(change_id)
            .arg(delta)
            .arg(TOTAL_MAX);
        match self.ask(&call.command()).await? {
            Value::Int(1 | 2) => Ok(()),
            Value::Int(3) => Err(LedgerError::ChangeIdReused),
            Value::Int(4) => Err(LedgerError::BelowSold { sold: self.snapshot(sale, &Terms::default()).await?.sold }),
            Value::Int(5) => Err(LedgerError::AboveMaximum),
            other => Err(reply::damaged(&format!("stock.lua replied {other:?}"))),
        }
    }

    async fn log(&self, sale: &str, after: u64, limit: usize) -> Result<Vec<LogEntry>, LedgerError> {
        let mut command = ::redis::cmd("XRANGE");
        command.arg(Keys::of(sale).log()).arg(format!("({after}-0")).arg("+").arg("COUNT").arg(limit);
        reply::entries(&self.ask(&command).await?)
    }
}

fn sync_call(sale: &str, epoch: &str, terms: &Terms, read_to: u64, lines_max: usize) -> Cmd {
    let keys = Keys::of(sale);
    let call = Call::new(&SCRIPTS.sync, &[keys.hash(), &keys.log(), &keys.due()]);
    call.arg(epoch).terms(terms).arg(read_to).arg(lines_max).command()
}
