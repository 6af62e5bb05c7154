//! Spikegate: an edge proxy that sells tickets.

pub mod answer;
pub mod config;
pub mod control;
pub mod delivery;
pub mod front;
pub mod ledger;
pub mod proxy;
pub mod route;
pub mod sale;
pub mod server;
pub mod shop;
pub mod telemetry;
pub mod upstream;
