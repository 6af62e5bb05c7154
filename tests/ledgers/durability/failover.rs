//! The primary dies. The edges go on with the orders that its replica has, and notice those that it lacks.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread::scope;

use serde_json::json;

use super::{AWAY, found, is_fenced, reconcile, sell, sells_again, sells_on, tickets};
use crate::harness::crowd::try_crowd;
use crate::harness::process::{binary, free_address};
use crate::harness::purchase::{order_ids, purchase, purchase_with_key};
use crate::harness::redis::Sentinels;
use crate::harness::{Edge, Network, Outcome, Redis, buy, crowd, eventually};

/// F1: with WAIT, nothing that was answered is lost, and everything is sold in the end.
#[test]
fn orders_that_a_replica_had_survive_a_failover_and_the_sale_goes_on_by_itself() {
    const TOTAL: usize = 600;
    let mut primary = Redis::start_everysec();
    let replica = Redis::start_replica_of(&primary);
    let sentinels = Sentinels::of(&primary, 1);
    let acknowledge = json!({ "replicas": { "acknowledge": 1, "timeout": "200ms" } });
    let edge = || {
        let setup = Edge::setup().sentinels(&sentinels, acknowledge.clone());
        setup.ticket(json!({ "total": TOTAL, "deadline": "3s", "local_stock": 20, "hold": "1h" })).start()
    };
    let edges = [edge(), edge()];
    let addresses = [edges[0].address(), edges[1].address()];

    let outcomes: Vec<Outcome> = scope(|scope| {
        let key = |number: usize| purchase_with_key(&format!("buyer-{number}"));
        let sale = scope.spawn(move || try_crowd(10, 400, &addresses, key));
        eventually("the sale is on", || (primary.sold() >= 100).then_some(()));
        primary.kill9();
        sentinels.agree_on(&replica);
        // It comes back as a replica, and then there is one to acknowledge again.
        primary.start_again();
        sale.join().unwrap().iter().flatten().map(Outcome::of).collect()
    });
    let acknowledged = order_ids(&outcomes);
    assert!(outcomes.iter().all(|outcome| outcome.is_order() || AWAY[..3].contains(&outcome.name())), "{outcomes:?}");
    // The Sentinels would make it one after a while.
    primary.follow(&replica);

    // Whoever heard nothing, or that it is unknown, asks again with the same key and gets one order.
    let again = eventually("everybody has an order", || {
        let key = |number: usize| purchase_with_key(&format!("buyer-{number}"));
        let answers: Vec<Outcome> = crowd(10, 400, &addresses, key).iter().map(Outcome::of).collect();
        answers.iter().all(Outcome::is_order).then_some(answers)
    });
    let again = order_ids(&again);
    assert!(acknowledged.is_subset(&again), "lost: {:?}", acknowledged.difference(&again));
    let rest: Vec<Outcome> = crowd(10, 400, &addresses, |_| purchase()).iter().map(Outcome::of).collect();
    assert_eq!(order_ids(&rest).len(), TOTAL - 400);
    assert_eq!(replica.books_agree().len(), TOTAL);
    assert_eq!(replica.command::<Option<String>>("HGET ticket_hash_key fence"), None, "nothing was lost");
    assert_eq!(buy(edges[0].address(), &purchase()).name(), "sold-out");
}

#[test]
fn sentinels_and_redis_may_ask_for_passwords() {
    let mut primary = Redis::start_with_password("of-redis");
    let replica = Redis::start_replica_of(&primary);
    let settings = "sentinel down-after-milliseconds mymaster 500\nsentinel auth-pass mymaster of-redis\n\
                    requirepass of-sentinels\n";
    let sentinels = Sentinels::with_settings(&primary, 1, settings);
    let with = |sentinel: &str, redis: &str| {
        let more = json!({ "password": redis, "sentinel_password": sentinel });
        Edge::setup().sentinels(&sentinels, more).ticket(tickets(10))
    };
    for (setup, says) in [(with("wrong", "of-redis"), "Sentinel at"), (with("of-sentinels", "wrong"), "Redis at")] {
        let config = setup.write(free_address(), free_address());
        let refused = Command::new(binary("spikegate")).args(["run", "--config"]).arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(says) && !said.contains("of-sentinels") && !said.contains("of-redis"), "{said}");
    }
    let edge = with("of-sentinels", "of-redis").start();
    sell(&edge, 3);
    eventually("the replica has them", || (replica.sold() == 3).then_some(()));
    primary.kill9();
    sentinels.agree_on(&replica);
    sells_on(&edge);
    assert_eq!(replica.books_agree().len(), 4);
}

