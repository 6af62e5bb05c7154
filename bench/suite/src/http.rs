//! The little HTTP that checks and load generators need: answers with a Content-Length.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Where the contestant listens, one at a time.
pub const EDGE: SocketAddr = local(21080);
/// Spikegate's control listener.
pub const CONTROL: SocketAddr = local(21081);
/// Where Redis listens.
pub const REDIS: SocketAddr = local(21079);
/// Where the backends listen.
pub const BACKENDS: [SocketAddr; 4] = [local(21091), local(21092), local(21093), local(21094)];

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// The answer that these bytes are, or nothing if there is more to come.
pub fn parse(bytes: &[u8]) -> Result<Option<Answer<'_>>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&bytes[..end]).map_err(Error::other)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let (Some(status), Some(length)) = (status, length) else {
        return Err(Error::new(ErrorKind::InvalidData, format!("an answer that is not understood: {head}")));
    };
    Ok(bytes.get(end + 4..end + 4 + length).map(|body| Answer { status, body }))
}

/// Status and body of one GET, over a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    let mut piece = [0; 16384];
    loop {
        if let Some(answer) = parse(&bytes)? {
            return Ok((answer.status, answer.body.to_vec()));
        }
        match stream.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

/// A connection on which nothing is waited for longer than any server should take.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
