//! The order service that stands behind Spikegate.
//!
//! Without a database it is only the demo's backends: every path is answered with what arrived ([`echo`]), and every
//! answer says which backend gave it, so that a client can count them. With one it keeps orders as well ([`api`]).
//! [`page`] is where people buy, [`sales_page`] lists what is sold. [`server`] listens and ends cleanly; [`health`]
//! asks whether it is alive.
//!
//! ```text
//! edge ── signature ── delivery ── orders ────────┐
//!                                                 ├── database
//! buyer ── api ── cashier ── settlements ─────────┘
//!                  ├── payment   whoever takes the money
//!                  └── edge      the control API, the only way to the ledger
//! ```

pub mod api;
pub mod cashier;
mod clock;
pub mod database;
pub mod delivery;
pub mod designs;
pub mod echo;
pub mod edge;
pub mod health;
pub mod order;
pub mod orders;
pub mod page;
pub mod payment;
pub mod sales_page;
pub mod server;
pub mod settlements;
pub mod signature;
