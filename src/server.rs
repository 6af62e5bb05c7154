//! The one place where everything is wired together, started and stopped.
//!
//! Pingora's proxy runs here without Pingora's `Server`: that one sleeps through its whole grace period even when
//! nothing is under way, and stays up serving nothing when a port cannot be bound. What it would do otherwise, accepting
//! connections and telling them to stop, is the front door's.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pingora::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::{Config, Store};
use crate::control::{self, Control};
use crate::front::Front;
use crate::ledger::embedded::EmbeddedLedger;
use crate::ledger::redis::RedisLedger;
use crate::ledger::{Ledger, LedgerError};
use crate::proxy::{HostError, MAX_TRIES, Proxy};
use crate::sale::stat_log::StatLog;
use crate::sale::{Sale, Shared, batch, sync};
use crate::shop::Shop;
use crate::upstream::Upstream;

/// Idle connections to backends that are kept, all groups together. More than the requests usually under way at once,
/// since each one beyond is opened and closed for a single request.
const IDLE_CONNECTIONS: usize = 1024;

/// Connections that may wait to be accepted; the system caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// How long background work may take to end after it was told to.
const BACKGROUND_END: Duration = Duration::from_secs(1);

/// Why an edge did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("listen {address}: {}", bind_trouble(*address, source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A group's `Host` cannot be sent.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ledger cannot be opened.
    #[error("the ledger cannot be opened: {0}")]
    Ledger(#[from] LedgerError),
    /// A sale cannot be opened.
    #[error("sales.{sale}: the ledger cannot open it: {source}")]
    Sale {
        /// Its id.
        sale: String,
        /// What the ledger said.
        source: LedgerError,
    },
    /// A stat log cannot be written.
    #[error("sales.{sale}.stat_log: {path}: {source}")]
    StatLog {
        /// The sale's id.
        sale: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No threads, or no signals.
    #[error("the system refuses threads or signals: {0}")]
    System(#[from] io::Error),
    /// The public listeners ended without being told to.
    #[error("the public listeners ended unexpectedly; the reason is above")]
    ListenersEnded,
}

/// Runs an edge until it is told to stop.
///
/// SIGTERM: no more connections are accepted, requests under way are finished, and the edge ends as soon as they are,
/// at the latest after the shutdown grace. SIGINT: it ends at once.
///
/// # Errors
///
/// If the edge cannot start, or its listeners fail later.
pub fn run(config: Config) -> Result<(), StartError> {
    let grace = config.shutdown_grace;
    let mut edge = Edge::start(config)?;
    let told = edge.until_told()?;
    match told {
        Told::Finish => edge.finish(grace),
        Told::Abort => log::info!("stopping at once"),
    }
    edge.end();
    Ok(())
}

/// An edge at work.
pub(crate) struct Edge {
    /// Carries the public listeners and all requests.
    traffic: Runtime,
    /// Carries what must go on when traffic takes every thread, and must end after it.
    background: Runtime,
    listeners: JoinHandle<()>,
    signals: Signals,
    shop: Arc<Shop>,
    /// Tells everybody to stop.
    shutdown: watch::Sender<bool>,
    /// Ends when the last connection is gone.
    connections: mpsc::Receiver<Infallible>,
}

/// Caught from the very beginning: an edge that answers must also be one that can be stopped cleanly.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// What a signal asks for.
enum Told {
    Finish,
    Abort,
}

impl Edge {
    /// Starts everything.
    pub(crate) fn start(config: Config) -> Result<Self, StartError> {
        // All are bound before anything else happens, so that whoever is refused an address has done nothing yet.
        let listening = config.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let control_listening = bind(&config.control.listen)?;

        let background =
            Builder::new_multi_thread().worker_threads(1).thread_name("background").enable_all().build()?;
        let traffic =
            Builder::new_multi_thread().worker_threads(config.threads).thread_name("traffic").enable_all().build()?;
        let signals = {
            let _within = traffic.enter();
            Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? }
        };
        let (shutdown, told) = watch::channel(false);
        let (alive, connections) = mpsc::channel(1);

        let upstreams: Vec<_> = config.upstreams.iter().cloned().map(Upstream::new).map(Arc::new).collect();
        let shop = background.block_on(open_shop(&config))?;
        let proxy = Proxy::new(&config, Arc::clone(&shop), &upstreams, alive)?;
        let control =
            Control { shop: Arc::clone(&shop), upstreams: upstreams.clone(), token: config.control.token.clone() };
        // Background work begins here; each that has something to end gets a copy of `told`.
        background.spawn(serve_control(control_listening, control));
        for upstream in upstreams {
            background.spawn(check(upstream, told.clone()));
        }

        let proxy = http_proxy(&Arc::new(conf(&config)), proxy);
        let front = Front::new(Arc::clone(&shop), proxy, config.client.clone(), told);
        let listening = {
            let _within = traffic.enter();
            listening.into_iter().map(tokio::net::TcpListener::from_std).collect::<Result<_, _>>()?
        };
        let listeners = traffic.spawn(front.serve(listening));
        let addresses: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
        log::info!("ready: listening on {}; control on {}", addresses.join(", "), config.control.listen);
        Ok(Self { traffic, background, listeners, signals, shop, shutdown, connections })
    }

    /// Waits for a signal.
    fn until_told(&mut self) -> Result<Told, StartError> {
        let Self { traffic, signals, listeners, .. } = self;
        traffic.block_on(async {
            tokio::select! {
                _ = signals.terminate.recv() => Ok(Told::Finish),
                _ = signals.interrupt.recv() => Ok(Told::Abort),
                _ = listeners => Err(StartError::ListenersEnded),
            }
        })
    }

    /// Stops accepting, and waits until all connections are gone, `grace` is over or SIGINT comes.
    pub(crate) fn finish(&mut self, grace: Duration) {
        log::info!("stopping: waiting up to {grace:?} for requests under way");
        // Nobody listening any more is as good.
        let _ = self.shutdown.send(true);
        let Self { traffic, signals, connections, .. } = self;
        traffic.block_on(async {
            tokio::select! {
                _ = connections.recv() => log::info!("stopped"),
                () = tokio::time::sleep(grace) => log::warn!("stopped with requests still under way"),
                _ = signals.interrupt.recv() => log::info!("stopped at once"),
            }
        });
    }

    /// Cuts what is left.
    pub(crate) fn end(self) {
        let _ = self.shutdown.send(true);
        self.traffic.shutdown_background();
        self.shop.sales().iter().for_each(|sale| sale.flush_stat_log(BACKGROUND_END));
        self.background.shutdown_timeout(BACKGROUND_END);
    }
}

/// Opens the ledger and every sale, and sets their work going on the present runtime.
async fn open_shop(config: &Config) -> Result<Arc<Shop>, StartError> {
    if config.sales.is_empty() {
        // A proxy that sells nothing needs no ledger.
        return Ok(Arc::new(Shop::new(Vec::new())));
    }
    let ledger: Arc<dyn Ledger> = match &config.ledger.store {
        Store::Embedded { path } => Arc::new(EmbeddedLedger::open(path, now_ms)?),
        Store::Redis { url, connect_timeout, response_timeout } => {
            Arc::new(RedisLedger::connect(url, *connect_timeout, *response_timeout).await?)
        }
    };
    let shared = Arc::new(Shared { ledger, sync_now: Notify::new(), synced: Notify::new() });
    let mut sales = Vec::with_capacity(config.sales.len());
    for settings in &config.sales {
        let id = settings.id.clone();
        let stat_log = match &settings.stat_log {
            Some(path) => Some(StatLog::open(path).map_err(|source| StartError::StatLog {
                sale: id.clone(),
                path: path.clone(),
                source,
            })?),
            None => None,
        };
        let (sale, queue) = Sale::new(settings.clone(), Arc::clone(&shared), stat_log);
        sale.open(settings.total).await.map_err(|source| StartError::Sale { sale: id.clone(), source })?;
        if sale.is_missing() {
            log::warn!("sale {id}: the ledger has no {}, and no total is configured to make it", settings.key);
        }
        tokio::spawn(batch::run(Arc::clone(&sale), queue));
        sales.push(sale);
    }
    sync::catch_up(&sales, &shared).await?;
    tokio::spawn(sync::run(sales.clone(), shared, config.ledger.sync));
    Ok(Arc::new(Shop::new(sales)))
}

/// The wall clock, for the embedded ledger. Times before 1970 are taken for 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn serve_control(listener: TcpListener, control: Control) {
    let ended = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => axum::serve(listener, control::router(control)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        log::error!("the control listener ended: {error}");
    }
}

