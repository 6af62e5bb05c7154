//! Starts the real binaries, a real Redis and a real browser, and tells stories about them.
//!
//! `harness` holds what the stories are told with; every other module is one family of stories. Each test has its own
//! processes, ports and folder, so that all of them run at the same time and in any order.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, and says where")]

mod article;
mod balance;
mod crash;
mod delivery;
mod exactness;
mod front;
mod harness;
mod holds;
mod ledgers;
mod odd_requests;
mod operating;
mod outage;
mod outboxes;
mod page;
mod process;
mod proxying;
mod purchase;
mod retries;
