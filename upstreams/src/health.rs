//! The client of the service's own health, for `spikegate-orders --health`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long each step may take; shorter than any supervisor waits.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Asks the service that listens at `address` whether it is alive. All addresses (0.0.0.0 or `[::]`) are asked at
/// loopback.
///
/// # Errors
///
/// It cannot be reached, or its answer is not 200.
pub fn ask(address: SocketAddr) -> io::Result<()> {
    let host: IpAddr = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let mut connection = TcpStream::connect_timeout(&(host, address.port()).into(), TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; b"HTTP/1.1 200".len()];
    connection.read_exact(&mut status)?;
    match &status {
        b"HTTP/1.1 200" => Ok(()),
        other => Err(io::Error::other(format!("answered {:?}", String::from_utf8_lossy(other)))),
    }
}
