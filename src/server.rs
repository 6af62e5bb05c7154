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
use tokio::time::timeout;

use crate::config::{self, Config, Store};
use crate::control::{self, Control};
use crate::delivery::{Delivery, Poster, Secret, SecretError};
use crate::front::Front;
use crate::ledger::embedded::EmbeddedLedger;
use crate::ledger::redis::RedisLedger;
use crate::ledger::{Ledger, LedgerError, Outbox};
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
    /// Deliveries cannot be signed.
    #[error("delivery.secret_file: {path}: {source}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SecretError,
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
    /// It was told to stop before it had started.
    #[error("told to stop before it had started")]
    Told,
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
    /// Ends when the last delivery has given itself to other edges.
    deliveries: mpsc::Receiver<Infallible>,
    /// How long that may take: as long as one POST, and a little more.
    deliveries_end: Duration,
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
        let mut signals = {
            let _within = traffic.enter();
            Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? }
        };
        let (shutdown, told) = watch::channel(false);
        let (alive, connections) = mpsc::channel(1);
        let secret = config.delivery.as_ref().map(secret_of).transpose()?;

        let upstreams: Vec<_> = config.upstreams.iter().cloned().map(Upstream::new).map(Arc::new).collect();
        let opened = match open_unless_told(&background, &traffic, &mut signals, config.clone()) {
            Ok(opened) => opened,
            Err(error) => {
                // Dropped as it is, the runtime would wait for a log that is still being read.
                background.shutdown_background();
                return Err(error);
            }
        };
        let shop = Arc::clone(&opened.shop);
        let proxy = Proxy::new(&config, Arc::clone(&shop), &upstreams, alive)?;
        let deliveries = deliveries(&config, secret, &upstreams, &opened);
        let control = Control {
            shop: Arc::clone(&shop),
            upstreams: upstreams.clone(),
            deliveries: deliveries.clone(),
            token: config.control.token.clone(),
        };
        // Background work begins here; each that has something to end gets a copy of `told`.
        background.spawn(serve_control(control_listening, control));
        for upstream in upstreams {
            background.spawn(check(upstream, told.clone()));
        }
        let (delivers, deliveries_ended) = mpsc::channel(1);
        for delivery in deliveries {
            background.spawn(deliver(delivery, told.clone(), delivers.clone()));
        }
        let deliveries_end =
            config.delivery.as_ref().map_or(Duration::ZERO, |delivery| delivery.timeout + BACKGROUND_END);

        let proxy = http_proxy(&Arc::new(conf(&config)), proxy);
        let front = Front::new(Arc::clone(&shop), proxy, config.client.clone(), told);
        let listening = {
            let _within = traffic.enter();
            listening.into_iter().map(tokio::net::TcpListener::from_std).collect::<Result<_, _>>()?
        };
        let listeners = traffic.spawn(front.serve(listening));
        let addresses: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
        log::info!("ready: listening on {}; control on {}", addresses.join(", "), config.control.listen);
        Ok(Self {
            traffic,
            background,
            listeners,
            signals,
            shop,
            shutdown,
            connections,
            deliveries: deliveries_ended,
            deliveries_end,
        })
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

    /// Stops accepting, and waits until all connections are gone or `grace` is over, and the deliveries have ended the POST
    /// under way; not after SIGINT.
    pub(crate) fn finish(&mut self, grace: Duration) {
        log::info!("stopping: waiting up to {grace:?} for requests under way");
        // Nobody listening any more is as good.
        let _ = self.shutdown.send(true);
        let Self { traffic, signals, connections, deliveries, deliveries_end, .. } = self;
        let gone =
            async { tokio::join!(timeout(grace, connections.recv()), timeout(*deliveries_end, deliveries.recv())) };
        traffic.block_on(async {
            tokio::select! {
                (connections, _deliveries) = gone => match connections {
                    Ok(_) => log::info!("stopped"),
                    Err(_) => log::warn!("stopped with requests still under way"),
                },
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

/// Opens the ledger and every sale. A long log takes its time, and whoever asks the edge to stop need not wait for it.
fn open_unless_told(
    background: &Runtime,
    traffic: &Runtime,
    signals: &mut Signals,
    config: Config,
) -> Result<Opened, StartError> {
    let opened = background.spawn(async move { open_shop(&config).await });
    traffic.block_on(async {
        tokio::select! {
            opened = opened => opened.map_err(io::Error::other)?,
            _ = signals.terminate.recv() => Err(StartError::Told),
            _ = signals.interrupt.recv() => Err(StartError::Told),
        }
    })
}

/// The sales, and the outboxes of their ledger; a proxy that sells nothing has none.
struct Opened {
    shop: Arc<Shop>,
    outbox: Option<Arc<dyn Outbox>>,
}

/// Opens the ledger and every sale, and sets their work going on the present runtime.
async fn open_shop(config: &Config) -> Result<Opened, StartError> {
    if config.sales.is_empty() {
        return Ok(Opened { shop: Arc::new(Shop::new(Vec::new())), outbox: None });
    }
    let (ledger, outbox): (Arc<dyn Ledger>, Arc<dyn Outbox>) = match &config.ledger.store {
        Store::Embedded { path } => {
            let ledger = Arc::new(EmbeddedLedger::open(path, now_ms)?);
            (ledger.clone(), ledger)
        }
        Store::Redis { url, connect_timeout, response_timeout } => {
            let ledger = Arc::new(RedisLedger::connect(url, *connect_timeout, *response_timeout).await?);
            (ledger.clone(), ledger)
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
        tokio::spawn(essential(format!("sale {id}: its batches"), batch::run(Arc::clone(&sale), queue)));
        sales.push(sale);
    }
    sync::catch_up(&sales, &shared).await?;
    tokio::spawn(essential("the sync".to_owned(), sync::run(sales.clone(), shared, config.ledger.sync)));
    Ok(Opened { shop: Arc::new(Shop::new(sales)), outbox: Some(outbox) })
}

fn secret_of(delivery: &config::Delivery) -> Result<Secret, StartError> {
    let path = &delivery.secret_file;
    Secret::read_or_make(path).map_err(|source| StartError::Secret { path: path.clone(), source })
}

/// One for each sale, if there is an order service.
fn deliveries(
    config: &Config,
    secret: Option<Secret>,
    upstreams: &[Arc<Upstream>],
    opened: &Opened,
) -> Vec<Arc<Delivery>> {
    let (Some(settings), Some(secret), Some(outbox)) = (&config.delivery, secret, &opened.outbox) else {
        return Vec::new();
    };
    let upstream = Arc::clone(&upstreams[settings.upstream]);
    let poster = Arc::new(Poster::new(upstream, settings.path.clone(), secret, settings.timeout, now_ms));
    let edge: Arc<str> = edge_name().into();
    let delivery = |sale: &Arc<Sale>| {
        Arc::new(Delivery::new(Arc::clone(sale), Arc::clone(outbox), Arc::clone(&poster), Arc::clone(&edge)))
    };
    opened.shop.sales().iter().map(delivery).collect()
}

/// A name that no other edge has, and that tells operators which one it is: the machine's, the process's, and chance.
fn edge_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    format!("{host}:{}:{:08x}", std::process::id(), rand::random::<u32>())
}

/// Delivers until told to stop. `_alive` ends with it.
async fn deliver(delivery: Arc<Delivery>, told: watch::Receiver<bool>, _alive: mpsc::Sender<Infallible>) {
    delivery.run(told).await;
}

/// The wall clock, for the embedded ledger. Times before 1970 are taken for 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A task without which the edge would go on answering and know nothing any more. Should it ever panic, the process ends,
/// as it may at any instant: whatever was answered is in the ledger, and whoever starts it again has an edge that works.
async fn essential(name: String, task: impl Future<Output = ()> + Send + 'static) {
    if let Err(end) = tokio::spawn(task).await
        && end.is_panic()
    {
        log::error!("{name} panicked, and the edge ends: {end}");
        std::process::exit(1);
    }
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
