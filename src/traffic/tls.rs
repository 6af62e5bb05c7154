//! TLS on listeners: which certificate is shown to whom, and how certificates are replaced while connections go on.
//!
//! Versions, cipher suites and groups are rustls's own, which are those that Mozilla calls intermediate, without DHE. A
//! session can be resumed by its ticket, at this edge and until it is started again. Early data (0-RTT) is never taken:
//! it can be sent again by whoever has seen it, and a purchase is not to be made twice.

mod choice;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use choice::Choice;

use crate::auth::certificate::Certificate;
use crate::config;

/// HTTP/2, as clients and servers agree on it by ALPN (RFC 7301).
pub const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// What ends TLS on one listener.
pub struct Terminator {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
}

/// The certificates of a listener.
#[derive(Debug)]
struct Shown(Choice);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.choose(hello.server_name(), hello.signature_schemes())
    }
}

/// Why TLS cannot be offered: every file that is at fault.
#[derive(Debug, thiserror::Error)]
pub struct Error(Vec<String>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Terminator {
    /// One with the certificates of `settings`, that offers HTTP/2 if `http2`. It takes sessions up again that clients
    /// began `before`.
    ///
    /// # Errors
    /// If a certificate or a key cannot be used, or the system has no randomness to give.
    pub fn new(settings: &config::Tls, http2: bool, before: Option<&Self>) -> Result<Self, Error> {
        let shown = Arc::new(Shown(read(settings)?));
        let versions: &[_] = match settings.min_version {
            config::TlsVersion::Tls12 => &[&TLS13, &TLS12],
            config::TlsVersion::Tls13 => &[&TLS13],
        };
        let refused = |error: rustls::Error| Error(vec![error.to_string()]);
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .map_err(refused)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.ticketer = match before {
            Some(before) => Arc::clone(&before.acceptor.config().ticketer),
            None => aws_lc_rs::Ticketer::new().map_err(refused)?,
        };
        config.alpn_protocols = if http2 { vec![H2.to_vec(), HTTP_1_1.to_vec()] } else { vec![HTTP_1_1.to_vec()] };
        Ok(Self { acceptor: Arc::new(config).into(), shown })
    }

    /// Until when the first of its certificates to end is valid.
    #[must_use]
    pub fn first_end(&self) -> Option<SystemTime> {
        self.shown.0.first_end
    }

    /// Whether clients are shown the same certificates by both.
    #[must_use]
    pub fn shows_the_same(&self, other: &Self) -> bool {
        self.shown.0.is_of_the_same(&other.shown.0)
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// If the client leaves, or does not speak TLS as the settings ask for.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        self.acceptor.accept(stream).await
    }
}

/// The certificates of a listener, read from their files. One that is not valid now is shown all the same, with a
/// warning: a listener that refuses everybody helps nobody.
fn read(settings: &config::Tls) -> Result<Choice, Error> {
    let mut faults = Vec::new();
    let mut certificates = Vec::new();
    for files in &settings.certificates {
        match Certificate::read(files) {
            Ok(certificate) => certificates.push(certificate),
            Err(fault) => faults.push(fault.to_string()),
        }
    }
    if !faults.is_empty() {
        return Err(Error(faults));
    }
    settings.warnings(SystemTime::now()).iter().for_each(|warning| log::warn!("{warning}"));
    Ok(Choice::new(certificates))
}

#[cfg(test)]
mod tests;
