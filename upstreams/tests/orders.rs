//! Starts the real `spikegate-orders` and speaks HTTP to it, byte by byte where that matters.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

type Done = Result<(), Box<dyn Error>>;

/// A running `spikegate-orders`, killed when the test ends.
struct Orders {
    process: Child,
    address: String,
}

impl Orders {
    fn start(more: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spikegate-orders"));
        command.args(["--listen", "127.0.0.1:0"]).args(more).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").ok_or("it did not say where it listens")?.to_string();
        Ok(Orders { process, address })
    }

    fn connect(&self) -> Result<BufReader<TcpStream>, Box<dyn Error>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(BufReader::new(stream))
    }

    /// One request on a connection of its own.
    fn ask(&self, request: &str) -> Result<Answer, Box<dyn Error>> {
        let mut connection = self.connect()?;
        connection.get_mut().write_all(request.as_bytes())?;
        Answer::read(&mut connection)
    }

    fn signal(&self, name: &str) -> Done {
        let status = Command::new("kill").args([name, &self.process.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err("kill failed".into()) }
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    /// Reads exactly one answer; it must have a Content-Length.
    fn read(connection: &mut BufReader<TcpStream>) -> Result<Self, Box<dyn Error>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line)? == 0 {
                return Err(format!("the connection ended after {lines:?}").into());
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_string());
        }
        let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_string())).collect();
        let mut answer = Answer { status: lines[0].clone(), headers, body: String::new() };
        let mut body = vec![0; answer.header("content-length").ok_or("no Content-Length")?.parse()?];
        connection.read_exact(&mut body)?;
        answer.body = String::from_utf8(body)?;
        Ok(answer)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    fn json(&self) -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_str(&self.body)?)
    }
}

#[test]
fn every_path_is_answered_with_what_arrived() -> Done {
    let orders = Orders::start(&["--name", "a"])?;
    let answer = orders.ask(
        "POST /cart/1?x=%20y HTTP/1.1\r\nHost: www.load_balance.com\r\nX-Forwarded-For: 10.0.0.1\r\n\
         X-Forwarded-For: 10.0.0.2\r\nX-Real-IP: 10.0.0.3\r\nCookie: secret\r\nContent-Length: 5\r\n\r\nhello",
    )?;
    assert_eq!(answer.status, "HTTP/1.1 200 OK");
    assert_eq!(answer.header("x-backend"), Some("a"));
    assert_eq!(
        answer.json()?,
        serde_json::json!({
            "backend": "a", "method": "POST", "path": "/cart/1?x=%20y", "version": "HTTP/1.1",
            "host": "www.load_balance.com", "body_bytes": 5,
            "forwarded": { "x-forwarded-for": "10.0.0.1, 10.0.0.2", "x-real-ip": "10.0.0.3" },
        })
    );
    Ok(())
}

#[test]
fn without_a_database_no_delivery_is_taken_for_kept() -> Done {
    let orders = Orders::start(&[])?;
    let answer =
        orders.ask("POST /hooks/spikegate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")?;
    assert_eq!(
        (answer.status.as_str(), answer.json()?["type"].as_str()),
        ("HTTP/1.1 503 Service Unavailable", Some("urn:spikegate:problem:unavailable"))
    );
    Ok(())
}

#[test]
fn requests_are_counted_except_stats_and_healthz() -> Done {
    let orders = Orders::start(&[])?;
    for path in ["/", "/healthz", "/stats", "/buy/ticket", "/healthz/more"] {
        orders.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))?;
    }
    let stats = orders.ask("GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")?;
    assert_eq!(stats.json()?, serde_json::json!({ "name": orders.address, "requests": 3 }));
    assert_eq!(stats.header("x-backend"), Some(orders.address.as_str()), "the address is the default name");
    let refused = orders.ask("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")?;
    assert_eq!(refused.status, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(refused.header("x-backend"), Some(orders.address.as_str()), "refusals are named as well");
    Ok(())
}

