//! The public listeners: opened, closed, and reopened after a failed upgrade.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use pingora::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::sale::shop::Shop;
use crate::traffic::entrance::Entrance;
use crate::traffic::front::{Front, Listener};
use crate::traffic::proxy::{MAX_TRIES, Proxy};
use crate::traffic::rules::Current;

/// Idle connections to backends that are kept, over all upstreams. More than the requests usually under way: every
/// connection beyond is opened and closed for a single request.
const IDLE_CONNECTIONS: usize = 1024;

/// What requests need.
pub struct Service {
    pub shop: Arc<Shop>,
    pub rules: Current,
    pub entrance: Arc<Entrance>,
    pub threads: usize,
}

/// The open public listeners.
pub struct Public {
    listeners: JoinHandle<()>,
    shutdown: watch::Sender<bool>,
    /// Closed when the last connection is gone.
    connections: mpsc::Receiver<Infallible>,
}

impl Public {
    /// Starts to accept connections, on the present runtime. The sockets stay open when this ends.
    ///
    /// # Errors
    /// If the system has no room to watch a socket.
    pub fn open(service: &Service, sockets: &[TcpListener]) -> io::Result<Self> {
        let Service { shop, rules, entrance, threads } = service;
        let (shutdown, stop) = watch::channel(false);
        let (alive, connections) = mpsc::channel(1);
        let proxy = Proxy::new(Arc::clone(shop), Arc::clone(rules), Arc::clone(entrance), alive);
        let proxy = http_proxy(&Arc::new(conf(*threads)), proxy);
        let front = Front::new(Arc::clone(shop), proxy, Arc::clone(entrance), Arc::clone(rules), stop);
        let listening = sockets.iter().map(|socket| Listener::new(socket.try_clone()?)).collect::<io::Result<_>>()?;
        Ok(Self { listeners: tokio::spawn(front.serve(listening)), shutdown, connections })
    }

    /// Waits for the end of the listeners; they end only if they fail or are closed.
    pub async fn ended(&mut self) {
        // Whether they failed or were closed, they are gone.
        let _ = (&mut self.listeners).await;
    }

    /// Stops accepting; every connection ends with its next answer.
    pub fn close(&self) {
        // It does not matter if no task listens any more.
        let _ = self.shutdown.send(true);
    }

    /// Waits for the last connection of closed listeners, at most for `grace`; returns whether it is gone.
    pub async fn gone(&mut self, grace: Duration) -> bool {
        timeout(grace, self.connections.recv()).await.is_ok()
    }
}

/// Settings for Pingora. The others concern its `Server`, which is not used.
fn conf(threads: usize) -> ServerConf {
    ServerConf {
        threads,
        upstream_keepalive_pool_size: IDLE_CONNECTIONS,
        // Only a guard: the proxy decides how often a request is tried.
        max_retries: 2 * MAX_TRIES,
        ..ServerConf::default()
    }
}
