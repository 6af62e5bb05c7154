//! Spikegate's order service.
//!
//! Without a database it is a demo backend: every path returns a description of the request ([`echo`]), and a header of
//! each response names the backend, for clients that count them. With a database it also stores orders ([`api`]).
//! [`page`] is the shop page, [`sales_page`] lists all sales. [`server`] listens and shuts down gracefully; [`health`]
//! checks whether a service is alive.
//!
//! ```text
//! edge ── signature ── delivery ── orders ──────────────┐
//!                                                       ├── database
//! buyer ── api ── settlement_worker ── settlements ─────┘
//!                  ├── payment   the payment provider
//!                  └── edge      the edge's control API, the only way to the ledger
//! ```

pub mod api;
mod clock;
pub mod database;
pub mod delivery;
pub mod echo;
pub mod edge;
pub mod health;
pub mod order;
pub mod orders;
pub mod page;
pub mod payment;
mod response;
pub mod sales_page;
pub mod server;
pub mod settlement_worker;
pub mod settlements;
pub mod signature;
