//! The ledger in Redis, shared by any number of edges: one script per step (see `lua/`), one round trip per script.
//!
//! One multiplexed connection carries everything ([`link`]). The next caller reconnects after it broke. It is given up
//! when an answer does not come in time: the outcome of its steps is then unknown, and repeating them with the same ids
//! finds out. Before a sale is sold over a new connection, the ledger is compared with what this edge remembers
//! ([`sale_guard`], [`memory`]). Redis itself is the clock. This file has the steps of [`Ledger`]; [`books`] has
//! reconciliation, [`outbox`] delivery, and [`sale_guard`] the authorization of connections, each as an `impl
//! RedisLedger` of its own.

mod books;
mod keys;
mod link;
mod memory;
mod outbox;
mod promise;
pub(crate) mod reply;
mod sale_guard;
mod scripts;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redis::aio::ConnectionLike;
use ::redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use async_trait::async_trait;

use self::keys::Keys;
use self::link::{Line, Link};
use self::sale_guard::{GuardError, SaleGuard};
use self::scripts::{Call, SCRIPTS};
use crate::config;
use crate::ledger::{
    Cancelled, Confirmed, Decision, Identity, Ledger, LedgerError, LogEntry, Order, OrderId, PaymentId, Purchase,
    Reserved, SWEEP_MAX, SYNC_LINES_MAX, SaleState, Swept, SyncAsk, Synced, TOTAL_MAX, Terms, View,
};

/// How long replicas may take to have what a sync reads. After that the edge merely learns less.
const SYNC_WAIT_MAX: Duration = Duration::from_millis(5);

/// The ledger in Redis; see the module.
pub struct RedisLedger {
    link: Link,
    replicas: Option<config::Replicas>,
    /// What this edge knows of each opened sale, by its name.
    guards: Mutex<HashMap<String, SaleGuard>>,
}

impl RedisLedger {
    /// Connects to a Redis without durability promises; see [`RedisLedger::open`].
    ///
    /// # Errors
    /// Those of [`RedisLedger::open`].
    pub async fn connect(
        url: &str,
        connect_timeout: Duration,
        response_timeout: Duration,
    ) -> Result<Self, LedgerError> {
        Self::open(&config::Redis::at(url.to_owned(), connect_timeout, response_timeout)).await
    }

    /// Connects, checks the settings of Redis, and loads the scripts.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] if the URL is invalid, Redis is not reachable, or its durability is less than
    /// promised.
    pub async fn open(settings: &config::Redis) -> Result<Self, LedgerError> {
        let link = Link::new(settings)?;
        link.line().await?;
        Ok(Self { link, replicas: settings.replicas, guards: Mutex::default() })
    }

    /// Sends several commands in one round trip and returns their answers, including errors. Scripts that Redis has
    /// forgotten are loaded and everything is sent again; every step may be repeated.
    async fn send(&self, line: &Line, pipeline: &Pipeline, count: usize) -> Result<Vec<Value>, LedgerError> {
        let mut connection = line.connection.clone();
        for last_try in [false, true] {
            let values = match connection.req_packed_commands(pipeline, 0, count).await {
                Ok(values) => values,
                Err(error) => {
                    self.link.give_up(line).await;
                    return Err(LedgerError::Unknown(error.to_string()));
                }
            };
            if values.iter().any(is_no_primary) {
                // The name was valid when the connection was made.
                self.link.give_up(line).await;
            }
            if last_try || !values.iter().any(is_forgotten_script) {
                return Ok(values);
            }
            scripts::load_all(&mut connection).await.map_err(|error| unavailable(&error))?;
        }
        Err(LedgerError::Unavailable("the scripts could not be loaded".into()))
    }

    /// A command that needs no authorization, because it only reads or does not concern what may be lost.
    async fn ask(&self, command: &Cmd) -> Result<Value, LedgerError> {
        let line = self.link.line().await?;
        self.ask_over(&line, command).await
    }

