//! The front door: reads the head of every request, answers what [`Shop`] can answer, and lends all else to Pingora.
//!
//! Pingora's way costs several microseconds and tens of kilobytes a connection before any code of ours runs; a refusal
//! needs neither. So connections are accepted here. A request that is beyond doubt, without a body, and for a place of
//! the shop is answered at once ([`head`] says what is beyond doubt, [`render`] writes it). For any other request the
//! connection is lent to Pingora ([`lent`]) and comes back for the next one. What waits costs next to nothing: a
//! [`connection`] between two requests holds no buffer.
//!
//! The two ways give the same answers, byte for byte; a test compares them.

mod connection;
mod head;
mod lent;
mod render;
mod wait;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::connection::Connection;
use crate::config::ClientTimeouts;
use crate::proxy::Proxy;
use crate::shop::Shop;

/// How long nothing is accepted after the system refused a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The door of an edge. Every connection holds it, and with it the proxy.
pub struct Front {
    shop: Arc<Shop>,
    proxy: Arc<HttpProxy<Proxy>>,
    client: ClientTimeouts,
    /// What Pingora looks at when it is lent a connection.
    told: ShutdownWatch,
    /// The same for connections that are here, which look at it after every request.
    stopping: AtomicBool,
    stop: Notify,
}

impl Front {
    /// A door to `shop`, and to `proxy` behind it. `told` becomes true when the edge has to stop.
    #[must_use]
    pub fn new(shop: Arc<Shop>, proxy: HttpProxy<Proxy>, client: ClientTimeouts, told: ShutdownWatch) -> Self {
        let proxy = Arc::new(proxy);
        Self { shop, proxy, client, told, stopping: AtomicBool::new(false), stop: Notify::new() }
    }

    /// Serves `listeners` until told to stop. Connections under way are then left to finish their requests.
    pub async fn serve(self, listeners: Vec<TcpListener>) {
        let front = Arc::new(self);
        let mut open = JoinSet::new();
        for listener in listeners {
            open.spawn(Arc::clone(&front).accept(listener));
        }
        while open.join_next().await.is_some() {}
        // Release, so that whoever is woken sees it.
        front.stopping.store(true, Ordering::Release);
        front.stop.notify_waiters();
        front.proxy.http_cleanup().await;
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut told = self.told.clone();
        let mut told = pin!(told.wait_for(|stop| *stop));
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut told => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => drop(tokio::spawn(Connection::new(Arc::clone(&self), stream, peer).run())),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    log::error!("no connection can be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Whether connections are closed after the present request.
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Whether only the connection that was to be accepted is gone.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
