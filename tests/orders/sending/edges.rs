//! Edges that are started, stopped and killed during a delivery, and Redis that restarts. Everything is delivered.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::{LEASE, all_is_delivered, buy_many, embedded, in_redis, known, orders_of, status, tickets, told};
use crate::harness::purchase::purchase;
use crate::harness::receiver::Mood;
use crate::harness::{Edge, Network, PATIENCE, Receiver, Redis, buy, eventually, within};

/// The entries of the log up to `version`, of which none may be missing.
#[track_caller]
fn no_entry_is_missing(receivers: &[&Receiver], version: u64) {
    let heard: BTreeSet<u64> = receivers.iter().flat_map(|receiver| receiver.entries().into_keys()).collect();
    assert_eq!(heard, (1..=version).collect());
}

fn owner(edge: &Edge) -> Option<String> {
    status(edge)["owner"].as_str().map(str::to_owned)
}

#[test]
fn an_edge_killed_while_it_delivers_goes_on_when_it_is_started_again() {
    let receiver = Receiver::start();
    let mut edge = embedded(&receiver);
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        receiver.takes(Duration::from_millis(200));
        ids.extend(buy_many(&edge, 200));
        let before = receiver.posts();
        ids.insert(buy(edge.address(), &purchase()).id().to_owned());
        // It may or may not be that of the last order; it is not answered when the edge is killed.
        eventually("a post is under way", || (receiver.posts() > before).then_some(()));
        edge.kill9();
        edge.start_again();
    }
    receiver.takes(Duration::ZERO);
    let version = all_is_delivered(&edge)["version"].as_u64().unwrap();
    assert_eq!(known(&receiver), ids);
    assert!(receiver.orders().values().all(|kinds| *kinds == ["held"]), "nothing is newer than what was there");
    no_entry_is_missing(&[&receiver], version);
}

#[test]
fn another_edge_goes_on_where_a_killed_one_stopped() {
    let redis = Redis::start();
    let receiver = Receiver::start();
    let mut first = in_redis(&redis, &receiver);
    all_is_delivered(&first);
    let second = in_redis(&redis, &receiver);
    let dead = owner(&first);
    receiver.is(Mood::KeepsInSilence);
    let ids = buy_many(&first, 500);
    let before = receiver.posts();
    eventually("it delivers", || (receiver.posts() > before).then_some(()));
    first.kill9();
    receiver.is(Mood::Well);
    within(LEASE + PATIENCE, "the other goes on", || (status(&second)["lag_entries"] == 0).then_some(()));
    assert_ne!(owner(&second), dead);
    assert_eq!(known(&receiver), ids);
    assert!(receiver.orders().values().all(|kinds| *kinds == ["held"]));
    no_entry_is_missing(&[&receiver], status(&second)["version"].as_u64().unwrap());
    redis.books_agree();
}

#[test]
fn two_edges_share_and_one_that_ends_in_good_order_hands_over_at_once() {
    let redis = Redis::start();
    let receivers = [Receiver::start(), Receiver::start()];
    // With leases of 102 s, of which at least 51 s are left at any time.
    let mut edges = receivers.each_ref().map(|receiver| {
        let setup = told(Edge::setup().redis(&redis), &[receiver]);
        let delivery = json!({ "upstream": "orders", "secret_file": "secret", "timeout": "50s" });
        setup.set("delivery", delivery).ticket(tickets(1_000)).start()
    });
    let mut ids = BTreeSet::new();
    for edge in &edges {
        ids.extend(buy_many(edge, 300));
    }
    all_is_delivered(&edges[0]);
    let posted = receivers.each_ref().map(|receiver| receiver.posts() > 0);
    assert_eq!(posted.iter().filter(|posted| **posted).count(), 1, "one of them delivers, not both: {posted:?}");
    let working = usize::from(posted[1]);
    assert_eq!(receivers[working].events().len(), 601, "nothing came twice");
    assert_eq!(owner(&edges[0]), owner(&edges[1]), "both know who it is");

    edges[working].signal("TERM");
    edges[working].wait();
    let other = 1 - working;
    let order = buy(edges[other].address(), &purchase());
    ids.insert(order.id().to_owned());
    eventually("the other goes on before the lease would have ended", || {
        known(&receivers[other]).contains(order.id()).then_some(())
    });
    assert_eq!(receivers[other].events().len(), 1, "and begins where the first one stopped");
    assert_eq!(known(&receivers[0]).len() + known(&receivers[1]).len(), ids.len());
}