    async fn ask_over(&self, line: &Line, command: &Cmd) -> Result<Value, LedgerError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command.clone());
        match self.send(line, &pipeline, 1).await?.pop() {
            Some(value) => refuse_errors(value),
            None => Err(reply::damaged("no reply")),
        }
    }

    /// A step of a sale, over an authorized connection, kept by the required number of replicas. `wrote` says whether
    /// the step certainly writes; if not, something is written for WAIT to wait for.
    async fn step(&self, sale: &str, command: Cmd, wrote: bool) -> Result<Value, LedgerError> {
        let line = self.link.line().await?;
        self.pass(&line, sale).await?;
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.add_command(command);
        if let Some(replicas) = &self.replicas {
            if !wrote && let Some(touch) = self.authorize_call(&line, sale) {
                pipeline.add_command(touch.command());
            }
            pipeline.add_command(wait(replicas));
        }
        let values = self.send(&line, &pipeline, pipeline.len()).await?;
        let kept = self.is_kept(values.last());
        let value = values.into_iter().next().ok_or_else(|| reply::damaged("no reply"))?;
        let value = refuse_errors(value).inspect_err(|error| self.learn_error(sale, error))?;
        kept.map(|()| value)
    }

    /// Makes sure that the replicas keep all earlier writes, of every connection.
    async fn make_sure(&self, sale: &str) -> Result<(), LedgerError> {
        if self.replicas.is_none() {
            return Ok(());
        }
        let line = self.link.line().await?;
        match self.authorize_call(&line, sale) {
            Some(touch) => self.step(sale, touch.command(), true).await.map(|_authorized| ()),
            None => Ok(()),
        }
    }

    /// Interprets the answer of WAIT. Too few replicas are no refusal: the step was made, and may be kept or lost.
    fn is_kept(&self, answer: Option<&Value>) -> Result<(), LedgerError> {
        match (&self.replicas, answer) {
            (None, _) => Ok(()),
            (Some(replicas), Some(Value::Int(count))) if *count >= i64::from(replicas.acknowledge) => Ok(()),
            (Some(replicas), Some(Value::Int(count))) => {
                Err(LedgerError::Unknown(format!("{count} of {} replicas have it so far", replicas.acknowledge)))
            }
            (Some(_), other) => Err(LedgerError::Unknown(format!("WAIT replied {other:?}"))),
        }
    }
}

fn wait(replicas: &config::Replicas) -> Cmd {
    let mut command = ::redis::cmd("WAIT");
    command.arg(replicas.acknowledge).arg(u64::try_from(replicas.timeout.as_millis()).unwrap_or(u64::MAX));
    command
}

fn is_no_primary(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if matches!(error.code(), "READONLY" | "MASTERDOWN"))
}

fn is_forgotten_script(value: &Value) -> bool {
    match value {
        Value::ServerError(error) => {
            RedisError::from(error.clone()).kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        }
        _ => false,
    }
}

/// Interprets an error reply of Redis. Scripts write only when nothing can fail any more, so their own errors are
/// certain.
fn refuse_errors(value: Value) -> Result<Value, LedgerError> {
    let Value::ServerError(error) = value else { return Ok(value) };
    let text = error.details().unwrap_or_default().to_owned();
    Err(match error.code() {
        "MISSING" => LedgerError::Missing,
        "CHANGED" => LedgerError::Changed,
        "FENCED" => LedgerError::Fenced(text),
        "DAMAGED" => LedgerError::Damaged(text),
        "WRONGTYPE" => LedgerError::Damaged(format!("a key of the sale has another type: {text}")),
        // With these errors Redis has not run the script. Other errors may come from a proxy in front of Redis, or from
        // an access rule that stopped a script midway, so their outcome is unknown.
        code @ ("LOADING" | "BUSY" | "OOM" | "READONLY" | "MISCONF" | "NOSCRIPT" | "MASTERDOWN" | "CLUSTERDOWN"
        | "MOVED" | "ASK" | "TRYAGAIN" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS") => {
            LedgerError::Unavailable(format!("{code} {text}"))
        }
        code => LedgerError::Unknown(format!("{code} {text}")),
    })
}

