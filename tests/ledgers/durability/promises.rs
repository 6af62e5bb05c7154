//! The edge compares what the configuration promises of Redis with how Redis is configured.

use std::process::Command;

use serde_json::json;

use super::{sells_on, tickets};
use crate::harness::process::{binary, free_address};
use crate::harness::purchase::{purchase, purchase_with_key};
use crate::harness::{Edge, Redis, Request, buy, eventually};

#[test]
fn an_edge_does_not_sell_from_a_redis_that_is_weaker_than_promised() {
    let redis = Redis::start_everysec();
    let setup = Edge::setup().redis(&redis).ticket(tickets(10)).with_redis("durability", json!("always"));
    let config = setup.write(free_address(), free_address());
    let refused = Command::new(binary("spikegate")).args(["run", "--config"]).arg(config).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("durability: always") && said.contains("appendfsync everysec"), "{said}");
    assert_eq!(redis.command::<u64>("EXISTS ticket_hash_key"), 0, "and nothing was made");

    // With what it is, it sells, and says what may be lost; without a promise too.
    let edge = setup.clone().with_redis("durability", json!("everysec")).start();
    edge.wait_for_log("may lose about a second of orders");
    sells_on(&edge);
}

#[test]
fn a_redis_that_becomes_weaker_is_left_at_the_next_connection() {
    let redis = Redis::start();
    let setup = Edge::setup().redis(&redis).ticket(tickets(10));
    let edge = setup.with_redis("durability", json!("always")).start();
    sells_on(&edge);
    redis.command::<()>("CONFIG SET appendfsync everysec");
    redis.command::<()>("CLIENT KILL TYPE normal SKIPME yes");
    eventually("it stops", || (buy(edge.address(), &purchase()).name() == "ledger-unavailable").then_some(()));
    edge.wait_for_log("is weaker than ledger.redis says");
    redis.command::<()>("CONFIG SET appendfsync always");
    sells_on(&edge);
}

#[test]
fn an_edge_that_promises_durability_does_not_start_under_an_eviction_policy() {
    let redis = Redis::start();
    redis.command::<()>("CONFIG SET maxmemory-policy allkeys-lru");
    redis.command::<()>("CONFIG SET maxmemory 100mb");
    let setup = Edge::setup().redis(&redis).ticket(tickets(10));
    let edge = setup.clone().start();
    edge.wait_for_log("maxmemory-policy is allkeys-lru");
    let promising = setup.with_redis("durability", json!("always"));
    let config = promising.write(free_address(), free_address());
    let refused = Command::new(binary("spikegate")).args(["run", "--config"]).arg(config).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it has to be noeviction"));
}

#[test]
fn where_redis_may_not_be_asked_the_edge_says_so_and_sells() {
    let redis = Redis::start();
    redis.command::<()>("ACL SETUSER default -config -info");
    let setup = Edge::setup().redis(&redis).ticket(tickets(10)).with_redis("durability", json!("always"));
    let edge = setup.start();
    sells_on(&edge);
    edge.wait_for_log("CONFIG GET is not allowed");
    edge.wait_for_log("does not allow INFO");
}

#[test]
fn an_order_that_its_replica_does_not_have_yet_is_unknown_and_known_once_it_has() {
    let redis = Redis::start_everysec();
    let replica = Redis::start_replica_of(&redis);
    let setup = Edge::setup().redis(&redis).ticket(json!({ "total": 10, "deadline": "3s", "hold": "1h" }));
    let setup = setup.with_redis("replicas", json!({ "acknowledge": 1, "timeout": "200ms" }));
    let (edge, other) = (setup.clone().start(), setup.start());
    let first = sells_on(&edge);

    replica.freeze();
    let key = purchase_with_key("mine");
    let unknown = buy(edge.address(), &key);
    assert_eq!(unknown.name(), "outcome-unknown", "{unknown:?}");
    let elsewhere = buy(other.address(), &key);
    assert!(["outcome-unknown", "ledger-unavailable"].contains(&elsewhere.name()), "{elsewhere:?}");
    let settled = edge
        .control(&Request::post(&format!("/sales/ticket/orders/{first}/confirm")).json(&json!({ "payment": "p-1" })));
    assert_eq!(settled.problem(), "outcome-unknown", "a payment neither");

    replica.thaw();
    let known = eventually("it is known", || {
        let outcome = buy(other.address(), &key);
        outcome.is_order().then_some(outcome)
    });
    assert_eq!(known.id(), unknown.id());
    assert_eq!(buy(edge.address(), &key).id(), unknown.id());
    assert_eq!(redis.books_agree().len(), 2);
    let settled = edge.settle(&first, "confirm", &json!({ "payment": "p-1" }));
    assert_eq!(settled.status, 200, "{settled:?}");
}
