//! A network that fails on demand: a TCP relay in front of one address, with threads of its own.
//!
//! It passes bytes both ways. While replies are held, requests still arrive at the target and are carried out, and what
//! it answers waits in the relay: the case in which nobody can know from outside whether a step was done.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Default)]
struct State {
    holds_replies: bool,
    ended: bool,
    /// Both streams of every connection, to be torn.
    streams: Vec<TcpStream>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub struct Network {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Network {
    /// A way to `target`.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let listener = std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if own.state.lock().unwrap().ended {
                    return;
                }
                relay(&own, client, target);
            }
        });
        Self { address, shared, listener: Some(listener) }
    }

    /// Where its near end listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on requests pass and replies wait.
    pub fn hold_replies(&self) {
        self.shared.state.lock().unwrap().holds_replies = true;
    }

    /// Lets everything pass again, what was held first.
    pub fn release(&self) {
        self.shared.state.lock().unwrap().holds_replies = false;
        self.shared.changed.notify_all();
    }

    /// Tears all connections, with what is held on them; new ones can be made.
    pub fn cut(&self) {
        let mut state = self.shared.state.lock().unwrap();
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().ended = true;
        self.cut();
        // The listener is waiting for a client; this is its last.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn relay(shared: &Arc<Shared>, client: TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let copy = |stream: &TcpStream| stream.try_clone().unwrap();
    shared.state.lock().unwrap().streams.extend([copy(&client), copy(&server)]);
    let (from, to) = (copy(&client), copy(&server));
    std::thread::spawn(move || pass(from, to, || {}));
    let shared = Arc::clone(shared);
    std::thread::spawn(move || pass(server, client, || wait_while_held(&shared)));
}

fn wait_while_held(shared: &Shared) {
    let mut state = shared.state.lock().unwrap();
    while state.holds_replies && !state.ended {
        state = shared.changed.wait(state).unwrap();
    }
}

/// Passes bytes one way until either end is closed; `before` is called with bytes in hand.
fn pass(mut from: TcpStream, mut to: TcpStream, before: impl Fn()) {
    let mut piece = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        before();
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
