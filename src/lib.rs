//! Spikegate: an edge proxy that sells tickets.

pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod delivery;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod observe;
pub mod resolver;
pub mod sale;
pub mod server;
pub mod stores;
pub mod traffic;
pub mod upstream;
