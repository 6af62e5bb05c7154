//! The machine of Redis loses its power under `appendfsync everysec`, and with it the last second of orders.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{LOST, found, is_fenced, reconcile, sell, sells_again, sells_on, tickets};
use crate::harness::orders::SECRET;
use crate::harness::purchase::purchase;
use crate::harness::redis::KEY;
use crate::harness::{Connection, Edge, Network, Redis, Request, Shelf, buy, eventually};

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Waits until what is written from now on has a later second than the one that is given.
fn until_another_second() -> u64 {
    let now = unix_s();
    // The file has a time in it at every second in which something is written, and is cut at the first one that is
    // later.
    eventually("the second is over", || (unix_s() > now + 1).then_some(()));
    now
}

/// The edge's orders and payments of before and after the second, of which the latter are lost.
struct Loss {
    kept: BTreeSet<String>,
    lost: BTreeSet<String>,
}

/// Sells, loses the power of Redis, and starts it again.
fn lose(redis: &mut Redis, edge: &Edge, lost: usize, before_the_end: impl FnOnce(&BTreeSet<String>)) -> Loss {
    let kept = sell(edge, 30);
    redis.has_written();
    let second = until_another_second();
    let lost = sell(edge, lost);
    before_the_end(&lost);
    redis.kill9();
    redis.forget_since(second);
    Loss { kept, lost }
}

#[test]
fn edges_that_remember_more_than_redis_stop_the_sale_for_all_and_bring_the_orders_back() {
    let mut redis = Redis::start_everysec();
    let edge = || Edge::setup().redis(&redis).ticket(tickets(200));
    let (first, second, fresh) = (edge().start(), edge().start(), edge());
    let mut paid = String::new();
    let loss = lose(&mut redis, &first, 30, |lost| {
        paid = lost.first().unwrap().clone();
        assert_eq!(first.settle(&paid, "confirm", &json!({ "payment": "p-1" })).status, 200);
        // The other edge has heard of all, as it does ten times a second.
        eventually("the other edge knows", || (second.shown()["available"] == 140).then_some(()));
    });
    redis.start_again();
    let fresh = fresh.start_until("lost data");

    for edge in [&first, &second, &fresh] {
        is_fenced(edge);
    }
    assert_eq!(redis.sold(), 30, "nothing was sold on top of the loss");
    assert_eq!(fresh.settle(&paid, "confirm", &json!({ "payment": "p-1" })).problem(), LOST);
    assert_eq!(fresh.settle(&paid, "cancel", &json!({})).problem(), LOST, "or it could not be restored");

    let stock = |change: &str, delta: i64| {
        let change = json!({ "change_id": change, "delta": delta });
        fresh.control(&Request::post("/sales/ticket/stock").json(&change))
    };
    assert_eq!(stock("fewer", -150).problem(), LOST, "nobody knows how many are unsold");
    assert_eq!((stock("more", 1).status, stock("as-before", 0).status), (200, 200));

    let (code, report) = reconcile(&first, &[]);
    assert_eq!((code, &report["applied"]), (3, &json!(false)), "{report}");
    assert_eq!(found(&report, "lost-order"), 30, "{report}");
    assert!(found(&report, "lost-entries") > 0 && report["excess"] == 0, "{report}");
    assert_eq!(redis.sold(), 30, "a report changes nothing");

    let (code, report) = reconcile(&first, &["--apply"]);
    assert_eq!((code, found(&report, "lost-order"), &report["left"]), (0, 30, &json!([])), "{report}");
    for edge in [&first, &second, &fresh] {
        sells_again(edge);
    }
    let books = redis.books_agree();
    assert!(loss.kept.is_subset(&books) && loss.lost.is_subset(&books));
    assert_eq!((books.len(), redis.sold()), (63, 63));
    let order = first.settle(&paid, "confirm", &json!({ "payment": "p-1" })).json();
    assert_eq!((&order["state"], &order["payment"]), (&json!("PAID"), &json!("p-1")), "its payment is back too");
    sell(&second, 138);
    assert_eq!(buy(fresh.address(), &purchase()).name(), "sold-out");
    redis.books_agree();
    let (code, report) = reconcile(&second, &[]);
    assert_eq!((code, &report["differences"]), (0, &json!([])), "{report}");
}

