//! Spikegate: an edge proxy that sells tickets.

pub mod config;
pub mod proxy;
pub mod route;
pub mod server;
pub mod upstream;
