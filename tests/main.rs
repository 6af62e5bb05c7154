//! Starts the real binaries, a real Redis and a real browser, and tells stories about them.
//!
//! `harness` holds what the stories are told with; every other module is one family of stories. Each test has its own
//! processes, ports and folder, so that all of them run at the same time and in any order.
#![allow(clippy::print_stdout, reason = "a story tells what it did and measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, and says where")]

mod buying {
    mod admission;
    mod article;
    mod exactness;
    mod holds;
    mod odd_requests;
    mod purchase;
    mod retries;
    mod tokens;
}
mod harness;
mod hostile;
mod ledgers {
    mod agreement;
    mod crash;
    mod durability;
    mod outage;
    mod outboxes;
}
mod operating {
    mod logs;
    mod metrics;
    mod packaging;
    mod reload;
    mod sales;
    mod starting_and_stopping;
    mod tracing;
    mod upgrade;
}
mod orders;
mod page;
mod proxying {
    mod answers;
    mod backend_names;
    mod balancing;
    mod client_addresses;
    mod coming_from_nginx;
    mod front;
    mod http2;
    mod proxy_protocol;
    mod redirect;
    mod requests;
    mod tls;
    mod websockets;
}
mod torture;
