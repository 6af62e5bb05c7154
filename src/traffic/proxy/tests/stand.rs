//! A stand to try the proxy on: scripted backends, an edge in this process, and clients that see every byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::config::*;
use crate::http::client::{Access, AddressHeader, Networks};
use crate::server::{Edge, StartError};

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A backend that gives each of its connections to `serve`, until the test process ends.
pub fn backend(serve: impl Fn(Connection) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(Connection::new(stream.expect("a connection"))));
        }
    });
    address
}

/// A backend that answers every request with `answer`, and keeps connections if the answer says how long it is.
pub fn answering(answer: &'static str) -> SocketAddr {
    backend(move |mut connection| {
        while connection.head().is_some() {
            connection.send(answer);
            if !answer.to_ascii_lowercase().contains("content-length") {
                return;
            }
        }
    })
}

/// An address that refuses connections.
pub fn nobody() -> SocketAddr {
    free_port()
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Settings for backends with weights 1, 2, 3 and so on, with short waits.
pub fn upstream(backends: &[SocketAddr]) -> Upstream {
    let server = |(i, &address): (usize, &SocketAddr)| Server { weight: i as u32 + 1, ..Server::at(address) };
    let wait = Duration::from_secs(2);
    Upstream {
        name: "load_rule".to_owned(),
        balance: Balance::Weighted,
        servers: backends.iter().enumerate().map(server).collect(),
        host_header: HostHeader::Upstream,
        timeouts: UpstreamTimeouts { connect: wait, read: wait, send: wait, idle: PATIENCE },
        tries: backends.len(),
        health_check: None,
        resolve: Resolve::default(),
    }
}

/// An edge in this process.
pub struct Stand {
    pub address: SocketAddr,
    edge: Option<Edge>,
    /// The ledger's, which every edge has; gone afterwards.
    _folder: TempDir,
}

impl Stand {
    /// All paths of all hosts go to `upstream`.
    pub fn new(upstream: Upstream) -> Self {
        Self::with(upstream, |_| ())
    }

    pub fn with(upstream: Upstream, change: impl Fn(&mut Config)) -> Self {
        // Another test may take a port between its being found and being used.
        for _ in 0..10 {
            let folder = tempfile::tempdir().expect("a folder");
            let mut config = config(upstream.clone(), folder.path());
            change(&mut config);
            let address = config.listen[0].address;
            match Edge::start(config, Arc::new(|| Err("there is no file".to_owned()))) {
                Ok(edge) => return Self { address, edge: Some(edge), _folder: folder },
                Err(StartError::Bind { .. }) => continue,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no free ports");
    }

    pub fn client(&self) -> Connection {
        Connection::new(TcpStream::connect(self.address).expect("the edge"))
    }

    /// One request on a connection of its own, and its answer.
    pub fn ask(&self, request: &str) -> Answer {
        let mut client = self.client();
        client.send(request);
        client.answer()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"))
    }

    /// As SIGTERM does.
    pub fn finish(&mut self, grace: Duration) {
        let mut edge = self.edge.take().expect("still at work");
        edge.finish(grace);
        edge.end();
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(edge) = self.edge.take() {
            edge.end();
        }
    }
}

fn config(upstream: Upstream, folder: &Path) -> Config {
    Config {
        listen: vec![free_port().into()],
        threads: 2,
        shutdown_grace: Duration::from_secs(1),
        shutdown_delay: Duration::ZERO,
        client: ClientTimeouts { keepalive: PATIENCE, read: Duration::from_secs(1), send: PATIENCE },
        trusted_proxies: Networks::default(),
        client_address: AddressHeader::default(),
        access: Access::default(),
        limits: Limits::default(),
        control: Control { listen: free_port(), token: None },
        ledger: Ledger { store: Store::Embedded { path: folder.to_owned() }, sync: Duration::from_millis(100) },
        upstreams: vec![upstream],
        routes: vec![Route::default()],
        compression: None,
        error_pages: Vec::new(),
        sales: Vec::new(),
        delivery: None,
        tracing: None,
        access_log: None,
        error_log: ErrorLog::default(),
        request_id: None,
    }
}

/// One end of a connection.
pub struct Connection {
    pub stream: TcpStream,
    /// Read and not yet looked at.
    ahead: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// The value of a header in a head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, ahead: Vec::new() }
    }

    /// Sends as much as the other side takes.
    pub fn send(&mut self, bytes: &str) {
        let _ = self.stream.write_all(bytes.as_bytes());
    }

    /// A head with its empty line, or `None` at the end of the connection.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.ahead.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("text"));
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Exactly `n` bytes, or fewer at the end of the connection.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.ahead.len() < n && self.more() {}
        self.ahead.drain(..n.min(self.ahead.len())).collect()
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8(std::mem::take(&mut self.ahead)).expect("text")
    }

    /// An answer whose body is as long as it says, or else ends with the connection; chunks are left as they are.
    pub fn answer(&mut self) -> Answer {
        let head = self.head().unwrap_or_default();
        let body = match header(&head, "content-length").and_then(|length| length.parse().ok()) {
            Some(length) => String::from_utf8(self.bytes(length)).expect("text"),
            None => self.rest(),
        };
        Answer { head, body }
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        let n = self.stream.read(&mut buffer).unwrap_or(0);
        self.ahead.extend_from_slice(&buffer[..n]);
        n > 0
    }
}
