//! `listen`: public addresses, and what is spoken there.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use ipnet::IpNet;
use serde_yaml::Value;

use super::node::{Fields, Node};
use super::value::{file_path, flag, listen_address, number, text, word};
use crate::auth::certificate::{Certificate, CertificateFiles};

/// One public address, and what is spoken there.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where clients come in.
    pub address: SocketAddr,
    /// How connections are encrypted; none: they are not.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is spoken besides HTTP/1: with TLS by agreement (`http2`, by default), without it to clients that
    /// know beforehand (`h2c`, not by default).
    pub http2: bool,
    /// Every request is led to HTTPS; only without TLS.
    pub redirect_https: Option<Redirect>,
    /// Connections begin with the PROXY protocol's header.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A listener for plain HTTP/1.
impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None, http2: false, redirect_https: None, proxy_protocol: None }
    }
}

/// TLS on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first is for clients that ask for a name that none has.
    pub certificates: Vec<CertificateFiles>,
    /// Default 1.2.
    pub min_version: TlsVersion,
}

impl Tls {
    /// What clients may not like about the certificates at this time, in words. Certificates that cannot be read are
    /// left out: the reader of the file reports those.
    #[must_use]
    pub fn warnings(&self, now: SystemTime) -> Vec<String> {
        let warning = |(index, files): (usize, &CertificateFiles)| {
            let certificate = Certificate::read(files).ok()?;
            let nameless = || {
                (index > 0 && certificate.names.is_empty()).then(|| "is for no name, so it is never used".to_owned())
            };
            let warning = certificate.trouble_at(now).or_else(nameless)?;
            Some(format!("certificate {}: {warning}", files.certificate.display()))
        };
        self.certificates.iter().enumerate().filter_map(warning).collect()
    }
}

/// The versions of TLS that are not broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// How clients are led to HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// 301 or 308, the default. Methods other than GET and HEAD are always led by 308, after which clients keep them.
    pub code: u16,
    /// The port of HTTPS as clients see it; default 443, which is not named.
    pub port: u16,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { code: 308, port: 443 }
    }
}

/// Whose PROXY header is believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyProtocol {
    /// Only connections from these networks have a header; all others begin with what the client says. Empty: all have
    /// one.
    pub from: Vec<IpNet>,
}

pub(super) fn listener(node: &Node<'_>) -> Listener {
    node.mapping(|listener| {
        let address = listener.require("address", listen_address);
        let tls = listener.read("tls", |node| Some(tls(node)));
        let http2 = listener.read("http2", flag);
        let h2c = listener.read("h2c", flag);
        let redirect_https = listener.read("redirect_https", redirect);
        let proxy_protocol = listener.read("proxy_protocol", proxy_protocol);
        if http2.is_some() && tls.is_none() {
            listener.error("http2", "has no effect without tls; use h2c for HTTP/2 without TLS");
        }
        if h2c.is_some() && tls.is_some() {
            listener.error("h2c", "is HTTP/2 without TLS; use http2 with tls");
        }
        let redirect_https = redirect_https.flatten();
        if redirect_https.is_some() {
            let other = if tls.is_some() { Some("tls") } else { (h2c == Some(true)).then_some("h2c") };
            if let Some(other) = other {
                listener.error(
                    "redirect_https",
                    format!("cannot be combined with {other}: it redirects plain HTTP/1 to HTTPS"),
                );
            }
        }
        Listener {
            address: address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            http2: if tls.is_some() { http2.unwrap_or(true) } else { h2c.unwrap_or(false) },
            tls,
            redirect_https,
            proxy_protocol: proxy_protocol.flatten(),
        }
    })
}

fn tls(node: &Node<'_>) -> Tls {
    node.mapping(|tls| {
        if !tls.has("certificates") {
            tls.error("certificates", "is missing");
        }
        let certificates = tls.read("certificates", |node| Some(node.filled_list(certificate))).unwrap_or_default();
        let version = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
        Tls { certificates, min_version: tls.read("min_version", decimal(&version)).unwrap_or(TlsVersion::Tls12) }
    })
}

/// A word that YAML takes for a number.
fn decimal<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&Node<'_>) -> Option<T> {
    move |node| match node.value() {
        Value::Number(number) => {
            let found = words.iter().find(|(word, _)| *word == number.to_string());
            found.map(|(_, meaning)| *meaning).or_else(|| word(words)(node))
        }
        _ => word(words)(node),
    }
}

/// Both files are read, so that what is wrong with them is told before anything is started.
fn certificate(node: &Node<'_>) -> CertificateFiles {
    node.mapping(|files| {
        let certificate = files.require("certificate", file_path);
        let key = files.require("key", file_path);
        let read = |path: Option<PathBuf>| path.unwrap_or_default();
        let are_named = certificate.is_some() && key.is_some();
        let named = CertificateFiles { certificate: read(certificate), key: read(key) };
        if are_named && let Err(fault) = Certificate::read(&named) {
            files.error(fault.setting, fault.what);
        }
        named
    })
}

/// `true`, `false`, or settings.
fn unless_off<T: Default>(node: &Node<'_>, read: impl FnOnce(&mut Fields<'_>) -> T) -> Option<Option<T>> {
    match node.value() {
        Value::Bool(on) => Some(on.then(T::default)),
        Value::Mapping(_) => Some(Some(node.mapping(read))),
        _ => node.refuse("must be true, false or a mapping of settings"),
    }
}

fn redirect(node: &Node<'_>) -> Option<Option<Redirect>> {
    unless_off(node, |redirect| {
        let default = Redirect::default();
        let code = redirect.read("code", |node| {
            let code = node.value().as_u64().and_then(|code| u16::try_from(code).ok());
            code.filter(|code| [301, 308].contains(code)).or_else(|| node.refuse("must be 301 or 308"))
        });
        let port = redirect.read("port", number(1..=65535));
        Redirect { code: code.unwrap_or(default.code), port: port.unwrap_or(default.port) }
    })
}

fn proxy_protocol(node: &Node<'_>) -> Option<Option<ProxyProtocol>> {
    unless_off(node, |protocol| {
        let from = protocol.require("from", |node| Some(node.filled_list(network))).unwrap_or_default();
        ProxyProtocol { from: from.into_iter().flatten().collect() }
    })
}

/// A network, or a single address.
fn network(node: &Node<'_>) -> Option<IpNet> {
    text("must be a network or an address, such as 10.0.0.0/8 or 192.0.2.7", |text| {
        text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()))
    })(node)
}