#[test]
fn connections_are_kept_as_each_version_of_http_has_it() -> Done {
    let orders = Orders::start(&[])?;
    let closes = |connection: &mut BufReader<TcpStream>| connection.read(&mut [0]).map(|read| read == 0);

    // What `ab` sends: closed after the answer, without a Connection header.
    let mut plain = orders.connect()?;
    plain.get_mut().write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")?;
    Answer::read(&mut plain)?;
    assert!(closes(&mut plain)?);

    // What `ab -k` sends: kept, and the answer says so.
    let mut kept = orders.connect()?;
    for _ in 0..3 {
        kept.get_mut().write_all(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")?;
        let answer = Answer::read(&mut kept)?;
        assert_eq!(answer.status, "HTTP/1.0 200 OK");
        assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("keep-alive"));
    }

    // Two requests in one write, then the end.
    let mut pipelined = orders.connect()?;
    let one = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let two = "GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    pipelined.get_mut().write_all(format!("{one}{two}").as_bytes())?;
    assert_eq!(Answer::read(&mut pipelined)?.json()?["path"], "/1");
    assert_eq!(Answer::read(&mut pipelined)?.json()?["path"], "/2");
    assert!(closes(&mut pipelined)?);

    // HEAD announces the length and sends nothing.
    let mut head = orders.connect()?;
    head.get_mut().write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    head.read_to_string(&mut text)?;
    assert!(text.contains("content-length: ") && text.ends_with("\r\n\r\n"), "{text}");
    Ok(())
}

#[test]
fn bodies_are_measured_up_to_the_limit() -> Done {
    let orders = Orders::start(&[])?;
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let small = orders.ask(&format!("{chunked}3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"))?;
    assert_eq!(small.json()?["body_bytes"], 7);

    // Announced as too long: refused before any of it is sent.
    let announced = orders.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000001\r\n\r\n")?;
    assert_eq!(announced.status, "HTTP/1.1 413 Payload Too Large");
    assert_eq!(announced.header("connection"), Some("close"));

    let exactly = send(&orders, chunked, 100_000_000)?;
    assert_eq!(exactly.json()?["body_bytes"], 100_000_000);
    let memory = std::fs::read_to_string(format!("/proc/{}/status", orders.process.id()))?;
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    assert!(peak < 50_000, "the body was kept in memory: {peak} KiB");

    assert_eq!(send(&orders, chunked, 100_000_001)?.status, "HTTP/1.1 413 Payload Too Large");
    Ok(())
}

/// Sends a chunked body of so many bytes after the head.
fn send(orders: &Orders, head: &str, mut bytes: usize) -> Result<Answer, Box<dyn Error>> {
    let mut connection = orders.connect()?;
    connection.get_mut().write_all(head.as_bytes())?;
    let piece = vec![b'x'; 1_000_000];
    while bytes > 0 {
        let now = bytes.min(piece.len());
        connection.get_mut().write_all(format!("{now:x}\r\n").as_bytes())?;
        connection.get_mut().write_all(&piece[..now])?;
        connection.get_mut().write_all(b"\r\n")?;
        bytes -= now;
    }
    // Refused already, perhaps; then the answer is what counts.
    let _ = connection.get_mut().write_all(b"0\r\n\r\n");
    Answer::read(&mut connection)
}

#[test]
fn an_address_in_use_is_named() -> Done {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_spikegate-orders")).args(["--listen", &address]).output()?;
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr)?;
    assert!(
        message.starts_with(&format!("spikegate-orders: cannot listen on {address}: Address already in use")),
        "{message}"
    );
    assert!(output.stdout.is_empty());
    Ok(())
}

#[test]
fn a_name_that_no_header_can_carry_is_refused() -> Done {
    let arguments = ["--listen", "127.0.0.1:0", "--name", "a\nb"];
    let output = Command::new(env!("CARGO_BIN_EXE_spikegate-orders")).args(arguments).output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr)?.contains("is not a valid header value"));
    Ok(())
}

#[test]
fn signals_end_it_cleanly_with_connections_open() -> Done {
    for signal in ["-TERM", "-INT"] {
        let mut orders = Orders::start(&[])?;
        let mut idle = orders.connect()?;
        idle.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        Answer::read(&mut idle)?;
        let start = Instant::now();
        orders.signal(signal)?;
        assert_eq!(orders.process.wait()?.code(), Some(0), "{signal}");
        assert!(start.elapsed() < Duration::from_secs(4), "an idle connection must not hold up the end");
    }
    let mut orders = Orders::start(&[])?;
    let mut unfinished = orders.connect()?;
    unfinished.get_mut().write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")?;
    while orders.ask("GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")?.json()?["requests"] != 1 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let start = Instant::now();
    orders.signal("-TERM")?;
    assert_eq!(orders.process.wait()?.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "a stuck request must not hold it up for long");
    Ok(())
}
