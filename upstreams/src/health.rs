//! The health check of `spikegate-orders --health`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Timeout of each step; shorter than the timeouts of container supervisors.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Sends a health check to the service at `address`. For an unspecified address (0.0.0.0 or `[::]`) it connects to
/// loopback.
///
/// # Errors
///
/// The service cannot be reached, or its status is not 200.
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