#[test]
fn the_order_service_knows_what_no_edge_remembers() {
    let mut redis = Redis::start_everysec();
    let shelf = Shelf::sqlite();
    let service = shelf.service("demo");
    let setup = Edge::setup().redis(&redis).ticket(tickets(1000));
    let setup = setup.upstream("orders", json!({ "servers": [{ "address": service.address() }] }));
    let secret = shelf.secret_file();
    assert_eq!(std::fs::read_to_string(&secret).unwrap().trim(), SECRET);
    let setup = setup.set("delivery", json!({ "upstream": "orders", "secret_file": secret }));
    let mut edge = setup.start();
    // More than one step of the reconciliation writes.
    let loss = lose(&mut redis, &edge, 700, |lost| {
        let paid = lost.first().unwrap();
        assert_eq!(edge.settle(paid, "confirm", &json!({ "payment": "p-1" })).status, 200);
        eventually("all is delivered", || {
            let rows = shelf.rows("orders");
            (rows.len() == 730 && rows.iter().any(|(_, state)| state == "PAID")).then_some(())
        });
    });
    edge.kill9();
    redis.start_again();
    edge.start_again_until("lost data");
    is_fenced(&edge);
    assert_eq!(redis.sold(), 30);

    // Whoever reconciles dies half-way, and begins again.
    std::thread::scope(|scope| {
        let (own, control) = (&redis, edge.control_address());
        scope.spawn(move || {
            let mut command = std::process::Command::new(crate::harness::process::binary("spikegate"));
            command.args(["sale", "reconcile", "ticket", "--apply", "--control", &control.to_string()]);
            let _report = command.output();
        });
        eventually("something is restored", || (own.sold() > 30).then_some(()));
        edge.kill9();
    });
    let restored = redis.sold();
    let fence: Option<String> = redis.command("HGET ticket_hash_key fence");
    if restored < 730 {
        assert!(fence.is_some(), "the fence stands until all is done");
    }
    match fence {
        Some(_) => edge.start_again_until("lost data"),
        None => edge.start_again(),
    }
    let (code, report) = reconcile(&edge, &["--apply"]);
    assert_eq!((code, &report["left"]), (0, &json!([])), "{report}");
    sells_again(&edge);
    let books = redis.books_agree();
    assert!(loss.kept.is_subset(&books) && loss.lost.is_subset(&books));
    assert_eq!(books.len(), 731);
    eventually("ledger and order service agree", || {
        let rows: BTreeSet<String> = shelf.rows("orders").into_iter().map(|(id, _)| id).collect();
        (rows == books).then_some(())
    });
    assert_eq!(reconcile(&edge, &["--apply"]).1["differences"], json!([]), "and again changes nothing");
}

/// An edge that has just started remembers nothing, and has a total to make the sale with.
#[test]
fn an_edge_that_starts_does_not_recreate_a_sale_whose_orders_the_order_service_has() {
    let mut redis = Redis::start_without_persistence();
    let shelf = Shelf::sqlite();
    let mut service = shelf.service("demo");
    let mut edge = Edge::setup().redis(&redis).ticket(tickets(10)).delivers_to(&service, &shelf).start();
    sell(&edge, 4);
    eventually("they are delivered", || (shelf.rows("orders").len() == 4).then_some(()));
    edge.kill9();
    redis.kill9();
    redis.start_again();
    edge.start_again();
    assert_eq!(buy(edge.address(), &purchase()).name(), "sale-missing");
    edge.wait_for_log("the order service has orders of it");
    assert_eq!(redis.command::<u64>("EXISTS ticket_hash_key"), 0);

    // Somebody who knows better may.
    assert!(edge.sale_command(&["open", "ticket", "--total", "6"]).status.success());
    sells_again(&edge);
    // Nobody can be asked, and the log says so.
    edge.kill9();
    service.kill();
    redis.kill9();
    redis.start_again();
    edge.start_again();
    sells_again(&edge);
    edge.wait_for_log("without knowing whether it was sold before");
}

/// Its delivery is still the dead one's, which must not keep it from asking.
#[test]
fn an_edge_that_starts_asks_the_order_service_before_it_sells() {
    let mut redis = Redis::start_everysec();
    let shelf = Shelf::sqlite();
    let service = shelf.service("demo");
    let mut edge = Edge::setup().redis(&redis).ticket(tickets(100)).delivers_to(&service, &shelf).start();
    let loss = lose(&mut redis, &edge, 5, |_| {
        eventually("all is delivered", || (shelf.rows("orders").len() == 35).then_some(()));
    });
    edge.kill9();
    redis.start_again();
    edge.run_again();
    eventually("it is there", || Connection::try_to(edge.address()).is_ok().then_some(()));
    is_fenced(&edge);
    assert_eq!(reconcile(&edge, &["--apply"]).0, 0);
    sells_again(&edge);
    let books = redis.books_agree();
    assert!(loss.kept.is_subset(&books) && loss.lost.is_subset(&books));
}

