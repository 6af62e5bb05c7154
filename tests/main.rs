//! Starts the real binaries, a real Redis and a real browser, and tells stories about them.
//!
//! `harness` holds what the stories are told with; every other module is one family of stories. Each test has its own
//! processes, ports and folder, so that all of them run at the same time and in any order.
#![allow(clippy::print_stdout, reason = "a story tells what it did and measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, and says where")]

mod admission;
mod answers;
mod article;
mod balance;
mod clients;
mod crash;
mod delivery;
mod durability;
mod exactness;
mod front;
mod harness;
mod holds;
mod hostile;
mod http2;
mod ledgers;
mod logs;
mod metrics;
mod mutants;
mod names;
mod nginx;
mod odd_requests;
mod operating;
mod orders;
mod outage;
mod outboxes;
mod packaging;
mod page;
mod process;
mod proxy_protocol;
mod proxying;
mod purchase;
mod redirect;
mod reload;
mod retries;
mod shop;
mod tls;
mod tokens;
mod torture;
mod tracing;
mod upgrade;
mod websocket;