/// An edge in the middle of a delivery of several POSTs stops in some way for longer than its lease, while another edge
/// goes on, and comes back. `stop` and `come_back` are given the edge and its way to Redis.
fn back_after_its_lease(stop: impl Fn(&Edge, &Network), come_back: impl Fn(&Edge, &Network)) {
    let redis = Redis::start();
    let seller = Edge::setup().redis(&redis).ticket(tickets(10_000)).start();
    let ids = buy_many(&seller, 1_500);

    let receivers = [Receiver::start(), Receiver::start()];
    let delivery = json!({ "upstream": "orders", "secret_file": "secret", "timeout": "1s" });
    let network = Network::to(redis.address());
    receivers[0].takes(Duration::from_millis(500));
    let patient = json!({ "total": 10_000, "deadline": "20s" });
    let setup = Edge::setup().redis_at(&network.redis_url(), "15s").ticket(patient);
    let stopped = told(setup, &[&receivers[0]]).set("delivery", delivery.clone()).start();
    eventually("it delivers", || (receivers[0].posts() > 0).then_some(()));
    stop(&stopped, &network);
    let setup = told(Edge::setup().redis(&redis), &[&receivers[1]]).ticket(tickets(10_000));
    let other = setup.set("delivery", delivery).start();
    eventually("the other goes on", || (status(&other)["lag_entries"] == 0).then_some(()));
    assert!(!receivers[1].events().is_empty(), "something was left for it");

    let posts = receivers[0].posts();
    come_back(&stopped, &network);
    eventually("it knows whose turn it is", || (owner(&stopped) == owner(&other)).then_some(()));
    let more = buy_many(&seller, 10);
    all_is_delivered(&other);
    assert_eq!(receivers[0].posts(), posts, "it has posted nothing since");
    let orders = orders_of(&[&receivers[0], &receivers[1]]);
    assert_eq!(orders.into_keys().collect::<BTreeSet<_>>(), ids.union(&more).cloned().collect());
    no_entry_is_missing(&[&receivers[0], &receivers[1]], status(&other)["version"].as_u64().unwrap());
}

#[test]
fn an_edge_stopped_beyond_its_lease_posts_nothing_of_what_is_another_edges_now() {
    back_after_its_lease(|edge, _| edge.signal("STOP"), |edge, _| edge.signal("CONT"));
}

#[test]
fn an_edge_that_hears_of_its_ledger_too_late_posts_nothing_of_what_is_another_edges_now() {
    // What it wrote down of its first POST is done, and it is told so when its lease is over.
    back_after_its_lease(|_, network| network.hold_replies(), |_, network| network.release());
}

#[test]
fn a_redis_that_is_started_again_loses_no_delivery() {
    let mut redis = Redis::start();
    let receiver = Receiver::start();
    let edge = in_redis(&redis, &receiver);
    receiver.takes(Duration::from_millis(50));
    let mut ids = buy_many(&edge, 500);
    redis.kill9();
    redis.start_again();
    let order = eventually("it sells again", || {
        let outcome = buy(edge.address(), &purchase());
        outcome.is_order().then(|| outcome.id().to_owned())
    });
    ids.insert(order);
    let version = all_is_delivered(&edge)["version"].as_u64().unwrap();
    assert!(known(&receiver).is_superset(&ids));
    assert!(receiver.orders().values().all(|kinds| *kinds == ["held"]));
    no_entry_is_missing(&[&receiver], version);
    assert_eq!(
        edge.log().lines().filter(|line| line.contains("cannot deliver the log")).count(),
        0,
        "the sync told of it"
    );
}

#[test]
fn an_edge_that_cannot_reach_the_order_service_lets_another_deliver() {
    let redis = Redis::start();
    let (mut unreachable, well) = (Receiver::start(), Receiver::start());
    unreachable.stop();
    let cut_off = told(Edge::setup().redis(&redis), &[&unreachable]).ticket(tickets(1_000)).start();
    let ids = buy_many(&cut_off, 100);
    eventually("it tries in vain", || (cut_off.metric("spikegate_delivery_posts_total", "failed") >= 3).then_some(()));
    let _other = in_redis(&redis, &well);
    all_is_delivered(&cut_off);
    assert_eq!(known(&well), ids);
    unreachable.start_again();
}
