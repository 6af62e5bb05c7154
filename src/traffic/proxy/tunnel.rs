//! Connections to backends for requests that ask for an upgrade, so that a tunnel is not closed as it opens.
//!
//! Pingora 0.9.1 has a race there. A request without a body tells the half that talks to the backend so, through a
//! channel; that half ends a tunnel when it is told that the client has said all. If it reads the 101 before it looks
//! into the channel, it takes the end of the empty body for the end of the tunnel. It waits for both in one `select!`,
//! so this happens whenever the 101 is there at the first look: a backend that is quick, and an edge that lost its
//! processor between sending the head and looking. Here the first look after a write therefore finds nothing, and the
//! channel is emptied first.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

static CONNECTOR: LazyLock<Arc<Connector>> = LazyLock::new(|| Arc::new(Connector));

/// Pingora's pool knows connections by their file descriptors, and of these it sees none. They get a group of their
/// own, and are not kept.
const GROUP: u64 = 1;

/// Makes the connection to `peer` one for a request that asks for an upgrade.
pub fn prepare(peer: &mut HttpPeer) {
    peer.options.custom_l4 = Some(CONNECTOR.clone());
    peer.options.idle_timeout = Some(std::time::Duration::ZERO);
    peer.group_key = GROUP;
}

#[derive(Debug)]
struct Connector;

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, address: &PingoraAddr) -> Result<Stream> {
        let address: &SocketAddr =
            address.as_inet().ok_or_else(|| Error::explain(ErrorType::InternalError, "not a TCP address"))?;
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| Error::because(kind_of(&error), "connecting for an upgrade", error))?;
        Ok(VirtualSocketStream::new(Box::new(Polite { stream, has_written: false })).into())
    }
}

/// As Pingora tells them apart: an internal error is one of this machine, for which no backend is blamed.
fn kind_of(error: &io::Error) -> ErrorType {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => ErrorType::ConnectError,
        _ => ErrorType::InternalError,
    }
}

/// A connection that lets others go first: after a write, the first look for an answer finds none.
#[derive(Debug)]
struct Polite {
    stream: TcpStream,
    has_written: bool,
}

impl AsyncRead for Polite {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.has_written) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Polite {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.has_written = true;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_written = true;
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl VirtualSocket for Polite {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            // Nothing here asks for another.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_first_look_after_a_write_finds_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("its address")).await.expect("connected");
        let (mut backend, _) = listener.accept().await.expect("accepted");
        let mut polite = Polite { stream, has_written: false };
        for _ in 0..3 {
            polite.write_all(b"ask").await.expect("written");
            backend.write_all(b"101").await.expect("written");
            polite.stream.readable().await.expect("the answer is there");

            let mut bytes = [0; 8];
            let mut buffer = ReadBuf::new(&mut bytes);
            let mut look =
                || Pin::new(&mut polite).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).is_ready();
            assert_eq!((look(), look()), (false, true));
            assert_eq!(buffer.filled(), b"101");

            // Whoever waits is woken.
            polite.write_all(b"ask").await.expect("written");
            backend.write_all(b"101").await.expect("written");
            assert_eq!(polite.read(&mut bytes).await.expect("the answer"), 3);
        }
    }
}
