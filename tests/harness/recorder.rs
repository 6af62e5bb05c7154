//! A backend that parses HTTP strictly by the standard, and records every byte that does not conform.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    /// Without its coding.
    pub body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Record {
    requests: Vec<Seen>,
    /// Whatever was no request.
    faults: Vec<String>,
    connections: usize,
}

/// Lives until the test process ends.
pub struct Recorder {
    address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

impl Recorder {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::<Mutex<Record>>::default();
        let own = Arc::clone(&record);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = Arc::clone(&own);
                own.lock().unwrap().connections += 1;
                std::thread::spawn(move || serve(stream, &own));
            }
        });
        Self { address, record }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far. There must have been nothing else.
    #[track_caller]
    pub fn requests(&self) -> Vec<Seen> {
        let (requests, faults) = {
            let record = self.record.lock().unwrap();
            (record.requests.clone(), record.faults.clone())
        };
        assert!(faults.is_empty(), "a backend got what is no request: {faults:#?}");
        requests
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        self.record.lock().unwrap().connections
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Whether a request is answered before its body is read.
fn is_answered_early(line: &str) -> bool {
    line.contains("/early")
}

fn serve(mut stream: TcpStream, record: &Mutex<Record>) {
    let mut buffer = Vec::new();
    loop {
        match read_request(&mut stream, &mut buffer) {
            Ok(Some(seen)) => {
                let answered = is_answered_early(&seen.line);
                record.lock().unwrap().requests.push(seen);
                if !answered && stream.write_all(ANSWER).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(fault) => {
                record.lock().unwrap().faults.push(format!("{fault}: {}", buffer.escape_ascii()));
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                return;
            }
        }
    }
}

/// A request; none at the end of the connection, or if it ends half-way: an edge may give up on a client.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Seen>, &'static str> {
    let Some(head) = take_until(stream, buffer, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8(head).map_err(|_| "a head that is no text")?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err("no request line") };
    let is_token =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let is_graphic = |text: &str| text.chars().all(|c| !c.is_control() && c != ' ');
    if !is_token(method) || !(target.starts_with('/') || target == "*") || !is_graphic(target) {
        return Err("an unusual request line");
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("a line that is no header")?;
        let is_value = value.trim() == value && !value.contains(|c: char| c.is_control() && c != '\t');
        if !is_token(name) || !is_value {
            return Err("a strange header");
        }
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    if is_answered_early(&line) {
        let _ = stream.write_all(ANSWER);
    }
    let values = |name: &str| -> Vec<&str> {
        headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    };
    if values("host").len() != 1 {
        return Err("not one Host");
    }
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Some(Vec::new()),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            take(stream, buffer, length.parse().map_err(|_| "an endless length")?)
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => read_chunks(stream, buffer)?,
        _ => return Err("a body of unclear length"),
    };
    Ok(body.map(|body| Seen { line, headers: headers.clone(), body }))
}

fn read_chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Some(line) = take_until(stream, buffer, b"\r\n") else { return Ok(None) };
        let is_size = (1..9).contains(&line.len()) && line.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(&line).ok().filter(|_| is_size);
        let size = usize::from_str_radix(size.ok_or("no chunk's size")?, 16).map_err(|_| "no chunk's size")?;
        let Some(chunk) = take(stream, buffer, size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk without its end");
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

fn take_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, mark: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(mark.len()).position(|window| window == mark) {
            let taken = buffer.drain(..at).collect();
            buffer.drain(..mark.len());
            return Some(taken);
        }
        more(stream, buffer)?;
    }
}

fn take(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while buffer.len() < length {
        more(stream, buffer)?;
    }
    Some(buffer.drain(..length).collect())
}

fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 4096];
    let length = stream.read(&mut piece).ok().filter(|length| *length > 0)?;
    buffer.extend_from_slice(&piece[..length]);
    Some(())
}
