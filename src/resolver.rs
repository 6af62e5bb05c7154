//! From names to addresses: by the system, or by DNS servers that the settings name.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::runtime::Builder;

/// How long one question to one DNS server may take, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// Whoever knows the addresses of names. Nothing is remembered: who asks again wants to know anew.
pub enum Resolver {
    /// The system, with its files and services (`getaddrinfo`).
    System,
    /// DNS servers.
    Servers(Box<TokioResolver>),
}

impl Resolver {
    /// These DNS servers, or the system if there are none.
    ///
    /// # Errors
    ///
    /// If no resolver can be made of them.
    pub fn new(servers: &[SocketAddr]) -> io::Result<Self> {
        if servers.is_empty() {
            return Ok(Self::System);
        }
        let server = |address: &SocketAddr| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections.iter_mut().for_each(|connection| connection.port = address.port());
            server
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.build().map_err(io::Error::other)?;
        Ok(Self::Servers(Box::new(resolver)))
    }

    /// The addresses of `host:port`, each once; at least one.
    ///
    /// # Errors
    ///
    /// If there are none, or nobody says which.
    pub async fn addresses(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => each_once(tokio::net::lookup_host(name).await?),
            Self::Servers(resolver) => {
                let no_port = || io::Error::other("it has no port");
                let (host, port) = name.rsplit_once(':').ok_or_else(no_port)?;
                let port: u16 = port.parse().map_err(|_| no_port())?;
                let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
                each_once(found.iter().map(|address| SocketAddr::new(address, port)))
            }
        }
    }
}

/// The addresses of `host:port`, for whoever has no runtime, or must not wait on the one that it has.
///
/// # Errors
///
/// As [`Resolver::addresses`].
pub fn addresses_now(name: &str, servers: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    if servers.is_empty() {
        return each_once(name.to_socket_addrs()?);
    }
    let ask = || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Resolver::new(servers)?.addresses(name).await })
    };
    // A thread that runs one runtime cannot wait on another.
    std::thread::scope(|scope| {
        let panicked = |_| Err(io::Error::other("the resolver panicked"));
        scope.spawn(ask).join().unwrap_or_else(panicked)
    })
}

fn each_once(found: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(addresses) }
}
