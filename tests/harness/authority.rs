//! An authority that makes certificates, and clients that trust it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::answer::Answer;
use super::client::{ANSWER_PATIENCE, Request};

/// Who vouches for the certificates of a test, and where their files are.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Certificates have the usual name, and one that has its issuer's name looks as if it vouched for itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::with_prefix("spikegate-tls-").unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// The authority's own certificate, for clients.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Makes a certificate for these names, in files called `file`, and gives the entry of `certificates` that names
    /// them.
    pub fn certificate(&self, file: &str, names: &[&str]) -> Value {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        json!({ "certificate": path("pem"), "key": path("key") })
    }

    /// Settings of a client that trusts the authority and offers these protocols.
    pub fn client(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let mut config =
            config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// A connection over TLS, to the server of this name.
    pub fn connect(&self, address: SocketAddr, name: &str) -> Secure {
        self.try_connect(address, name).unwrap_or_else(|error| panic!("no TLS with {name} at {address}: {error}"))
    }

    pub fn try_connect(&self, address: SocketAddr, name: &str) -> io::Result<Secure> {
        self.over(TcpStream::connect(address)?, name)
    }

    /// TLS over a connection that has begun already.
    pub fn over(&self, mut stream: TcpStream, name: &str) -> io::Result<Secure> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = ClientConnection::new(self.client(&[]), name).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Secure { stream: StreamOwned::new(session, stream), buffer: Vec::new() })
    }
}

/// A connection over TLS that speaks HTTP/1.
pub struct Secure {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl Secure {
    /// A connection before the first byte, for a protocol other than HTTP.
    pub fn into_stream(self) -> StreamOwned<ClientConnection, TcpStream> {
        self.stream
    }

    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Answer {
        self.send(&request.bytes());
        self.answer()
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        Answer::read(&mut self.stream, &mut self.buffer, false).unwrap()
    }

    /// Exactly `length` bytes, for a connection that no longer speaks HTTP.
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        let begun = bytes.len();
        assert!(begun <= length, "more came than was waited for");
        bytes.resize(length, 0);
        self.stream.read_exact(&mut bytes[begun..]).unwrap();
        bytes
    }

    /// Waits for the end of the connection, which must come with `close_notify`.
    #[track_caller]
    pub fn ends(&mut self) {
        assert_eq!(self.stream.read(&mut [0]).expect("an end that is told"), 0);
    }
}
