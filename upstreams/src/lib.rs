//! The order service that stands behind Spikegate.
//!
//! For now it serves as the demo's backends: every path is answered with what arrived ([`echo`]), and every answer says
//! which backend gave it, so that a client can count them. [`server`] listens and ends cleanly.

pub mod echo;
pub mod server;
