//! Spikegate: an edge proxy that sells tickets.

pub mod answer;
pub mod config;
pub mod ledger;
pub mod sale;
pub mod telemetry;
