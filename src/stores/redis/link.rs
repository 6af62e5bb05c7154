//! The connection: finds Redis, checks that it is the primary and has the promised settings, and remembers earlier
//! connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, Value,
};
use tokio::sync::Mutex;

use super::{promise, scripts, unavailable};
use crate::config::{self, RedisTopology};
use crate::ledger::LedgerError;

/// Used where Redis does not allow asking for the id of the primary.
const REIGN_UNKNOWN: &str = "unknown";

/// The way to Redis.
pub(super) struct Link {
    settings: config::Redis,
    waits: AsyncConnectionConfig,
    /// The Sentinel that answered last is asked first.
    sentinel: AtomicUsize,
    state: Mutex<State>,
}

/// A connection. It leads to one Redis process as long as it lives.
#[derive(Clone)]
pub(super) struct Line {
    /// Number of the connection, so that a caller gives up only the one that it used.
    pub(super) number: u64,
    pub(super) connection: MultiplexedConnection,
    /// The id of its primary; see `lua/authorize.lua`.
    pub(super) primary_id: Arc<str>,
}

#[derive(Default)]
struct State {
    number: u64,
    line: Option<Line>,
    /// The id and name of the connection in Redis, or of the one that was given up.
    known_as: Option<(u64, String)>,
}

impl Link {
    pub(super) fn new(settings: &config::Redis) -> Result<Self, LedgerError> {
        if let RedisTopology::Url(url) = &settings.place {
            Client::open(url.as_str()).map_err(|error| unavailable(&error))?;
        }
        let waits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout));
        Ok(Self { settings: settings.clone(), waits, sentinel: AtomicUsize::new(0), state: Mutex::default() })
    }

    /// The connection. If this fails, no step was sent.
    pub(super) async fn line(&self) -> Result<Line, LedgerError> {
        let mut state = self.state.lock().await;
        if let Some(line) = &state.line {
            return Ok(line.clone());
        }
        let (mut connection, address) = match &self.settings.place {
            RedisTopology::Url(url) => {
                let client = Client::open(url.as_str()).map_err(|error| unavailable(&error))?;
                self.connect(&client).await?
            }
            RedisTopology::Sentinels { addresses, .. } => self.connect_to_primary(addresses).await?,
        };
        let named = |error: RedisError| LedgerError::Unavailable(format!("Redis at {address}: {error}"));
        let primary_id = self.examine(&mut connection, &address).await?;
        scripts::load_all(&mut connection).await.map_err(named)?;
        if let Some((id, name)) = &state.known_as {
            end_connection(&mut connection, *id, name).await.map_err(named)?;
        }
        state.known_as = Some(name_connection(&mut connection).await.map_err(named)?);
        state.number += 1;
        let line = Line { number: state.number, connection, primary_id };
        state.line = Some(line.clone());
        Ok(line)
    }

    /// The next caller makes another connection.
    pub(super) async fn give_up(&self, line: &Line) {
        let mut state = self.state.lock().await;
        if state.line.as_ref().is_some_and(|current| current.number == line.number) {
            state.line = None;
        }
    }

    /// The address has no password in it.
    async fn connect(&self, client: &Client) -> Result<(MultiplexedConnection, String), LedgerError> {
        let address = client.get_connection_info().addr().to_string();
        match client.get_multiplexed_async_connection_with_config(&self.waits).await {
            Ok(connection) => Ok((connection, address)),
            Err(error) => Err(LedgerError::Unavailable(format!("Redis at {address}: {error}"))),
        }
    }

    /// Asks the Sentinels in turn for the primary, until one names an address that can be connected to.
    async fn connect_to_primary(&self, addresses: &[String]) -> Result<(MultiplexedConnection, String), LedgerError> {
        let first = self.sentinel.load(Ordering::Relaxed);
        let mut faults = Vec::new();
        for at in (first..first + addresses.len()).map(|at| at % addresses.len()) {
            let found = match self.primary_by(&addresses[at]).await {
                Ok(client) => self.connect(&client).await,
                Err(error) => Err(error),
            };
            match found {
                Ok((connection, primary)) => {
                    self.sentinel.store(at, Ordering::Relaxed);
                    return Ok((connection, primary));
                }
                Err(LedgerError::Unavailable(why)) => faults.push(why),
                Err(error) => faults.push(error.to_string()),
            }
        }
        Err(LedgerError::Unavailable(faults.join("; ")))
    }

    async fn primary_by(&self, sentinel: &str) -> Result<Client, LedgerError> {
        let RedisTopology::Sentinels { master, user, password, db, sentinel_user, sentinel_password, .. } =
            &self.settings.place
        else {
            return Err(LedgerError::Unavailable("there are no Sentinels".into()));
        };
        let named = |error: RedisError| LedgerError::Unavailable(format!("Sentinel at {sentinel}: {error}"));
        let info = format!("redis://{sentinel}").into_connection_info().map_err(named)?;
        let own = credentials(sentinel_user.as_deref(), sentinel_password.as_deref());
        let client = Client::open(info.set_redis_settings(own)).map_err(named)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&self.waits).await.map_err(named)?;
        let mut ask = ::redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(master);
        let place: Option<(String, u16)> = ask.query_async(&mut connection).await.map_err(named)?;
        let Some((host, port)) = place else {
            return Err(LedgerError::Unavailable(format!("Sentinel at {sentinel} knows no master {master}")));
        };
        let redis = credentials(user.as_deref(), password.as_deref()).set_db(i64::from(*db));
        let info = ConnectionAddr::Tcp(host, port).into_connection_info().map_err(named)?.set_redis_settings(redis);
        Client::open(info).map_err(named)
    }

    /// Checks that the server is a primary with the promised settings; returns its id.
    async fn examine(&self, connection: &mut MultiplexedConnection, address: &str) -> Result<Arc<str>, LedgerError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg("replication");
        promise::QUESTIONS.iter().for_each(|name| {
            pipeline.cmd("CONFIG").arg("GET").arg(*name);
        });
        let count = 1 + promise::QUESTIONS.len();
        let answers = connection.req_packed_commands(&pipeline, 0, count).await;
        let answers = answers.map_err(|error| LedgerError::Unavailable(format!("Redis at {address}: {error}")))?;
        let (info, settings) = answers.split_first().unwrap_or((&Value::Nil, &[]));
        let info = match info {
            Value::ServerError(error) if matches!(error.code(), "LOADING" | "MASTERDOWN" | "NOAUTH") => {
                return Err(LedgerError::Unavailable(format!("Redis at {address}: {}", error.code())));
            }
            Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
            Value::VerbatimString { text, .. } => text.clone(),
            _ => String::new(),
        };
        let said = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        if said("role").is_some_and(|role| role != "master") {
            return Err(LedgerError::Unavailable(format!("Redis at {address} is a replica, and only a primary sells")));
        }
        promise::check(&self.settings, address, settings, said("connected_slaves"))?;
        let primary_id = said("master_replid").unwrap_or_else(|| {
            log::warn!("Redis at {address} does not allow INFO: a restart of Redis cannot be detected");
            REIGN_UNKNOWN
        });
        Ok(primary_id.into())
    }
}

/// The credentials of the edge.
fn credentials(user: Option<&str>, password: Option<&str>) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default();
    if let Some(user) = user {
        info = info.set_username(user);
    }
    if let Some(password) = password {
        info = info.set_password(password);
    }
    info
}

/// Names the connection, because Redis reuses connection ids after a restart; returns id and name.
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

/// Ends a connection that was given up. What was sent over it must not run later, after the next connection was told
/// that it did not run.
async fn end_connection(connection: &mut MultiplexedConnection, id: u64, name: &str) -> Result<(), RedisError> {
    let there: String = ::redis::cmd("CLIENT").arg("LIST").arg("ID").arg(id).query_async(connection).await?;
    if there.split_whitespace().any(|field| field.strip_prefix("name=") == Some(name)) {
        let _ended: u64 = ::redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(connection).await?;
    }
    Ok(())
}