async fn check(upstream: Arc<Upstream>, told: watch::Receiver<bool>) {
    let name = upstream.settings().name.clone();
    if let Err(error) = upstream.run_checks(told).await {
        log::error!("upstream {name}: no health checks: {error}");
    }
}

/// What Pingora's parts are told. The rest of its settings concern its `Server`, which is not used.
fn conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: config.threads,
        upstream_keepalive_pool_size: IDLE_CONNECTIONS,
        // Only a guard: how often a request is tried is decided by the proxy.
        max_retries: 2 * MAX_TRIES,
        ..ServerConf::default()
    }
}

/// A socket that listens. `[::]` takes IPv6 alone, as Nginx's `ipv6only=on`, so that it may stand beside 0.0.0.0.
fn bind(address: &SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // What is accepted inherits it: an answer goes out whole, so there is nothing to wait for.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&(*address).into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bound().map_err(|source| StartError::Bind { address: *address, source })
}

/// Says what is wrong and what can be done about it.
fn bind_trouble(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            let program = std::env::current_exe().map_or_else(|_| "PATH".to_owned(), |path| path.display().to_string());
            format!(
                "permission denied; an ordinary user may not bind ports below 1024: \
                 sudo setcap 'cap_net_bind_service=+ep' {program}, or choose another port"
            )
        }
        io::ErrorKind::AddrInUse => "the address is already in use".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_with_a_port_says_what_to_do() {
        let trouble = |port, kind: io::ErrorKind| {
            StartError::Bind { address: ([0, 0, 0, 0], port).into(), source: kind.into() }.to_string()
        };
        let text = trouble(80, io::ErrorKind::PermissionDenied);
        assert!(text.starts_with("listen 0.0.0.0:80: permission denied; an ordinary user may not bind"), "{text}");
        assert!(text.contains("sudo setcap 'cap_net_bind_service=+ep' /"), "{text}");
        let text = trouble(8080, io::ErrorKind::AddrInUse);
        assert_eq!(text, "listen 0.0.0.0:8080: the address is already in use");
    }

    #[test]
    fn a_port_in_use_is_told() {
        let taken = bind(&([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = taken.local_addr().expect("its address");
        assert!(matches!(bind(&address), Err(StartError::Bind { .. })));
        drop(taken);
        assert!(bind(&address).is_ok());
    }
}
