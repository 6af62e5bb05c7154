//! Ledgers: model, Redis and embedded agree, keep what they confirmed, and may fail.

mod agreement;
mod crash;
mod durability;
mod outage;
mod outboxes;
