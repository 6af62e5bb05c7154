//! Wires everything together; starts, changes and stops the edge.
//!
//! Pingora's proxy runs here without Pingora's `Server`, which sleeps through its whole grace period even when nothing
//! is under way and keeps running without service when a port cannot be bound. The front door does the rest of its
//! work: it accepts connections and stops them.

mod public;
mod reloader;
mod signals;
mod sockets;
mod startup;
mod upgrade;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::public::{Public, Service};
pub use self::reloader::Read;
use self::reloader::{Reloader, allowed};
use self::signals::{Event, Signals, StopMode};
use self::sockets::Sockets;
use self::startup::{Opened, deliver, open_shop, poster, secret_of};
use self::upgrade::{Predecessor, Successor, Turn};
use crate::auth::secret::SecretError;
use crate::config::Config;
use crate::config::reload::Report;
use crate::control::logs::{self, LogError, Logs};
use crate::control::process;
use crate::control::{self, Control, ProcessCommand};
use crate::delivery::Poster;
use crate::ledger::LedgerError;
use crate::limits::Limits;
use crate::observe::telemetry::Codes;
use crate::observe::trace;
use crate::stores::embedded::EmbeddedLedger;
use crate::traffic::entrance::Entrance;
use crate::traffic::rules::{BuildError, Rules};
use crate::upstream::Upstream;

/// How long background work may take to end after it was told to stop.
const BACKGROUND_END: Duration = Duration::from_secs(1);

/// The most reloads and upgrades that may wait.
const PROCESS_COMMANDS_MAX: usize = 4;

