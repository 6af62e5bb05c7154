//! The front door: reads the head of every request, answers what [`Shop`] can answer, and lends all else to Pingora.
//!
//! Pingora's way costs several microseconds and tens of kilobytes a connection before any code of ours runs; a refusal
//! needs neither. So connections are accepted here. A request that is beyond doubt, without a body, and for a place of
//! the shop is answered at once ([`head`] says what is beyond doubt, [`render`] writes it). For any other request the
//! connection is lent to Pingora ([`loaned_stream`]) and comes back for the next one. What waits costs next to nothing:
//! a [`connection`] between two requests holds no buffer.
//!
//! The two ways give the same answers, byte for byte; a test compares them.

mod connection;
mod flood;
mod handshake;
pub(crate) mod head;
mod http2;
mod loaned_stream;
mod logged_request;
pub(crate) mod proxy_protocol;
mod redirect;
mod render;
mod stream;
mod wait;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use self::stream::Listener;

use self::connection::Connection;
use self::logged_request::LoggedRequest;
use self::stream::Stream;
use self::wire::Wire;
use crate::observe::error_log::throttle::Throttle;
use crate::sale::shop::Shop;
use crate::traffic::entrance::Entrance;
use crate::traffic::proxy::Proxy;
use crate::traffic::rules::Current;

/// How long nothing is accepted after the system refused a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The door of an edge. Every connection holds it, and with it the proxy.
pub struct Front {
    shop: Arc<Shop>,
    proxy: Arc<HttpProxy<Proxy>>,
    entrance: Arc<Entrance>,
    rules: Current,
    /// PROXY headers that were none.
    header_log: Throttle,
    /// What Pingora looks at when it is lent a connection.
    shutdown: ShutdownWatch,
    /// The same for connections that are here, which look at it after every request.
    stopping: AtomicBool,
    stop: Notify,
}

impl Front {
    /// A door to `shop`, and to `proxy` behind it, for those whom `entrance` lets in by the `rules`. `shutdown` becomes
    /// true when the edge has to stop.
    #[must_use]
    pub fn new(
        shop: Arc<Shop>,
        proxy: HttpProxy<Proxy>,
        entrance: Arc<Entrance>,
        rules: Current,
        shutdown: ShutdownWatch,
    ) -> Self {
        let proxy = Arc::new(proxy);
        let (stopping, stop) = (AtomicBool::new(false), Notify::new());
        Self { shop, proxy, entrance, rules, header_log: Throttle::default(), shutdown, stopping, stop }
    }

    /// Serves `listeners` until told to stop; each has its [`Door`] among the rules, in the same order. Connections
    /// under way are then left to finish their requests, and those between two of them to send one more; see
    /// [`Rules::farewell`].
    ///
    /// [`Door`]: super::door::Door
    /// [`Rules::farewell`]: crate::traffic::rules::Rules::farewell
    pub async fn serve(self, listeners: Vec<Listener>) {
        let front = Arc::new(self);
        let mut open = JoinSet::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            open.spawn(Arc::clone(&front).accept(listener, index));
        }
        while open.join_next().await.is_some() {}
        // Release, so that whoever is woken sees it.
        front.stopping.store(true, Ordering::Release);
        front.stop.notify_waiters();
    }

    async fn accept(self: Arc<Self>, listener: Listener, index: usize) {
        let mut shutdown = self.shutdown.clone();
        let mut shutdown = pin!(shutdown.wait_for(|stop| *stop));
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut shutdown => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.welcome(index, stream, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    log::error!("cannot accept connections: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes a connection on that came to this listener, if the limits allow it.
    fn welcome(self: &Arc<Self>, index: usize, stream: Stream, peer: SocketAddr) {
        let rules = self.rules.load();
        let door = &rules.doors[index];
        // Who names the client counts for itself only in all.
        let known = (!door.asks_for_header(peer.ip())).then_some(peer.ip());
        let Some(admitted) = self.entrance.admit(&rules, known) else { return stream.reset() };
        let (front, door) = (Arc::clone(self), Arc::clone(door));
        if door.is_open(peer.ip()) {
            drop(tokio::spawn(Connection::new(front, door, Wire::Plain(stream), peer, admitted).run()));
        } else {
            drop(tokio::spawn(handshake::run(door, front, stream, peer, admitted)));
        }
    }

    /// The id of a request as answers carry it.
    fn id_of<'a>(&'a self, logged: Option<&'a LoggedRequest<'_>>) -> Option<render::Id<'a>> {
        Some((self.entrance.id_header()?.sent.as_str(), logged?.id.as_ref()?))
    }

    /// Waits until the edge stops.
    async fn stopped(&self) {
        let mut stop = pin!(self.stop.notified());
        // Registered first, so that nothing can be missed in between.
        stop.as_mut().enable();
        if !self.is_stopping() {
            stop.await;
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
