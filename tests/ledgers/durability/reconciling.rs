//! `spikegate sale reconcile`: it reports each difference between the books, and repairs what can be repaired.

use std::collections::BTreeSet;

use serde_json::json;

use super::{found, reconcile, sell, sells_on, tickets};
use crate::harness::purchase::purchase;
use crate::harness::{Edge, Network, Redis, Request, Shelf, buy, eventually};

#[test]
fn what_was_changed_by_hand_is_told_and_put_right_while_nothing_is_sold() {
    let redis = Redis::start();
    let setup = Edge::setup().redis(&redis).ticket(json!({
        "total": 50, "deadline": "5s", "hold": "1h", "buyer": { "header": "X-User-Id" },
    }));
    let edge = setup.start();
    let orders: Vec<String> = (0..6)
        .map(|buyer| {
            let request = purchase().header("X-User-Id", &format!("buyer-{buyer}"));
            buy(edge.address(), &request).id().to_owned()
        })
        .collect();
    let (code, report) = reconcile(&edge, &[]);
    assert_eq!((code, &report["differences"]), (0, &json!([])), "{report}");

    redis.command::<()>("HSET ticket_hash_key ticket_sold_nums 4");
    redis.command::<()>("HSET ticket_hash_key ticket_total_nums 55");
    redis.command::<()>(&format!("HDEL {{ticket_hash_key}}:orders {}", orders[0]));
    redis.command::<()>("HDEL {ticket_hash_key}:buyers buyer-1");
    redis.command::<()>("DEL {ticket_hash_key}:due");
    redis.command::<()>("HSET {ticket_hash_key}:orders ffffffffffffffffffffffffffffffff HELD~1~1~-~eve");
    let odd = reconcile(&edge, &[]);
    assert_eq!(odd.0, 1, "what cannot be read is no book: {}", odd.1);
    redis.command::<()>("HDEL {ticket_hash_key}:orders ffffffffffffffffffffffffffffffff");

    let (code, report) = reconcile(&edge, &[]);
    assert_eq!(code, 3, "{report}");
    assert_eq!(found(&report, "counter-unlike-log"), 2, "{report}");
    assert_eq!(found(&report, "entry-without-order"), 1, "{report}");
    assert_eq!(found(&report, "buyer-unlike-log"), 1, "{report}");
    assert_eq!(found(&report, "order-without-deadline"), 5, "{report}");

    let (code, report) = reconcile(&edge, &["--apply"]);
    assert_eq!(code, 1, "{report}");
    assert!(report["error"].as_str().unwrap().contains("The sale is open. Pause it first."), "{report}");
    edge.operate("pause", &json!({}));
    let (code, report) = reconcile(&edge, &["--apply"]);
    assert_eq!((code, &report["applied"], &report["left"]), (0, &json!(true), &json!([])), "{report}");
    let books = redis.books_agree();
    assert_eq!(books, orders.into_iter().collect::<BTreeSet<_>>());
    edge.operate("resume", &json!({}));
    eventually("it sells", || buy(edge.address(), &purchase()).is_order().then_some(()));
    assert_eq!(edge.snapshot()["total"], 55, "what was added by hand stays, and the log knows of it");
    assert_eq!(reconcile(&edge, &[]).0, 0);
}

#[test]
fn without_the_order_service_a_sale_is_reconciled_only_if_that_is_said() {
    let redis = Redis::start();
    let shelf = Shelf::sqlite();
    let mut service = shelf.service("demo");
    let edge = Edge::setup().redis(&redis).ticket(tickets(50)).delivers_to(&service, &shelf).start();
    let orders = sell(&edge, 4);
    eventually("they are delivered", || (shelf.rows("orders").len() == 4).then_some(()));
    edge.operate("pause", &json!({}));
    redis.command::<()>("HSET ticket_hash_key ticket_sold_nums 1");
    let (code, report) = reconcile(&edge, &[]);
    assert_eq!((code, &report["order_service"]), (3, &json!("asked")), "{report}");

    service.kill();
    for arguments in [&[][..], &["--apply"]] {
        let (code, report) = reconcile(&edge, arguments);
        assert_eq!(code, 1, "{report}");
        assert!(report["error"].as_str().unwrap().contains("the order service does not answer"), "{report}");
    }
    assert_eq!(redis.sold(), 1, "and nothing was changed");
    let (code, report) = reconcile(&edge, &["--without-order-service"]);
    assert_eq!((code, &report["order_service"], &report["applied"]), (3, &json!("it cannot be asked"), &json!(false)));
    let (code, report) = reconcile(&edge, &["--apply", "--without-order-service"]);
    assert_eq!((code, &report["applied"], &report["left"]), (0, &json!(true), &json!([])), "{report}");
    assert_eq!(redis.books_agree(), orders);
}

/// Every ticket is sold twice, since no process that remembered the first sales was running.
#[test]
fn what_was_sold_twice_is_told_and_the_total_is_not_raised() {
    let old = Redis::start_everysec();
    let new = Redis::start_replica_of(&old);
    let network = Network::to(old.address());
    let edge = Edge::setup().redis_at(&network.redis_url(), "2s").ticket(tickets(10)).start();
    sell(&edge, 2);
    eventually("the replica has them", || (new.sold() == 2).then_some(()));
    new.command::<()>("REPLICAOF NO ONE");
    let other = Edge::setup().redis(&new).ticket(tickets(10)).start();
    for edge in [&edge, &other] {
        (0..8).for_each(|_| {
            sells_on(edge);
        });
    }
    network.lead_to(new.address());
    eventually("the edge objects", || {
        (edge.control(&Request::get("/readyz")).text().contains("lost data")).then_some(())
    });
    let (code, report) = reconcile(&edge, &["--apply"]);
    assert_eq!((code, &report["excess"], &report["applied"]), (3, &json!(8), &json!(true)), "{report}");
    assert_eq!(report["left"][0]["kind"], "excess", "{report}");
    eventually("it is sold out", || (buy(edge.address(), &purchase()).name() == "sold-out").then_some(()));
    let snapshot: (u64, u64) = new.command("HMGET ticket_hash_key ticket_total_nums ticket_sold_nums");
    assert_eq!(snapshot, (10, 18));
}

#[test]
fn the_embedded_ledger_is_compared_with_its_own_log() {
    let edge = Edge::setup().ticket(tickets(10)).start();
    sell(&edge, 4);
    let (code, report) = reconcile(&edge, &[]);
    assert_eq!((code, &report["orders"], &report["differences"]), (0, &json!(4), &json!([])), "{report}");
    let (code, report) = reconcile(&edge, &["--apply"]);
    assert_eq!((code, &report["applied"]), (0, &json!(false)), "nothing to do: {report}");
}
