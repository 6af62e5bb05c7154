//! The listening sockets: bound, or inherited from the old process.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use super::StartError;
use crate::config::Config;

/// Connections that may wait to be accepted; the system caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// One socket for each address.
pub struct Sockets {
    /// In the order of the configuration.
    pub public: Vec<TcpListener>,
    /// The control listener's.
    pub control: TcpListener,
}

impl Sockets {
    /// Keeps the `inherited` sockets that the configuration has an address for, closes the others and binds what is
    /// missing. All of it happens before anything else, so an edge that cannot bind has changed nothing.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub fn open(config: &Config, mut inherited: Vec<TcpListener>) -> Result<Self, StartError> {
        let mut open = |address: &SocketAddr| {
            let is_there = |socket: &TcpListener| {
                let own = socket.local_addr().map(|own| (own.ip(), own.port()));
                own.is_ok_and(|own| own == (address.ip(), address.port()))
            };
            match inherited.iter().position(is_there) {
                Some(index) => Ok(inherited.swap_remove(index)),
                None => bind(address),
            }
        };
        let public = config.listen.iter().map(|listener| open(&listener.address)).collect::<Result<_, _>>()?;
        Ok(Self { public, control: open(&config.control.listen)? })
    }

    /// All sockets, to hand over.
    pub fn all(&self) -> Vec<BorrowedFd<'_>> {
        self.public.iter().chain([&self.control]).map(AsFd::as_fd).collect()
    }
}

/// A listening socket. `[::]` accepts IPv6 only, as nginx's `ipv6only=on`, so it can be used beside 0.0.0.0.
fn bind(address: &SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Accepted connections inherit it. An answer is written whole, so there is no reason to delay it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&(*address).into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bound().map_err(|source| StartError::Bind { address: *address, source })
}

/// Describes the error and how to mend it.
pub fn bind_trouble(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            let program = std::env::current_exe().map_or_else(|_| "PATH".to_owned(), |path| path.display().to_string());
            format!(
                "permission denied; an ordinary user may not bind ports below 1024: \
                 sudo setcap 'cap_net_bind_service=+ep' {program}, or choose another port"
            )
        }
        io::ErrorKind::AddrInUse => "the address is already in use".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_with_a_port_says_what_to_do() {
        let trouble = |port, kind: io::ErrorKind| {
            StartError::Bind { address: ([0, 0, 0, 0], port).into(), source: kind.into() }.to_string()
        };
        let text = trouble(80, io::ErrorKind::PermissionDenied);
        assert!(text.starts_with("listen 0.0.0.0:80: permission denied; an ordinary user may not bind"), "{text}");
        assert!(text.contains("sudo setcap 'cap_net_bind_service=+ep' /"), "{text}");
        let text = trouble(8080, io::ErrorKind::AddrInUse);
        assert_eq!(text, "listen 0.0.0.0:8080: the address is already in use");
    }

    #[test]
    fn what_was_inherited_is_not_bound_again() {
        let [one, other, third] = [(); 3].map(|()| bind(&([127, 0, 0, 1], 0).into()).expect("a free port"));
        let [first, second] = [&one, &other].map(|socket| socket.local_addr().expect("its address"));
        let free = third.local_addr().expect("its address");
        let yaml = format!(
            "listen: [{{ address: {free} }}, {{ address: {first} }}]\ncontrol: {{ listen: {second} }}\nsales: {{ ticket: {{}} }}"
        );
        let config = Config::from_yaml(&yaml).expect("settings");
        drop(third);
        let sockets = Sockets::open(&config, vec![other, one]).expect("both are there, and one is bound");
        let addresses: Vec<_> = sockets.public.iter().map(|socket| socket.local_addr().expect("one")).collect();
        assert_eq!(addresses, [free, first]);
        assert_eq!(sockets.all().len(), 3);
    }

    #[test]
    fn a_port_in_use_is_told() {
        let taken = bind(&([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = taken.local_addr().expect("its address");
        assert!(matches!(bind(&address), Err(StartError::Bind { .. })));
        drop(taken);
        assert!(bind(&address).is_ok());
    }
}
