//! What requests come over: a socket, or TLS over one.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pingora::protocols::tls::SslDigest;
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::stream::Stream;
use crate::traffic::tls;

/// The two ways to and from a client. Plain connections are many and small, so TLS has a place of its own.
#[derive(Debug)]
pub enum Wire {
    /// As it is on the wire.
    Plain(Stream),
    /// Encrypted.
    Secure(Box<Secure>),
}

/// TLS after its handshake. A client that is still there is told of the end (RFC 8446, 6.1), if that can be done at
/// once.
#[derive(Debug)]
pub struct Secure(TlsStream<Stream>);

impl Wire {
    /// TLS whose handshake is over.
    pub fn secure(stream: TlsStream<Stream>) -> Self {
        Self::Secure(Box::new(Secure(stream)))
    }

    /// Whether client and edge have agreed on HTTP/2.
    pub fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(secure) => secure.0.get_ref().1.alpn_protocol() == Some(tls::H2),
        }
    }

    /// A number that no other open connection has.
    pub fn id(&self) -> RawFd {
        match self {
            Self::Plain(stream) => stream.as_raw_fd(),
            Self::Secure(secure) => secure.0.get_ref().0.as_raw_fd(),
        }
    }

    /// What was agreed on in the handshake; none without one.
    pub fn tls(&self) -> Option<Arc<SslDigest>> {
        let Self::Secure(secure) = self else { return None };
        let connection = secure.0.get_ref().1;
        let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        // As OpenSSL and Nginx's `$ssl_protocol` call them.
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "",
        };
        Some(Arc::new(SslDigest::new(suite.unwrap_or_default(), version, None, None, Vec::new())))
    }

    /// Writes what can be written at once. What is left is told, if only by TLS holding some of it back: `None` if
    /// nothing is.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn send<'a>(&mut self, cx: &mut Context<'_>, bytes: &'a [u8]) -> io::Result<Option<&'a [u8]>> {
        let written = match Pin::new(&mut *self).poll_write(cx, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        let is_all = written == bytes.len() && Pin::new(self).poll_flush(cx)?.is_ready();
        Ok((!is_all).then(|| &bytes[written..]))
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        // A client that is gone, or that does not read, is not waited for.
        let _ = Pin::new(&mut self.0).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Secure(secure) => Pin::new(&mut secure.0).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secure(secure) => Pin::new(&mut secure.0).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Secure(secure) => Pin::new(&mut secure.0).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secure(secure) => Pin::new(&mut secure.0).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(secure) => Pin::new(&mut secure.0).poll_shutdown(cx),
        }
    }
}