/// Why an edge did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Cannot listen on an address.
    #[error("listen {address}: {}", sockets::bind_trouble(*address, source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// Something that the settings name cannot be used.
    #[error(transparent)]
    Rules(#[from] BuildError),
    /// The ledger cannot be opened.
    #[error("cannot open the ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// A sale cannot be opened.
    #[error("sales.{sale}: the ledger cannot open the sale: {source}")]
    Sale {
        /// Its id.
        sale: String,
        /// What the ledger said.
        source: LedgerError,
    },
    /// The delivery secret cannot be used.
    #[error("delivery.secret_file: {path}: {source}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SecretError,
    },
    /// Cannot write a stat log.
    #[error("sales.{sale}.stat_log: {path}: {source}")]
    StatLog {
        /// The sale's id.
        sale: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Cannot write a log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Cannot send traces.
    #[error("tracing.endpoint: {0}")]
    Tracing(String),
    /// Cannot create threads or signal handlers.
    #[error("cannot create threads or signal handlers: {0}")]
    System(#[from] io::Error),
    /// A signal came before the start was complete.
    #[error("stopped before the start was complete")]
    Stopped,
    /// The old process continued without this one.
    #[error("upgrade aborted: the old process exited or cancelled the handover: {0}")]
    Follow(String),
    /// The public listeners ended unexpectedly.
    #[error("the public listeners ended unexpectedly; see the log lines above")]
    ListenersEnded,
}

/// Runs an edge until it is told to stop.
///
/// SIGTERM: report not ready and, after the shutdown delay, accept no more connections; finish requests under way and
/// stop as soon as they are done, at the latest after the shutdown grace. SIGINT: stop at once. SIGHUP: reload the
/// configuration through `read`. SIGUSR1: reopen the logs after rotation. SIGUSR2: start the program again; once the
/// new process is ready, stop as with SIGTERM.
///
/// # Errors
///
/// If the edge cannot start, or its listeners fail later.
pub fn run(config: Config, read: Read) -> Result<(), StartError> {
    logs::begin(&config.error_log)?;
    let mut edge = Edge::start(config, read)?;
    if edge.until_stopped()? == StopMode::Graceful && edge.leave() == StopMode::Graceful {
        edge.finish(edge.grace());
    } else {
        log::info!("stopping at once");
    }
    edge.end();
    Ok(())
}

/// A running edge.
pub(crate) struct Edge {
    /// Runs the public listeners and all requests.
    traffic: Runtime,
    /// Runs what must continue when traffic occupies every thread, and must end after it.
    background: Runtime,
    signals: Signals,
    /// Commands from the control listener.
    process_commands: mpsc::Receiver<ProcessCommand>,
    /// Open as long as this edge or its successor may accept connections.
    sockets: Option<Sockets>,
    service: Service,
    logs: Logs,
    public: Public,
    reloader: Reloader,
    control: ControlListener,
    /// True once the edge reports not ready.
    leaving: Arc<AtomicBool>,
    /// True once another process has taken over.
    is_followed: bool,
    /// A ledger that only one process can have open.
    embedded: Option<Arc<EmbeddedLedger>>,
    /// Stops the background work.
    shutdown: watch::Sender<bool>,
    /// Closed when the last delivery has given up its lease.
    deliveries: mpsc::Receiver<Infallible>,
    /// How long that may take: one POST and a little more.
    deliveries_end: Duration,
}

/// The running control listener.
struct ControlListener {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Edge {
    /// Starts everything. `read` reads the configuration for reloads.
    pub(crate) fn start(config: Config, read: Read) -> Result<Self, StartError> {
        process::begin();
        if let Some(settings) = &config.tracing {
            trace::begin(settings).map_err(StartError::Tracing)?;
        }
        let met = Predecessor::meet().map_err(|error| StartError::Follow(error.to_string()))?;
        let (predecessor, inherited) = met.unzip();
        let sockets = Sockets::open(&config, inherited.unwrap_or_default())?;
        let upstreams: Vec<_> = config.upstreams.iter().cloned().map(Upstream::new).map(Arc::new).collect();
        let rules = Arc::new(ArcSwap::from_pointee(Rules::new(&config, &upstreams, None)?));
        let secret = config.delivery.as_ref().map(secret_of).transpose()?;
        let access_log = config.access_log.as_ref().map(logs::open).transpose()?;

        let background =
            Builder::new_multi_thread().worker_threads(1).thread_name("background").enable_all().build()?;
        let traffic =
            Builder::new_multi_thread().worker_threads(config.threads).thread_name("traffic").enable_all().build()?;
        let mut signals = traffic.block_on(async { Signals::catch() })?;

        let poster = poster(&config, secret, &upstreams);
        let opening = open_in_turn(predecessor, &background, config.clone(), poster);
        let opened = traffic.block_on(async { signals.unless_stopped(opening).await });
        let (opened, turn) = match opened.unwrap_or(Err(StartError::Stopped)) {
            Ok(opened) => opened,
            Err(error) => {
                // A plain drop of the runtime would wait for a log that is still being read.
                background.shutdown_background();
                return Err(error);
            }
        };
        let Opened { shop, keeper, embedded, deliveries } = opened;
        let limits = Arc::new(Limits::new(&allowed(&config.limits)));
        let answers = Arc::new(Codes::default());
        let logs = Logs::new(access_log.clone(), Arc::clone(&shop));
        let leaving = Arc::new(AtomicBool::new(false));
        let (command, process_commands) = mpsc::channel(PROCESS_COMMANDS_MAX);
        let control = Control {
            shop: Arc::clone(&shop),
            rules: Arc::clone(&rules),
            deliveries: deliveries.clone(),
            limits: Arc::clone(&limits),
            answers: Arc::clone(&answers),
            logs: logs.clone(),
            keeper,
            leaving: Arc::clone(&leaving),
            process_commands: command,
        };
        // Background work begins here; each that has something to end gets a copy of `stop`.
        let control = ControlListener::open(&background, sockets.control.try_clone()?, control);
        let (shutdown, stop) = watch::channel(false);
        let (delivers, deliveries_ended) = mpsc::channel(1);
        for delivery in deliveries {
            background.spawn(deliver(delivery, stop.clone(), delivers.clone()));
        }
        let deliveries_end =
            config.delivery.as_ref().map_or(Duration::ZERO, |delivery| delivery.timeout + BACKGROUND_END);

        let ids = config.request_id.clone();
        let entrance = Arc::new(Entrance::new(Arc::clone(&limits), answers, access_log, ids));
        let service = Service { shop: Arc::clone(&shop), rules: Arc::clone(&rules), entrance, threads: config.threads };
        let public = {
            let _within = traffic.enter();
            Public::open(&service, &sockets.public)?
        };
        let addresses: Vec<_> = config.listen.iter().map(|listener| listener.address.to_string()).collect();
        log::info!("ready: listening on {}; control on {}", addresses.join(", "), config.control.listen);
        match turn {
            // systemd learns of this process from the old one.
            Some(turn) => traffic.block_on(turn.ready()),
            None => tell_supervisor(&[NotifyState::Ready]),
        }
        let handle = background.handle().clone();
        let reloader = Reloader::new(read, config, upstreams, rules, limits, shop, handle, stop);
        Ok(Self {
            traffic,
            background,
            signals,
            process_commands,
            sockets: Some(sockets),
            service,
            logs,
            public,
            reloader,
            control,
            leaving,
            is_followed: false,
            embedded,
            shutdown,
            deliveries: deliveries_ended,
            deliveries_end,
        })
    }

    /// Waits for the end; meanwhile performs reloads and upgrades.
    fn until_stopped(&mut self) -> Result<StopMode, StartError> {
        loop {
            let Self { traffic, signals, process_commands, public, .. } = self;
            let event = traffic.block_on(async {
                tokio::select! {
                    event = signals.next(process_commands) => Ok(event),
                    () = public.ended() => Err(StartError::ListenersEnded),
                }
            })?;
            // The caller may be gone; the command is performed all the same.
            match event {
                Event::End(mode) => return Ok(mode),
                Event::Reopen => self.logs.reopen(),
                Event::ProcessCommand(ProcessCommand::Reload(asked)) => match self.reload() {
                    Ok(outcome) => drop(asked.map(|asked| asked.send(outcome))),
                    Err(mode) => return Ok(mode),
                },
                Event::ProcessCommand(ProcessCommand::Upgrade(asked)) => match self.upgrade() {
                    Ok(outcome) => {
                        let is_followed = outcome.is_ok();
                        drop(asked.map(|asked| asked.send(outcome)));
                        if is_followed {
                            return Ok(StopMode::Graceful);
                        }
                    }
                    Err(mode) => return Ok(mode),
                },
            }
        }
    }

    /// Reloads the configuration if it has no error. If a signal stops the edge meanwhile, returns the stop mode.
    fn reload(&mut self) -> Result<Result<Report, String>, StopMode> {
        let Self { traffic, signals, reloader, .. } = self;
        let outcome = traffic.block_on(signals.unless_stopped(reloader.reload()))?;
        match &outcome {
            Ok(report) => log::info!("reloaded: {report}"),
            Err(errors) => log::error!("reload failed, nothing changed: {errors}"),
        }
        Ok(outcome)
    }

    /// Starts a new process and hands over to it; returns its process id, or why it failed. If a signal stops the edge
    /// meanwhile, returns the stop mode.
    fn upgrade(&mut self) -> Result<Result<u32, String>, StopMode> {
        if std::process::id() == 1 {
            // As process 1, everything it starts ends with it, and with the container.
            let why = "an edge that is process 1 of a container cannot be followed: start a new container beside it";
            log::error!("upgrade failed: {why}");
            return Ok(Err(why.to_owned()));
        }
        log::info!("upgrading: starting the new process");
        let grace = self.grace();
        let Self { traffic, signals, sockets, public, embedded, leaving, .. } = self;
        let handing_over = async {
            let sockets = sockets.as_ref().map(Sockets::all).unwrap_or_default();
            let mut next = Successor::start(&sockets).map_err(|error| format!("it cannot be started: {error}"))?;
            next.checked().await?;
            if let Some(ledger) = embedded {
                // New connections wait at the socket, which stays open, until the next edge has the ledger.
                leaving.store(true, Ordering::Relaxed);
                public.close();
                if !public.gone(grace).await {
                    log::warn!("handing over while requests are still under way");
                }
                ledger.give_away().await.map_err(|error| error.to_string())?;
            }
            next.go().await?;
            let id = next.id();
            next.let_go();
            Ok::<_, String>(id)
        };
        // Dropping it ends the new process, so that no process has the ledger.
        let outcome = traffic.block_on(signals.unless_stopped(handing_over));
        match &outcome {
            Ok(Ok(id)) => {
                log::info!("upgrade complete: process {id} has taken over");
                self.is_followed = true;
                tell_supervisor(&[NotifyState::MainPid(*id)]);
            }
            Ok(Err(why)) => {
                log::error!("upgrade failed, this process continues: {why}");
                self.resume();
            }
            Err(_) => self.take_ledger_back(),
        }
        outcome
    }

    /// Continues after a failed upgrade.
    fn resume(&mut self) {
        self.take_ledger_back();
        if self.leaving.load(Ordering::Relaxed) {
            let sockets = self.sockets.as_ref().map_or(&[][..], |sockets| &sockets.public);
            let _within = self.traffic.enter();
            match Public::open(&self.service, sockets) {
                Ok(public) => self.public = public,
                // The closed listeners have ended, which ends the edge.
                Err(error) => log::error!("cannot reopen the public listeners: {error}"),
            }
            self.leaving.store(false, Ordering::Relaxed);
        }
    }

    fn take_ledger_back(&self) {
        if let Some(ledger) = &self.embedded
            && let Err(error) = self.traffic.block_on(ledger.take_back())
        {
            log::error!("cannot reopen the ledger yet: {error}");
        }
    }

    fn grace(&self) -> Duration {
        self.reloader.config().shutdown_grace
    }

    /// Reports not ready and continues to serve for `shutdown.delay`. Another signal shortens the delay and decides the
    /// stop mode.
    fn leave(&mut self) -> StopMode {
        if self.is_followed {
            // The new process answers readiness checks now.
            return StopMode::Graceful;
        }
        self.leaving.store(true, Ordering::Relaxed);
        tell_supervisor(&[NotifyState::Stopping]);
        let delay = self.reloader.config().shutdown_delay;
        if delay.is_zero() {
            return StopMode::Graceful;
        }
        log::info!("no longer ready; stopping in {delay:?}");
        self.traffic
            .block_on(async { self.signals.unless_stopped(sleep(delay)).await })
            .err()
            .unwrap_or(StopMode::Graceful)
    }

    /// Stops accepting; waits until all connections are gone or `grace` is over, and until the deliveries have finished
    /// the POST under way. SIGINT ends the wait.
    pub(crate) fn finish(&mut self, grace: Duration) {
        log::info!("stopping: waiting up to {grace:?} for requests under way");
        self.leaving.store(true, Ordering::Relaxed);
        if self.is_followed {
            // The new process has the sockets and answers new connections.
            self.control.close(&self.traffic);
        }
        self.public.close();
        self.sockets = None;
        // It does not matter if no task listens any more.
        let _ = self.shutdown.send(true);
        let Self { traffic, signals, public, deliveries, deliveries_end, .. } = self;
        let gone = async { tokio::join!(public.gone(grace), timeout(*deliveries_end, deliveries.recv())) };
        traffic.block_on(async {
            tokio::select! {
                (are_gone, _deliveries) = gone => match are_gone {
                    true => log::info!("stopped"),
                    false => log::warn!("stopped with requests still under way"),
                },
                _ = signals.interrupt.recv() => log::info!("stopped at once"),
            }
        });
        self.control.close(&self.traffic);
    }

    /// Ends everything that is left.
    pub(crate) fn end(self) {
        let _ = self.shutdown.send(true);
        self.traffic.shutdown_background();
        trace::end(BACKGROUND_END);
        self.logs.flush(BACKGROUND_END);
        self.background.shutdown_timeout(BACKGROUND_END);
    }
}

/// Opens the ledger and every sale, once the old process has closed them.
async fn open_in_turn(
    predecessor: Option<Predecessor>,
    background: &Runtime,
    config: Config,
    poster: Option<Arc<Poster>>,
) -> Result<(Opened, Option<Turn>), StartError> {
    let turn = match predecessor {
        Some(predecessor) => Some(predecessor.turn().await?),
        None => None,
    };
    let opened = background.spawn(async move { open_shop(&config, poster).await });
    Ok((opened.await.map_err(io::Error::other)??, turn))
}

impl ControlListener {
    fn open(background: &Runtime, socket: TcpListener, control: Control) -> Self {
        let (stop, mut stopping) = watch::channel(false);
        let task = background.spawn(async move {
            let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
            let ended = match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => axum::serve(socket, control::router(control)).with_graceful_shutdown(stopped).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                log::error!("the control listener ended: {error}");
            }
        });
        Self { task, stop }
    }

    /// Accepts no more calls and gives those under way a little time.
    fn close(&mut self, runtime: &Runtime) {
        let _ = self.stop.send(true);
        if !self.task.is_finished() {
            // Calls that take longer are cut off.
            let _ = runtime.block_on(async { timeout(BACKGROUND_END, &mut self.task).await });
        }
    }
}

/// Notifies systemd if it is the supervisor and expects it (`Type=notify`).
fn tell_supervisor(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("cannot notify systemd: {error}");
    }
}
