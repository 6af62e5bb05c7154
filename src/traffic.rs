//! The path of a request: the front door accepts it and either answers it or passes it to the proxy.

pub mod door;
pub mod entrance;
pub mod files;
pub mod front;
pub mod proxy;
pub mod request_error;
pub mod route;
pub mod rules;
pub mod tls;
