//! A connection lent to Pingora, for one request or for good.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};

use super::flood::Frames;
use super::wire::Wire;

/// Pingora writes head and body of an answer apart; what fits in here leaves the machine together. It is as much as
/// Pingora's own streams hold back: more would delay the parts of an answer that a backend sends slowly.
const WRITE_BUFFER: usize = 1460;

/// A connection as Pingora sees it.
///
/// If it is known where the request ends, Pingora sees nothing of what follows: what it had read too much could not be
/// got back. It still learns that the client left.
#[derive(Debug)]
pub struct LoanedStream {
    /// Only [`LoanedStream::take_back`] takes it out.
    stream: Option<BufWriter<Wire>>,
    digest: Arc<SocketDigest>,
    /// The bytes of the request that are still to be read; `None` if nobody knows how many there are.
    owed: Option<u64>,
    /// What was read behind the request.
    behind: Vec<u8>,
    /// Of a connection of HTTP/2.
    frames: Option<Box<Frames>>,
}

impl LoanedStream {
    /// Lends `stream`, of which `owed` bytes belong to the request, or all bytes to Pingora.
    pub fn new(stream: Wire, peer: SocketAddr, owed: Option<u64>) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.id());
        // It is new, so this sets it; Pingora would ask the system for it.
        let _ = digest.peer_addr.set(Some(peer.into()));
        let stream = Some(BufWriter::with_capacity(WRITE_BUFFER, stream));
        Self { stream, digest: Arc::new(digest), owed, behind: Vec::new(), frames: None }
    }

    /// Lends `stream` for good, for HTTP/2.
    pub fn for_http2(stream: Wire, peer: SocketAddr) -> Self {
        let mut lent = Self::new(stream, peer, None);
        lent.frames = Some(Box::new(Frames::new(Instant::now())));
        lent
    }

    /// All bytes are Pingora's.
    fn poll_read_all(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.stream()?.poll_read(cx, buf))?;
        let seen = |frames: &mut Box<Frames>| frames.received(&buf.filled()[before..], Instant::now);
        Poll::Ready(self.frames.as_mut().map_or(Ok(()), seen))
    }

    fn count_sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Some(frames), Poll::Ready(Ok(written))) = (&mut self.frames, &written) {
            frames.sent(*written);
        }
        written
    }

    /// The stream, with what was read from it behind the request. `None` if not all of the request was read or not all
    /// of the answer written, which no request may follow.
    pub fn take_back(mut self) -> Option<(Wire, Vec<u8>)> {
        let stream = self.stream.take_if(|stream| self.owed == Some(0) && stream.buffer().is_empty())?;
        Some((stream.into_inner(), std::mem::take(&mut self.behind)))
    }

    fn stream(&mut self) -> io::Result<Pin<&mut BufWriter<Wire>>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Behind the request: only the end of the connection shows.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.behind.is_empty() {
            // The next request waits for its turn; the end can wait behind it.
            return Poll::Pending;
        }
        let mut bytes = [0; 512];
        let mut read = ReadBuf::new(&mut bytes);
        ready!(self.stream()?.poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.behind.extend_from_slice(read.filled());
        Poll::Pending
    }
}

impl AsyncRead for LoanedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.owed {
            None => self.poll_read_all(cx, buf),
            Some(0) => self.poll_end(cx),
            Some(owed) => {
                let most = usize::try_from(owed).unwrap_or(usize::MAX).min(buf.remaining());
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
                ready!(self.stream()?.poll_read(cx, &mut part))?;
                let read = part.filled().len();
                buf.advance(read);
                self.owed = Some(owed - read as u64);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for LoanedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write(cx, bytes);
        self.count_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write_vectored(cx, parts);
        self.count_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

impl Drop for LoanedStream {
    /// What Pingora has written without a flush is sent, as its own streams do.
    fn drop(&mut self) {
        if let Ok(stream) = self.stream() {
            let _ = stream.poll_flush(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[async_trait]
impl Shutdown for LoanedStream {
    async fn shutdown(&mut self) {
        // A client that is gone already is as good.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for LoanedStream {
    fn id(&self) -> UniqueIDType {
        self.stream.as_ref().map_or(-1, |stream| stream.get_ref().id())
    }
}

impl GetSocketDigest for LoanedStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetTimingDigest for LoanedStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for LoanedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl Ssl for LoanedStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.as_ref().and_then(|stream| stream.get_ref().tls())
    }
}

impl Peek for LoanedStream {}
