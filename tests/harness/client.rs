//! An HTTP client that sends exactly the given bytes and checks every byte of the answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::answer::Answer;

/// No answer of an edge may take longer; its own deadlines are shorter.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// A request as it goes over the wire.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    version: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        let host = vec![("Host".to_owned(), "tickets.example".to_owned())];
        Self { method: method.into(), target: target.into(), version: "HTTP/1.1", headers: host, body: Vec::new() }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with `Content-Length: 0`.
    pub fn post(target: &str) -> Self {
        Self::new("POST", target).header("Content-Length", "0")
    }

    /// Without `Host`, which HTTP/1.0 did not know.
    pub fn http10(mut self) -> Self {
        self.version = "HTTP/1.0";
        self.without("Host")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self
    }

    /// With a body, its length and its type.
    pub fn body(self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let length = body.as_ref().len().to_string();
        let mut request =
            self.without("Content-Length").header("Content-Type", content_type).header("Content-Length", &length);
        request.body = body.as_ref().to_vec();
        request
    }

    pub fn json(self, body: &serde_json::Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// With the same bytes in chunks of `size`.
    pub fn chunked(self, size: usize) -> Self {
        let mut request = self.without("Content-Length").header("Transfer-Encoding", "chunked");
        let mut coded = Vec::new();
        for chunk in request.body.chunks(size) {
            coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            coded.extend_from_slice(chunk);
            coded.extend_from_slice(b"\r\n");
        }
        coded.extend_from_slice(b"0\r\n\r\n");
        request.body = coded;
        request
    }

    /// Everything up to the body.
    pub fn head_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} {}\r\n", self.method, self.target, self.version);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A connection to an edge or to anything else that speaks HTTP/1.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    to: SocketAddr,
    /// Where it comes from, if that matters.
    source: Option<IpAddr>,
    /// The last answer had `Connection: close`.
    ended: bool,
}

impl Connection {
    #[track_caller]
    pub fn to(address: SocketAddr) -> Self {
        Self::try_to(address).unwrap_or_else(|error| panic!("no connection to {address}: {error}"))
    }

    pub fn try_to(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, ANSWER_PATIENCE)?, address)
    }

    /// From one address of the loopback: on Linux all of 127.0.0.0/8 is there without being set up.
    pub fn from(source: IpAddr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self { source: Some(source), ..Self::over(socket.into(), address).unwrap() }
    }

    /// Gives up on an answer after so long.
    pub fn patience(self, time: Duration) -> io::Result<Self> {
        self.stream.set_read_timeout(Some(time))?;
        Ok(self)
    }

    fn over(stream: TcpStream, to: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new(), to, source: None, ended: false })
    }

    /// One request and its answer. If the last answer closed the connection, it connects again.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Answer {
        self.try_ask(request).unwrap_or_else(|error| panic!("no answer from {} to {request:?}: {error}", self.to))
    }

    pub fn try_ask(&mut self, request: &Request) -> io::Result<Answer> {
        if self.ended {
            *self = match self.source {
                Some(source) => Self::from(source, self.to),
                None => Self::try_to(self.to)?,
            };
        }
        self.stream.write_all(&request.bytes())?;
        let answer = Answer::read(&mut self.stream, &mut self.buffer, request.method == "HEAD")?;
        self.ended = answer.closes();
        Ok(answer)
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what the other side may refuse to take.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends byte after byte, each in a packet of its own.
    pub fn send_in_single_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.stream.write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// The next answer, to whatever was sent.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|error| panic!("no answer from {}: {error}", self.to))
    }

    pub fn try_answer(&mut self) -> io::Result<Answer> {
        Answer::read(&mut self.stream, &mut self.buffer, false)
    }

    /// Exactly `length` bytes, for a connection that no longer speaks HTTP.
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            let mut piece = [0; 4096];
            let read = self.stream.read(&mut piece).unwrap();
            assert_ne!(read, 0, "the stream ended after {} of {length} bytes", self.buffer.len());
            self.buffer.extend_from_slice(&piece[..read]);
        }
        self.buffer.drain(..length).collect()
    }

    /// Whether anything has come that was not asked for.
    pub fn has_unread(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Waits for the other side's end of the connection; bytes that come instead are a fault.
    pub fn is_closed_by_peer(&mut self, time: Duration) -> bool {
        assert!(self.buffer.is_empty(), "came unasked: {:?}", String::from_utf8_lossy(&self.buffer));
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut piece = [0; 4096];
        let closed = match self.stream.read(&mut piece) {
            Ok(0) => true,
            Ok(length) => panic!("came unasked: {:?}", String::from_utf8_lossy(&piece[..length])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("{error}"),
        };
        self.stream.set_read_timeout(Some(ANSWER_PATIENCE)).unwrap();
        closed
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// Sends `bytes` on a new connection, and returns everything that comes back until the end or a reset.
#[track_caller]
pub fn everything(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Whoever is refused half-way does not read the rest.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return all,
            Ok(length) => all.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("{error} after {}: {}", all.escape_ascii(), bytes.escape_ascii()),
        }
    }
}
