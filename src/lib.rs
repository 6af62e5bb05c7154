//! Spikegate: an edge proxy that sells tickets.
//!
//! # The way of a purchase
//!
//! [`traffic::front`] reads the request, [`sale::shop`] finds the sale by its path, [`sale::request`] reads the
//! purchase, [`sale::gate`] refuses it from memory or [`sale::batch`] queues it, a [`ledger::Ledger`] decides the batch
//! in one step, and [`sale::reply`] turns the outcome into HTTP. [`sale::sync`] keeps the gates up to date and releases
//! unpaid orders; [`delivery`] sends every change to the order service.
//!
//! # The way of any other request
//!
//! [`traffic::front`] lends the connection to Pingora. [`traffic::proxy`] asks [`traffic::entrance`], finds the route
//! ([`traffic::route`]) and a backend ([`upstream`]), and passes the response on.
//!
//! # The families
//!
//! Words below, settings in the middle, machines above; a machine never knows its caller. The lists below go from the
//! words to the machines. ARCHITECTURE.md describes the families, and tests/house checks which of them may use which.

// Words: what is sold and asked for.
pub mod auth;
mod http;
pub mod ledger;
mod resolver;

// Settings.
mod config;

// Machines that serve the others.
mod limits;
mod observe;
pub mod stores;
mod upstream;

// Machines that sell, deliver and proxy.
pub mod delivery;
mod sale;
mod traffic;

// Machines for the operator.
pub mod cli;
mod control;
mod server;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
