//! The one place where everything is wired together, started, changed and stopped.
//!
//! Pingora's proxy runs here without Pingora's `Server`: that one sleeps through its whole grace period even when
//! nothing is under way, and stays up serving nothing when a port cannot be bound. What it would do otherwise,
//! accepting connections and telling them to stop, is the front door's.

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

/// How long background work may take to end after it was told to.
const BACKGROUND_END: Duration = Duration::from_secs(1);

/// Reloads and upgrades that may wait for their turn.
const PROCESS_COMMANDS_MAX: usize = 4;

/// Why an edge did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("listen {address}: {}", sockets::bind_trouble(*address, source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
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
    /// A log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Traces cannot be sent.
    #[error("tracing.endpoint: {0}")]
    Tracing(String),
    /// No threads, or no signals.
    #[error("cannot create threads or signal handlers: {0}")]
    System(#[from] io::Error),
    /// It was told to stop before it had started.
    #[error("stopped before the start was complete")]
    Stopped,
    /// The process that it was to follow went on alone.
    #[error("upgrade aborted: the old process exited or cancelled the handover: {0}")]
    Follow(String),
    /// The public listeners ended without being told to.
    #[error("the public listeners ended unexpectedly; see the log lines above")]
    ListenersEnded,
}

/// Runs an edge until it is told to stop.
///
/// SIGTERM: it says that it is not ready and, after the shutdown delay, accepts no more connections; requests under way
/// are finished, and the edge ends as soon as they are, at the latest after the shutdown grace. SIGINT: it ends at
/// once. SIGHUP: `read` is asked for the configuration again. SIGUSR1: logs are opened again, for whoever has moved
/// them away. SIGUSR2: the program is started again, and when that one is ready, this one ends as by SIGTERM.
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

/// An edge at work.
pub(crate) struct Edge {
    /// Carries the public listeners and all requests.
    traffic: Runtime,
    /// Carries what must go on when traffic takes every thread, and must end after it.
    background: Runtime,
    signals: Signals,
    /// What the control listener was asked for.
    process_commands: mpsc::Receiver<ProcessCommand>,
    /// Open for as long as anybody may be accepted by this edge, or by one that follows.
    sockets: Option<Sockets>,
    service: Service,
    logs: Logs,
    public: Public,
    reloader: Reloader,
    control: ControlListener,
    /// It says that it is not ready.
    leaving: Arc<AtomicBool>,
    /// Another edge has taken its place.
    is_followed: bool,
    /// A ledger that no two edges can have at a time.
    embedded: Option<Arc<EmbeddedLedger>>,
    /// Tells the background to stop.
    shutdown: watch::Sender<bool>,
    /// Ends when the last delivery has given itself to other edges.
    deliveries: mpsc::Receiver<Infallible>,
    /// How long that may take: as long as one POST, and a little more.
    deliveries_end: Duration,
}

/// The control listener at work.
struct ControlListener {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Edge {
    /// Starts everything. `read` gives the configuration anew, for reloads.
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
                // Dropped as it is, the runtime would wait for a log that is still being read.
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
            // The supervisor hears of this process from the one that it follows.
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

    /// Waits for the end, and meanwhile reloads and upgrades as it is asked to.
    fn until_stopped(&mut self) -> Result<StopMode, StartError> {
        loop {
            let Self { traffic, signals, process_commands, public, .. } = self;
            let event = traffic.block_on(async {
                tokio::select! {
                    event = signals.next(process_commands) => Ok(event),
                    () = public.ended() => Err(StartError::ListenersEnded),
                }
            })?;
            // Whoever asked may have left; it is done all the same.
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

    /// Works by the configuration as it is now, if that is in order. If a signal stops the edge meanwhile, gives how
    /// instead.
    fn reload(&mut self) -> Result<Result<Report, String>, StopMode> {
        let Self { traffic, signals, reloader, .. } = self;
        let outcome = traffic.block_on(signals.unless_stopped(reloader.reload()))?;
        match &outcome {
            Ok(report) => log::info!("reloaded: {report}"),
            Err(errors) => log::error!("reload failed, nothing changed: {errors}"),
        }
        Ok(outcome)
    }

    /// Has another process follow this one: its number, or why it does not. If a signal stops the edge meanwhile, gives
    /// how instead.
    fn upgrade(&mut self) -> Result<Result<u32, String>, StopMode> {
        if std::process::id() == 1 {
            // Whatever it starts ends with it, and with the container.
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
                // Whoever connects waits at the socket, which stays open, until the next edge has the ledger.
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
        // Dropped, it ends the other process, so that the ledger is nobody's.
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

    /// Goes on after an upgrade that came to nothing.
    fn resume(&mut self) {
        self.take_ledger_back();
        if self.leaving.load(Ordering::Relaxed) {
            let sockets = self.sockets.as_ref().map_or(&[][..], |sockets| &sockets.public);
            let _within = self.traffic.enter();
            match Public::open(&self.service, sockets) {
                Ok(public) => self.public = public,
                // The listeners that were closed have ended, which ends the edge.
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

    /// Says that it is not ready, and goes on as usual for as long as others need to hear it. Another signal makes that
    /// shorter: it says how to end then.
    fn leave(&mut self) -> StopMode {
        if self.is_followed {
            // The one that follows is asked now, and says that it is ready.
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

    /// Stops accepting, and waits until all connections are gone or `grace` is over, and the deliveries have ended the
    /// POST under way; not after SIGINT.
    pub(crate) fn finish(&mut self, grace: Duration) {
        log::info!("stopping: waiting up to {grace:?} for requests under way");
        self.leaving.store(true, Ordering::Relaxed);
        if self.is_followed {
            // Its sockets are another's now; whoever asks there is answered by that one.
            self.control.close(&self.traffic);
        }
        self.public.close();
        self.sockets = None;
        // Nobody listening any more is as good.
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

    /// Cuts what is left.
    pub(crate) fn end(self) {
        let _ = self.shutdown.send(true);
        self.traffic.shutdown_background();
        trace::end(BACKGROUND_END);
        self.logs.flush(BACKGROUND_END);
        self.background.shutdown_timeout(BACKGROUND_END);
    }
}

/// Opens the ledger and every sale, when it is this edge's turn.
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

    /// Accepts nothing more, and gives what is under way a little time.
    fn close(&mut self, runtime: &Runtime) {
        let _ = self.stop.send(true);
        if !self.task.is_finished() {
            // What takes longer is cut with the rest.
            let _ = runtime.block_on(async { timeout(BACKGROUND_END, &mut self.task).await });
        }
    }
}

/// Tells systemd, if it is the supervisor and wants to know (`Type=notify`).
fn tell_supervisor(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("cannot notify systemd: {error}");
    }
}
