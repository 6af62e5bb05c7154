//! Requests and connections that are not purchases: routes, backends, TLS, HTTP/2 and who a client is.

mod answers;
mod backend_names;
mod balancing;
mod client_addresses;
mod coming_from_nginx;
mod framing;
mod front;
mod http2;
mod proxy_protocol;
mod redirect;
mod requests;
mod tls;
mod websockets;
