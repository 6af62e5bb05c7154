//! A network that fails on demand: a TCP relay in front of one address, with threads of its own.
//!
//! It passes bytes both ways, each way as its [`Passage`] says. TCP never loses bytes from the middle of a stream, so
//! this relay does not either: after a loss, it passes nothing more on that connection in that direction, and it closes
//! the connection when the network is well again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

/// How bytes pass one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passage {
    #[default]
    Free,
    /// They wait here, and arrive once the way is free. While replies are held, requests are carried out all the same:
    /// the case in which the client cannot know whether a step was done.
    Held,
    /// They never arrive.
    Lost,
    /// Each piece is late by up to so much.
    Slow(Duration),
    /// Each byte has a packet of its own.
    ByteByByte,
}

/// What ends connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Both ends get an orderly close.
    Close,
    /// Both ends get a reset.
    Reset,
    /// Only the target gets a close.
    HideFromClient,
    /// Only the client gets a close.
    HideFromTarget,
}

#[derive(Default)]
struct State {
    requests: Passage,
    replies: Passage,
    /// New connections are closed at once.
    refuses: bool,
    /// Requests of connections that were made before the one of this number wait.
    stalled_before: u64,
    /// How many connections were made.
    made: u64,
    ended: bool,
    /// Where new connections lead, if not to where the first ones did.
    target: Option<SocketAddr>,
    lines: Vec<Weak<Line>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Of the delays; grows with each.
    dice: AtomicU64,
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
                let (ended, refuses, target) = {
                    let state = own.state.lock().unwrap();
                    (state.ended, state.refuses, state.target.unwrap_or(target))
                };
                if ended {
                    return;
                }
                if !refuses {
                    relay(&own, client, target);
                }
            }
        });
        Self { address, shared, listener: Some(listener) }
    }

    /// Redis, by this way.
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on bytes pass like this. What was held is let go first, and connections that lost something are torn.
    pub fn passes(&self, requests: Passage, replies: Passage) {
        let lossy: Vec<Arc<Line>> = {
            let mut state = self.shared.state.lock().unwrap();
            (state.requests, state.replies, state.stalled_before) = (requests, replies, 0);
            state.lines.iter().filter_map(Weak::upgrade).filter(|line| line.is_lossy()).collect()
        };
        self.shared.changed.notify_all();
        for line in lossy {
            line.tear(Tear::Reset);
        }
    }

    /// From now on the requests of the connections that there are wait; on new ones everything passes.
    pub fn stall(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.stalled_before = state.made;
    }

    /// From now on requests pass and replies wait.
    pub fn hold_replies(&self) {
        self.passes(Passage::Free, Passage::Held);
    }

    /// Lets everything pass again, what was held first.
    pub fn release(&self) {
        self.refuse(false);
        self.passes(Passage::Free, Passage::Free);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuses: bool) {
        self.shared.state.lock().unwrap().refuses = refuses;
    }

    /// Tears all connections; new ones lead to `target`.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.state.lock().unwrap().target = Some(target);
        self.cut();
    }

    /// Tears all connections, with what is held on them; new ones can be made.
    pub fn cut(&self) {
        self.tear(Tear::Close);
    }

    /// The same, in a way of one's choice.
    pub fn tear(&self, how: Tear) {
        let lines = std::mem::take(&mut self.shared.state.lock().unwrap().lines);
        for line in lines.iter().filter_map(Weak::upgrade) {
            line.tear(how);
            if matches!(how, Tear::HideFromClient | Tear::HideFromTarget) {
                // One end still believes in it, and it is ended with the network.
                self.shared.state.lock().unwrap().lines.push(Arc::downgrade(&line));
            }
        }
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

/// One connection, from end to end.
struct Line {
    number: u64,
    client: TcpStream,
    server: TcpStream,
    lost_requests: AtomicBool,
    lost_replies: AtomicBool,
    torn: AtomicBool,
}

impl Line {
    fn is_lossy(&self) -> bool {
        self.lost_requests.load(Ordering::Relaxed) || self.lost_replies.load(Ordering::Relaxed)
    }

    fn tear(&self, how: Tear) {
        let ends = [&self.client, &self.server];
        match how {
            Tear::Close => ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both))),
            Tear::Reset => {
                self.torn.store(true, Ordering::Relaxed);
                for end in ends {
                    // Its last handle closes it without a word but a reset; until then, whoever reads from it stops.
                    let _ = SockRef::from(end).set_linger(Some(Duration::ZERO));
                    let _ = end.shutdown(Shutdown::Read);
                }
            }
            Tear::HideFromClient => {
                self.lost_requests.store(true, Ordering::Relaxed);
                self.torn.store(true, Ordering::Relaxed);
                let _ = self.server.shutdown(Shutdown::Both);
            }
            Tear::HideFromTarget => {
                self.lost_replies.store(true, Ordering::Relaxed);
                self.torn.store(true, Ordering::Relaxed);
                let _ = self.client.shutdown(Shutdown::Both);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    Requests,
    Replies,
}

fn relay(shared: &Arc<Shared>, client: TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut state = shared.state.lock().unwrap();
    let line = Arc::new(Line {
        number: state.made,
        client,
        server,
        lost_requests: AtomicBool::new(false),
        lost_replies: AtomicBool::new(false),
        torn: AtomicBool::new(false),
    });
    state.made += 1;
    state.lines.retain(|line| line.strong_count() > 0);
    state.lines.push(Arc::downgrade(&line));
    drop(state);
    for way in [Way::Requests, Way::Replies] {
        let (shared, line) = (Arc::clone(shared), Arc::clone(&line));
        std::thread::spawn(move || pass(&shared, &line, way));
    }
}

/// Passes bytes one way until either end is closed.
fn pass(shared: &Shared, line: &Line, way: Way) {
    let (mut from, mut to, lost) = match way {
        Way::Requests => (&line.client, &line.server, &line.lost_requests),
        Way::Replies => (&line.server, &line.client, &line.lost_replies),
    };
    let mut piece = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let bytes = &piece[..length];
        let passage = wait_while_held(shared, line, way);
        if passage == Passage::Lost {
            lost.store(true, Ordering::Relaxed);
        }
        if lost.load(Ordering::Relaxed) {
            continue;
        }
        if line.torn.load(Ordering::Relaxed) {
            break;
        }
        let sent = match passage {
            Passage::ByteByByte => bytes.chunks(1).try_for_each(|byte| to.write_all(byte)),
            Passage::Slow(most) => {
                std::thread::sleep(late(shared, most));
                to.write_all(bytes)
            }
            _ => to.write_all(bytes),
        };
        if sent.is_err() {
            break;
        }
    }
    // A connection that was torn ends as the tear says.
    if !line.torn.load(Ordering::Relaxed) {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

fn wait_while_held(shared: &Shared, line: &Line, way: Way) -> Passage {
    let mut state = shared.state.lock().unwrap();
    loop {
        let passage = match way {
            Way::Requests if line.number < state.stalled_before => Passage::Held,
            Way::Requests => state.requests,
            Way::Replies => state.replies,
        };
        if passage != Passage::Held || state.ended {
            return passage;
        }
        state = shared.changed.wait(state).unwrap();
    }
}

/// Up to `most`, spread evenly (SplitMix64's finalizer over a counter).
fn late(shared: &Shared, most: Duration) -> Duration {
    let mut mixed = shared.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    most.mul_f64((mixed >> 11) as f64 / (1_u64 << 53) as f64)
}
