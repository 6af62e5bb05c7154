//! Spikegate: an edge proxy that sells tickets.

pub mod access_log;
pub mod admission;
pub mod answer;
pub mod client;
pub mod config;
pub mod control;
pub mod delivery;
pub mod entrance;
pub mod error_log;
pub mod front;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod host;
pub mod jwt;
pub mod ledger;
pub mod limits;
pub mod log_file;
pub mod logs;
pub mod proxy;
pub mod reload;
pub mod request_id;
pub mod resolver;
pub mod route;
pub mod rules;
pub mod sale;
pub mod server;
pub mod shop;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod upstream;
