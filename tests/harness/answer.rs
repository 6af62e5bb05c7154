//! An HTTP answer as a client sees it, and what every answer of the edge itself must look like.

use std::io::{self, Read};

use serde_json::Value;

/// An answer, complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub version: String,
    pub status: u16,
    /// In the order in which they came.
    pub headers: Vec<(String, String)>,
    /// With a chunked coding already taken off.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads one answer; `buffer` holds what came with the one before it and keeps what comes with this one.
    /// An end of the stream before the answer is complete is an error.
    pub fn read(stream: &mut impl Read, buffer: &mut Vec<u8>, of_head_request: bool) -> io::Result<Self> {
        loop {
            let end = fill_until(stream, buffer, b"\r\n\r\n")?;
            let head = String::from_utf8(buffer.drain(..end + 4).collect()).map_err(io::Error::other)?;
            let mut answer = Self::head(&head);
            if (100..200).contains(&answer.status) && answer.status != 101 {
                continue;
            }
            let has_no_body = of_head_request || matches!(answer.status, 101 | 204 | 304);
            if !has_no_body {
                answer.body = answer.read_body(stream, buffer)?;
            }
            return Ok(answer);
        }
    }

    fn head(head: &str) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap();
        let mut words = first.split(' ');
        let version = words.next().unwrap().to_owned();
        let status = words.next().and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {first:?}"));
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        Self { version, status, headers, body: Vec::new() }
    }

    fn read_body(&self, stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
        if self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return read_chunks(stream, buffer);
        }
        if let Some(length) = self.header("content-length") {
            let length = length.parse().unwrap();
            fill(stream, buffer, length)?;
            return Ok(buffer.drain(..length).collect());
        }
        let mut body = std::mem::take(buffer);
        stream.read_to_end(&mut body)?;
        Ok(body)
    }

    /// The one value of a header. A header that came twice is a fault.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let value = values.next();
        assert!(values.next().is_none(), "{name} came twice: {:?}", self.headers);
        value.map(String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// Whether the connection ends with it.
    pub fn closes(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default().to_ascii_lowercase();
        connection == "close" || (self.version == "HTTP/1.0" && connection != "keep-alive")
    }

    /// Checks what every answer of the edge itself must be: not cacheable, with a length, and without other headers.
    #[track_caller]
    pub fn is_our_own(&self) -> &Self {
        const KNOWN: [&str; 11] = [
            "content-type",
            "content-length",
            "cache-control",
            "date",
            "connection",
            "keep-alive",
            "location",
            "retry-after",
            "allow",
            "accept-post",
            "www-authenticate",
        ];
        for (name, _) in &self.headers {
            assert!(KNOWN.contains(&name.to_ascii_lowercase().as_str()), "unexpected header {name}: {self:?}");
        }
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        assert_eq!(self.header("content-length"), Some(self.body.len().to_string().as_str()), "{self:?}");
        assert!(self.header("transfer-encoding").is_none(), "{self:?}");
        let problem = (self.status >= 400).then_some("application/problem+json");
        assert_eq!(self.header("content-type"), Some(problem.unwrap_or("application/json")), "{self:?}");
        if self.status >= 400 {
            let body = self.json();
            assert_eq!(body["status"], self.status, "{self:?}");
            assert!(body["type"].as_str().is_some_and(|name| name.starts_with("urn:spikegate:problem:")), "{self:?}");
            assert!(body["title"].is_string() && body["detail"].is_string(), "{self:?}");
        }
        self
    }

    /// The NAME of `urn:spikegate:problem:NAME`.
    #[track_caller]
    pub fn problem(&self) -> String {
        self.is_our_own().problem_name()
    }

    /// The same of an answer that is not the edge's own.
    #[track_caller]
    pub fn problem_name(&self) -> String {
        let body = self.json();
        let name = body["type"].as_str().unwrap_or_else(|| panic!("not a problem: {self:?}"));
        name.trim_start_matches("urn:spikegate:problem:").to_owned()
    }
}

/// Reads until `buffer` contains `mark`, and returns its position.
fn fill_until(stream: &mut impl Read, buffer: &mut Vec<u8>, mark: &[u8]) -> io::Result<usize> {
    loop {
        if let Some(at) = buffer.windows(mark.len()).position(|window| window == mark) {
            return Ok(at);
        }
        read_more(stream, buffer)?;
    }
}

/// Reads until `buffer` holds `length` bytes.
fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
    while buffer.len() < length {
        read_more(stream, buffer)?;
    }
    Ok(())
}

fn read_more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    match stream.read(&mut piece)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the stream ended after {buffer:?}"))),
        length => {
            buffer.extend_from_slice(&piece[..length]);
            Ok(())
        }
    }
}

fn read_chunks(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = fill_until(stream, buffer, b"\r\n")?;
        let line: Vec<u8> = buffer.drain(..end + 2).collect();
        let size = std::str::from_utf8(&line[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| io::Error::other(format!("not a chunk's size: {line:?}")))?;
        fill(stream, buffer, size + 2)?;
        body.extend(buffer.drain(..size));
        assert_eq!(buffer.drain(..2).collect::<Vec<u8>>(), b"\r\n", "a chunk ends with its line");
        if size == 0 {
            return Ok(body);
        }
    }
}