/// F2, the negative control: without WAIT a replica that lags is promoted.
#[test]
fn acknowledged_orders_that_the_replica_lacks_are_noticed() {
    let mut primary = Redis::start_everysec();
    let replica = Redis::start_replica_of(&primary);
    let sentinels = Sentinels::of(&primary, 1);
    let setup = Edge::setup().sentinels(&sentinels, json!({})).ticket(tickets(100));
    let (edge, fresh) = (setup.clone().start(), setup);
    let kept = sell(&edge, 20);
    eventually("the replica has them", || (replica.sold() == 20).then_some(()));

    // What is in the replica's socket when it stops it would read when it goes on, so the link is torn besides.
    replica.freeze();
    primary.command::<()>("CLIENT KILL TYPE replica");
    let lost = sell(&edge, 15);
    primary.kill9();
    replica.thaw();
    sentinels.agree_on(&replica);

    is_fenced(&edge);
    let fresh = fresh.start_until("lost data");
    is_fenced(&fresh);
    assert_eq!(replica.sold(), 20);
    let (_, report) = reconcile(&edge, &[]);
    assert_eq!(found(&report, "lost-order"), 15, "{report}");
    let (code, report) = reconcile(&edge, &["--apply"]);
    assert_eq!((code, &report["left"]), (0, &json!([])), "{report}");
    sells_again(&edge);
    sells_again(&fresh);
    let books = replica.books_agree();
    assert!(kept.is_subset(&books) && lost.is_subset(&books));
    sell(&edge, 63);
    assert_eq!(replica.books_agree().len(), 100);

    // The old primary comes back, and is made a replica: what it had of its own is gone, and was put right long ago.
    primary.start_again();
    eventually("it is a replica", || (primary.info("role") == "slave").then_some(()));
    assert_eq!(buy(edge.address(), &purchase()).name(), "sold-out");
}

/// F3: an edge that has used the new primary does not accept the old one.
#[test]
fn an_old_primary_that_comes_back_alone_is_not_believed() {
    let mut old = Redis::start();
    let new = Redis::start_replica_of(&old);
    let network = Network::to(old.address());
    let edge = Edge::setup().redis_at(&network.redis_url(), "2s").ticket(tickets(100)).start();
    let mut orders = sell(&edge, 20);
    eventually("the replica has them", || (new.sold() == 20).then_some(()));
    old.kill9();
    new.command::<()>("REPLICAOF NO ONE");
    network.lead_to(new.address());
    orders.insert(sells_on(&edge));
    orders.extend(sell(&edge, 10));

    old.start_again();
    network.lead_to(old.address());
    is_fenced(&edge);
    assert_eq!(old.sold(), 20, "nothing was sold of what the old one takes for unsold");

    // Its fence is its own; the new one is as it was.
    network.lead_to(new.address());
    orders.insert(sells_again(&edge));
    assert_eq!(new.books_agree(), orders);
}

/// The same, where the old primary has sold as much as the new one: the numbers are equal.
#[test]
fn another_history_of_the_same_length_is_not_believed() {
    let old = Redis::start_everysec();
    let new = Redis::start_replica_of(&old);
    let network = Network::to(old.address());
    let edge = Edge::setup().redis_at(&network.redis_url(), "2s").ticket(tickets(100)).start();
    sell(&edge, 5);
    eventually("the replica has them", || (new.sold() == 5).then_some(()));
    new.command::<()>("REPLICAOF NO ONE");
    // Another edge, which knows nothing of this, sells from the other one.
    let other = Edge::setup().redis(&new).ticket(tickets(100)).start();
    let theirs: BTreeSet<String> = (0..5).map(|_| sells_on(&other)).collect();
    let ours: BTreeSet<String> = (0..5).map(|_| sells_on(&edge)).collect();
    assert_eq!(theirs.intersection(&ours).count(), 0);
    network.lead_to(new.address());
    is_fenced(&edge);
    is_fenced(&other);
    let (code, report) = reconcile(&edge, &["--apply"]);
    assert_eq!((code, found(&report, "lost-order")), (0, 5), "{report}");
    sells_again(&edge);
    sells_again(&other);
    let books = new.books_agree();
    assert!(theirs.is_subset(&books) && ours.is_subset(&books));
}