/// The second loss includes the reconciliation, before the edge has read the log again.
#[test]
fn what_an_edge_remembers_outlives_a_reconciliation() {
    let mut redis = Redis::start_everysec();
    let edge = Edge::setup().redis(&redis).ticket(tickets(100)).start();
    let url = redis.url();
    let fence_and_reconcile = || {
        let mut connection = ::redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
        ::redis::cmd("HSET").arg(KEY).arg("fence").arg("by hand").exec(&mut connection).unwrap();
        eventually("it has heard of the fence", || {
            edge.control(&Request::get("/readyz")).text().contains("lost data").then_some(())
        });
        let (code, report) = reconcile(&edge, &["--apply"]);
        assert_eq!((code, &report["left"]), (0, &json!([])), "{report}");
        report
    };
    let loss = lose(&mut redis, &edge, 5, |orders| {
        fence_and_reconcile();
        // It has begun anew, and for a second other edges have their say.
        let order = orders.first().unwrap();
        assert_eq!(edge.settle(order, "confirm", &json!({ "payment": "p-1" })).status, 503);
    });
    redis.start_again();
    let report = fence_and_reconcile();
    assert_eq!(found(&report, "lost-order"), 5, "{report}");
    let books = redis.books_agree();
    assert!(loss.kept.is_subset(&books) && loss.lost.is_subset(&books));
}

/// Whoever reconciles does not know what another edge remembers, which objects before anything is sold on top of that.
#[test]
fn after_a_reconciliation_no_edge_sells_before_the_others_have_reported() {
    let mut redis = Redis::start_everysec();
    let network = Network::to(redis.address());
    let edge = |url: &str| Edge::setup().redis_at(url, "2s").ticket(tickets(100)).start();
    let (asked, cut_off) = (edge(&redis.url()), edge(&network.redis_url()));
    let loss = lose(&mut redis, &cut_off, 5, |_| network.refuse(true));
    redis.start_again();
    asked.ask(&purchase());
    redis.command::<()>("HSET ticket_hash_key fence by-hand");
    let before = redis.sold();
    let (code, report) = reconcile(&asked, &["--apply"]);
    assert_eq!(code, 0, "{report}");
    network.release();
    is_fenced(&cut_off);
    is_fenced(&asked);
    assert!(redis.sold() <= before + 5, "what was restored, and nothing new");
    for edge in [&cut_off, &asked] {
        reconcile(edge, &["--apply"]);
    }
    sells_again(&asked);
    let books = redis.books_agree();
    assert!(loss.kept.is_subset(&books) && loss.lost.is_subset(&books));
}

#[test]
fn a_killed_redis_that_lost_nothing_sells_on_by_itself() {
    let mut redis = Redis::start_everysec();
    let edge = Edge::setup().redis(&redis).ticket(tickets(300)).with_redis("durability", json!("everysec")).start();
    let mut orders = BTreeSet::new();
    for _ in 0..3 {
        orders.extend(sell(&edge, 30));
        // The process dies, the machine does not: what was written is with the kernel.
        redis.has_written();
        redis.kill9();
        redis.start_again();
        orders.insert(sells_on(&edge));
    }
    assert_eq!(redis.books_agree(), orders);
    assert_eq!(edge.metric("spikegate_sale_fenced", "ticket"), 0);
}

#[test]
fn under_a_new_primary_no_edge_sells_before_the_others_have_reported() {
    let mut redis = Redis::start();
    let edge = Edge::setup().redis(&redis).ticket(tickets(100)).start();
    sell(&edge, 3);
    redis.stop();
    redis.start_again();
    let began = std::time::Instant::now();
    let fresh = Edge::setup().redis(&redis).ticket(tickets(100)).start();
    sells_on(&fresh);
    assert!(began.elapsed() >= Duration::from_secs(1), "after {:?}", began.elapsed());
    // The next ones under the same reign need not wait: the quiet is over.
    assert_eq!(redis.command::<Option<String>>("HGET ticket_hash_key fence"), None);
    sells_on(&edge);
}
