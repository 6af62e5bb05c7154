//! The front door: reads the head of every request, answers what [`Shop`] can answer, and lends all other connections
//! to Pingora.
//!
//! Pingora spends several microseconds and tens of kilobytes per connection before it calls our code; a refusal needs
//! neither. The front door therefore accepts connections itself. It answers a request at once if the request is
//! unambiguous ([`head`] defines this), has no body and addresses an endpoint of the shop ([`render`] writes the
//! answer). For any other request it lends the connection to Pingora ([`loaned_stream`]), which returns it for the next
//! request. Idle connections are cheap: a [`connection`] between two requests holds no buffer.
//!
//! Both paths give the same answers, byte for byte; a test compares them.

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

/// How long accepting pauses after the system refused a connection, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The front door of an edge. Every connection holds a reference to it, and so to the proxy.
pub struct Front {
    shop: Arc<Shop>,
    proxy: Arc<HttpProxy<Proxy>>,
    entrance: Arc<Entrance>,
    rules: Current,
    /// Limits the log lines about invalid PROXY headers.
    header_log: Throttle,
    /// The shutdown signal for Pingora while it holds a connection.
    shutdown: ShutdownWatch,
    /// The same signal for connections held here, which check it after every request.
    stopping: AtomicBool,
    stop: Notify,
}

impl Front {
    /// Creates the front door of `shop` and `proxy`. `entrance` and `rules` decide which clients are admitted.
    /// `shutdown` becomes true when the edge must stop.
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

    /// Serves `listeners` until shutdown; the doors in the rules have the same order. On shutdown, connections
    /// finish their current request, and idle ones may send one more; see [`Rules::farewell`].
    ///
    /// [`Rules::farewell`]: crate::traffic::rules::Rules::farewell
    pub async fn serve(self, listeners: Vec<Listener>) {
        let front = Arc::new(self);
        let mut open = JoinSet::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            open.spawn(Arc::clone(&front).accept(listener, index));
        }
        while open.join_next().await.is_some() {}
        // Release, so that a woken connection sees the flag.
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

    /// Serves a connection accepted on this listener, if the limits allow it.
    fn welcome(self: &Arc<Self>, index: usize, stream: Stream, peer: SocketAddr) {
        let rules = self.rules.load();
        let door = &rules.doors[index];
        // A peer that names its client in a PROXY header counts only towards the total.
        let known = (!door.asks_for_header(peer.ip())).then_some(peer.ip());
        let Some(admitted) = self.entrance.admit(&rules, known) else { return stream.reset() };
        let (front, door) = (Arc::clone(self), Arc::clone(door));
        if door.is_open(peer.ip()) {
            drop(tokio::spawn(Connection::new(front, door, Wire::Plain(stream), peer, admitted).run()));
        } else {
            drop(tokio::spawn(handshake::run(door, front, stream, peer, admitted)));
        }
    }

    /// The request ID as a header field of answers.
    fn id_of<'a>(&'a self, logged: Option<&'a LoggedRequest<'_>>) -> Option<render::Id<'a>> {
        Some((self.entrance.id_header()?.sent.as_str(), logged?.id.as_ref()?))
    }

    /// Waits until the edge stops.
    async fn stopped(&self) {
        let mut stop = pin!(self.stop.notified());
        // Registered first, or a notification in between would be missed.
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

/// Whether the error concerns only the connection being accepted, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
