//! A client's socket, which the reactor hears of only when there is something to wait for.
//!
//! When a connection is accepted under load its request is usually there already, and if it is the only one, the socket
//! is closed after the answer. Such a connection is read, answered and closed without `epoll_ctl` twice, and without an
//! event for every segment that comes.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A listening socket.
pub struct Listener(AsyncFd<TcpListener>);

impl Listener {
    /// A listener that the present runtime watches. `listener` has to be non-blocking.
    ///
    /// # Errors
    /// If the system has no room to watch another socket.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        // SAFETY: a `TcpListener` owns its descriptor: it is open, and the same one, until the listener is dropped, and
        // that happens within the `AsyncFd`, which gives it to nobody.
        Ok(Self(unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?))
    }

    /// The next connection.
    ///
    /// # Errors
    /// Those of accept4(2).
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        self.0.async_io(Interest::READABLE, Stream::accept).await
    }
}

/// The socket of a connection; always non-blocking.
#[derive(Debug)]
pub struct Stream {
    /// Accepted, and the reactor does not know of it yet.
    fresh: Option<std::net::TcpStream>,
    /// One of the two is always there, unless the reactor refused the socket.
    registered: Option<TcpStream>,
    /// Only the first read goes past the reactor, which sees to it that a client who never pauses leaves time to
    /// others.
    was_read: bool,
    /// Read once, and to be read again.
    put_back: Vec<u8>,
}

impl Stream {
    /// The next connection of a non-blocking listener.
    ///
    /// # Errors
    /// Those of accept4(2), `WouldBlock` if nobody waits.
    fn accept(listener: &TcpListener) -> io::Result<(Self, SocketAddr)> {
        let (socket, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // A TCP listener accepts nothing but connections from internet addresses.
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok((Self { fresh: Some(socket.into()), registered: None, was_read: false, put_back: Vec::new() }, peer))
    }

    /// What was read from it and is to be read again, by whoever reads next.
    pub fn put_back(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.put_back.is_empty(), "put back once");
        self.put_back = bytes;
    }

    /// Ends a connection that is one too many, with a reset: nothing of it is left in the system, and the client knows
    /// at once.
    pub fn reset(self) {
        // If it cannot be set, the connection ends more slowly.
        let _ = match (&self.fresh, &self.registered) {
            (Some(fresh), _) => sockopt::set_socket_linger(fresh, Some(Duration::ZERO)),
            (_, Some(registered)) => sockopt::set_socket_linger(registered, Some(Duration::ZERO)),
            (None, None) => Ok(()),
        };
    }

    fn register(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Some(fresh) = self.fresh.take() {
            self.registered = Some(TcpStream::from_std(fresh)?);
        }
        self.registered.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        let registered = || self.registered.as_ref().map(AsRawFd::as_raw_fd);
        self.fresh.as_ref().map(AsRawFd::as_raw_fd).or_else(registered).unwrap_or(-1)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.put_back.is_empty() {
            let read = self.put_back.len().min(buf.remaining());
            buf.put_slice(&self.put_back[..read]);
            self.put_back.drain(..read);
            if self.put_back.is_empty() {
                self.put_back = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        let was_read = std::mem::replace(&mut self.was_read, true);
        if let Some(fresh) = self.fresh.as_mut().filter(|_| !was_read) {
            match fresh.read(buf.initialize_unfilled()) {
                Err(error) if must_wait(&error) => {}
                read => return Poll::Ready(read.map(|read| buf.advance(read))),
            }
        }
        self.register()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(fresh) = &mut self.fresh {
            match fresh.write(bytes) {
                Err(error) if must_wait(&error) => {}
                written => return Poll::Ready(written),
            }
        }
        self.register()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(fresh) = &mut self.fresh {
            match fresh.write_vectored(parts) {
                Err(error) if must_wait(&error) => {}
                written => return Poll::Ready(written),
            }
        }
        self.register()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket keeps nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.fresh {
            Some(fresh) => Poll::Ready(fresh.shutdown(Shutdown::Write)),
            None => self.register()?.poll_shutdown(cx),
        }
    }
}

/// Whether it is to be tried again when the reactor says so; what a signal interrupted is tried at once then.
fn must_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A connection whose client has said `words` before it was accepted.
    fn accepted(words: &[u8]) -> (Stream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut client = std::net::TcpStream::connect(listener.local_addr().expect("its address")).expect("connected");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.write_all(words).expect("written");
        let (stream, peer) = Stream::accept(&listener).expect("accepted");
        assert_eq!(peer, client.local_addr().expect("its address"));
        (stream, client)
    }

    #[tokio::test]
    async fn what_is_there_already_is_read_and_answered_without_the_reactor() {
        let (mut stream, mut client) = accepted(b"ping");
        let mut bytes = [0; 16];
        assert_eq!(stream.read(&mut bytes).await.expect("read"), 4);
        stream.write_all(b"po").await.expect("written");
        let parts = [IoSlice::new(b"n"), IoSlice::new(b"g")];
        assert_eq!(stream.write_vectored(&parts).await.expect("written"), 2);
        assert!(stream.registered.is_none());
        stream.shutdown().await.expect("shut down");
        let mut heard = String::new();
        client.read_to_string(&mut heard).expect("heard to the end");
        assert_eq!(heard, "pong");
        assert!(stream.registered.is_none());
    }

    #[tokio::test]
    async fn a_second_read_is_the_reactors() {
        let (mut stream, mut client) = accepted(b"ping");
        let mut bytes = [0; 2];
        assert_eq!(stream.read(&mut bytes).await.expect("read"), 2);
        assert!(stream.registered.is_none());
        assert_eq!(stream.read(&mut bytes).await.expect("read"), 2);
        assert!(stream.fresh.is_none());
        stream.write_all(b"pong").await.expect("written");
        let mut heard = [0; 4];
        client.read_exact(&mut heard).expect("heard");
        assert_eq!(&heard, b"pong");
    }

    #[tokio::test]
    async fn what_comes_later_is_waited_for() {
        let (mut stream, mut client) = accepted(b"");
        let mut bytes = [0; 16];
        let reading = async { stream.read(&mut bytes).await };
        // Begun only when the reading waits.
        let writing = async { tokio::task::spawn_blocking(move || client.write_all(b"late").map(|()| client)).await };
        let (read, client) = tokio::join!(tokio::time::timeout(PATIENCE, reading), writing);
        assert_eq!(read.expect("in time").expect("read"), 4);
        assert!(stream.fresh.is_none());
        drop(client.expect("joined"));
        assert_eq!(stream.read(&mut bytes).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn what_was_put_back_is_read_first() {
        let (mut stream, _client) = accepted(b"pong");
        stream.put_back(b"ping".to_vec());
        let mut bytes = [0; 3];
        for expected in ["pin", "g", "pon", "g"] {
            let read = stream.read(&mut bytes).await.expect("read");
            assert_eq!(&bytes[..read], expected.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_waited_for() {
        let (mut stream, mut client) = accepted(b"");
        // More than the buffers of both sockets hold.
        let much = vec![7; 32 << 20];
        let reading = tokio::task::spawn_blocking(move || {
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).map(|_| heard)
        });
        tokio::time::timeout(PATIENCE * 3, stream.write_all(&much)).await.expect("in time").expect("written");
        assert!(stream.fresh.is_none());
        drop(stream);
        assert!(reading.await.expect("joined").expect("read") == much);
    }
}
