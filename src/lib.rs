//! Spikegate: an edge proxy that sells tickets.

pub mod config;