/// The step has been made, so an unreadable reply makes its outcome unknown, not refused.
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
        let identity = reply::identity(&self.ask(&call.command()).await?)?;
        self.take_charge(sale, &identity);
        Ok(identity)
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
        let value = self.step(sale, call.command(), true).await?;
        let reserved = reply::reserved(&value, batch).map_err(made_but_unread)?;
        if reserved.decisions.iter().any(|decision| matches!(decision, Decision::Ordered { again: true, .. })) {
            self.make_sure(sale).await?;
        }
        self.learn_step(sale, batch, &reserved);
        Ok(reserved)
    }

    async fn sync(&self, asks: &[SyncAsk]) -> Result<Vec<Result<Synced, LedgerError>>, LedgerError> {
        let line = self.link.line().await?;
        let mut pipeline = Pipeline::with_capacity(asks.len());
        let mut authorized = Vec::with_capacity(asks.len());
        for ask in asks {
            let acknowledged_version = match self.pass(&line, &ask.sale).await {
                Ok(()) => Ok(self.acknowledged_version(&ask.sale)),
                Err(GuardError::Refused(error)) => Err(error),
                Err(broken @ GuardError::Broken(_)) => return Err(broken.into()),
            };
            if acknowledged_version.is_ok() {
                let epoch = format!("{:016x}", ask.epoch);
                pipeline.add_command(sync_call(&ask.sale, &epoch, &ask.terms, ask.read_to, SYNC_LINES_MAX));
            }
            authorized.push(acknowledged_version);
        }
        if pipeline.is_empty() {
            return Ok(authorized
                .into_iter()
                .map(|acknowledged_version| Err(acknowledged_version.err().unwrap_or(LedgerError::Missing)))
                .collect());
        }
        if let Some(replicas) = &self.replicas {
            let timeout = replicas.timeout.min(SYNC_WAIT_MAX);
            pipeline.add_command(wait(&config::Replicas { timeout, ..*replicas }));
        }
        let values = self.send(&line, &pipeline, pipeline.len()).await?;
        let kept = self.is_kept(values.last()).is_ok();
        let mut values = values.into_iter();
        let mut synced = |ask: &SyncAsk, acknowledged_version: Result<u64, LedgerError>| {
            let acknowledged_version = acknowledged_version?;
            let value = values.next().ok_or_else(|| reply::damaged("no reply"))?;
            let value = refuse_errors(value).inspect_err(|error| self.learn_error(&ask.sale, error))?;
            let synced = reply::synced(&value)?;
            self.learn_sync(&ask.sale, acknowledged_version, &synced, kept)?;
            Ok(synced)
        };
        Ok(asks.iter().zip(authorized).map(|(ask, acknowledged_version)| synced(ask, acknowledged_version)).collect())
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
        let value = self.step(sale, call.command(), false).await?;
        let confirmed = reply::confirmed(&value).map_err(made_but_unread)?;
        self.learn_confirmed(sale, order, &confirmed, reply::entry_made(&value));
        Ok(confirmed)
    }

    async fn cancel(&self, sale: &str, order: OrderId) -> Result<Cancelled, LedgerError> {
        let keys = Keys::of(sale);
        let call = Call::new(&SCRIPTS.cancel, &[keys.hash(), &keys.orders(), &keys.buyers(), &keys.log()])
            .arg(&order.hex()[..]);
        let value = self.step(sale, call.command(), false).await?;
        let cancelled = reply::cancelled(&value).map_err(made_but_unread)?;
        self.learn_cancelled(sale, order, &cancelled, reply::entry_made(&value));
        Ok(cancelled)
    }

    async fn sweep(&self, sale: &str, epoch: u64) -> Result<Swept, LedgerError> {
        let keys = Keys::of(sale);
        let names = [keys.hash(), &keys.orders(), &keys.due(), &keys.buyers(), &keys.log()];
        let call = Call::new(&SCRIPTS.sweep, &names).arg(format!("{epoch:016x}")).arg(SWEEP_MAX);
        let line = self.link.line().await?;
        self.pass(&line, sale).await?;
        let value = self.ask_over(&line, &call.command()).await.inspect_err(|error| self.learn_error(sale, error))?;
        reply::swept(&value).map_err(made_but_unread)
    }

    async fn set_state(&self, sale: &str, state: SaleState) -> Result<(), LedgerError> {
        let keys = Keys::of(sale);
        let call = Call::new(&SCRIPTS.state, &[keys.hash(), &keys.log()]).arg(reply::state_name(state));
        self.ask(&call.command()).await?;
        self.make_sure_of_change(sale).await
    }

    async fn add_stock(&self, sale: &str, change_id: &str, delta: i64) -> Result<(), LedgerError> {
        let keys = Keys::of(sale);
        let call = Call::new(&SCRIPTS.stock, &[keys.hash(), &keys.changes(), &keys.log()])
            .arg(change_id)
            .arg(delta)
            .arg(TOTAL_MAX);
        let line = self.link.line().await?;
        if delta < 0 {
            // A ledger that lost orders counts their tickets as unsold.
            self.pass(&line, sale).await?;
        }
        let made = self.ask_over(&line, &call.command()).await.inspect_err(|error| self.learn_error(sale, error))?;
        match made {
            Value::Int(1 | 2) => self.make_sure_of_change(sale).await,
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
