//! The order service that stands behind Spikegate.
//!
//! For now it serves as the demo's backends: every path is answered with what arrived ([`echo`]), and every answer says
//! which backend gave it, so that a client can count them. [`page`] is where people buy. [`server`] listens and ends cleanly.

pub mod echo;
pub mod page;
pub mod server;
