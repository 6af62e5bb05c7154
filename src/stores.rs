//! Where a ledger is kept: in Redis, for any number of edges, or in an embedded database, for one edge.

pub mod embedded;
pub mod redis;
