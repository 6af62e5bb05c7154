//! A backend in this process, with a handler from the test.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request as a backend got it: the head's lines, and the connection with the body still to come.
pub struct Received<'a> {
    /// `GET /path HTTP/1.1`.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub stream: &'a mut TcpStream,
    /// What came with the head and is not part of it.
    pub rest: Vec<u8>,
}

impl Received<'_> {
    /// The one value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice: {:?}", self.headers);
        value
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    /// Answers 200 with this body and keeps the connection.
    pub fn answer(&mut self, body: &str) {
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // A client that has gone is not this backend's concern.
        let _ = self.stream.write_all(bytes);
    }

    /// Reads a body of this length.
    pub fn body(&mut self, length: usize) -> Vec<u8> {
        let mut body = std::mem::take(&mut self.rest);
        let read = body.len();
        body.resize(length, 0);
        // A client that leaves in the middle has sent nothing worth keeping.
        if self.stream.read_exact(&mut body[read..]).is_err() {
            body.clear();
        }
        body
    }

    /// Reads until the client closes the connection.
    pub fn rest_of_connection(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// Reads a body of this length and gives the sum of its bytes, so that nothing of it has to be kept.
    pub fn sum_of_body(&mut self, length: usize) -> u64 {
        let mut sum = self.rest.iter().map(|byte| u64::from(*byte)).sum();
        let mut read = self.rest.len();
        let mut piece = [0; 64 * 1024];
        while read < length {
            let more = self.stream.read(&mut piece).unwrap();
            assert_ne!(more, 0, "the body ended after {read} of {length} bytes");
            sum += piece[..more].iter().map(|byte| u64::from(*byte)).sum::<u64>();
            read += more;
        }
        self.rest.clear();
        sum
    }
}

/// What a handler wants done with the connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum After {
    KeepOpen,
    Close,
}

struct Shared {
    ended: AtomicBool,
    requests: AtomicUsize,
    /// The connections that there are, by number, so that they can be ended with the backend.
    streams: Mutex<HashMap<usize, TcpStream>>,
    handler: Box<dyn Fn(&mut Received<'_>) -> After + Send + Sync>,
}

pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Backend {
    /// Calls `handler` for every request.
    pub fn start(handler: impl Fn(&mut Received<'_>) -> After + Send + Sync + 'static) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), handler)
    }

    /// The same at a given address.
    pub fn start_at(address: SocketAddr, handler: impl Fn(&mut Received<'_>) -> After + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            streams: Mutex::default(),
            handler: Box::new(handler),
        });
        let own = Arc::clone(&shared);
        let listener = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                if own.ended.load(Ordering::SeqCst) {
                    return;
                }
                let held = stream.try_clone().unwrap();
                own.streams.lock().unwrap().insert(number, held);
                let own = Arc::clone(&own);
                std::thread::spawn(move || {
                    let _open = Open { shared: &own, number };
                    serve(&own, stream);
                });
            }
        });
        Self { address, shared, listener: Some(listener) }
    }

    /// Answers every request with its name.
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::start(move |request| {
            request.answer(&name);
            After::KeepOpen
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // The listener is waiting for a client; this is its last.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        for stream in self.shared.streams.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Lets go of a connection when it has ended, however it did: a test may make thousands.
struct Open<'s> {
    shared: &'s Shared,
    number: usize,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shared.streams.lock().unwrap().remove(&self.number);
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let mut piece = [0; 16 * 1024];
            match stream.read(&mut piece) {
                Ok(length @ 1..) => buffer.extend_from_slice(&piece[..length]),
                _ => return,
            }
        };
        let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let mut received = Received { line, headers, stream: &mut stream, rest: std::mem::take(&mut buffer) };
        if (shared.handler)(&mut received) == After::Close {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}
