//! Integration tests: they start the real binaries, a real Redis and a real browser.
//!
//! `harness` starts processes, sends requests and reads what comes back. Every other module is a family of tests, and
//! families use nothing of each other. Each test has its own processes, ports and folder, so all tests can run at the
//! same time and in any order.
#![allow(clippy::print_stdout, reason = "tests print what they measured")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test and names the place")]

mod buying;
mod documents;
mod harness;
mod hostile;
mod ledgers;
mod operating;
mod orders;
mod page;
mod proxying;
mod torture;
