//! What an edge records: metrics, traces, the access log and the error log.

pub mod access_log;
pub mod error_log;
pub mod log_file;
pub mod telemetry;
pub mod trace;
