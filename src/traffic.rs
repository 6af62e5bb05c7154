//! The way of a request: accepted at the front door, answered there or passed to the proxy.

pub mod door;
pub mod entrance;
pub mod files;
pub mod front;
pub mod proxy;
pub mod request_error;
pub mod route;
pub mod rules;
pub mod tls;
