//! The ledger does not answer. The edge never says "sold out" then and sells nothing twice, and it recovers by itself.

use std::collections::BTreeSet;
use std::thread::scope;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::edge::Setup;
use crate::harness::purchase::{count, order_ids, purchase, purchase_with_key};
use crate::harness::{Answer, Backend, Connection, Edge, Network, Outcome, Redis, Request, buy, crowd, eventually};

/// The deadline of a purchase.
const DEADLINE: Duration = Duration::from_secs(1);

fn tickets(total: u64) -> Value {
    json!({ "total": total, "deadline": "1s", "seed_dialect": true, "local_stock": 20 })
}

fn impatient(redis_url: &str) -> Setup {
    Edge::setup().redis_at(redis_url, "300ms")
}

/// What a purchase is told while the ledger is away: that it cannot be asked, that it did not say what became of the
/// purchase, or that those who came before took all the time that there was.
const COME_AGAIN: [&str; 3] = ["ledger-unavailable", "outcome-unknown", "busy"];

fn must_come_again(outcome: &Outcome) -> bool {
    COME_AGAIN.contains(&outcome.name())
}

/// An edge in front of a backend and a Redis that is about to go away.
fn edge_with_backend(setup: Setup, backend: &Backend) -> Edge {
    setup.proxies_to(json!({ "servers": [{ "address": backend.address() }] })).ticket(tickets(1000)).start()
}

/// While the ledger is away: 503 in time for both dialects, and the proxy goes on.
#[track_caller]
fn only_purchases_suffer(edge: &Edge) -> Vec<Outcome> {
    let mut connection = edge.connect();
    let (mut outcomes, mut times) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let begun = Instant::now();
        let outcome = match round % 2 {
            0 => Outcome::of(&connection.ask(&purchase_with_key(&format!("away-{round}")))),
            _ => Outcome::of(&connection.ask(&Request::get("/buy/ticket"))),
        };
        times.push(begun.elapsed());
        assert!(must_come_again(&outcome), "{outcome:?}");
        assert!(round % 2 == 1 || matches!(outcome, Outcome::Refused { status: 503, .. }), "{outcome:?}");
        outcomes.push(outcome);
        assert_eq!(connection.ask(&Request::get("/elsewhere")).text(), "backend", "the proxy goes on");
    }
    // A busy machine delays some answers, not each of them.
    assert!(*times.iter().min().unwrap() < 3 * DEADLINE, "{times:?}");
    outcomes
}

/// Buys until it works. No refusal before may say "sold out".
#[track_caller]
fn sales_go_on(edge: &Edge) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    eventually("sales go on", || {
        let outcome = buy(edge.address(), &purchase());
        assert!(outcome.is_order() || must_come_again(&outcome), "{outcome:?}");
        outcomes.push(outcome);
        outcomes.last().unwrap().is_order().then_some(())
    });
    outcomes
}

/// Every order that an answer confirmed is in the books, and no order is there that no answer named.
#[track_caller]
fn answers_and_books_agree(redis: &Redis, outcomes: &[Outcome]) {
    let books = redis.books_agree();
    let named = |name: &str| -> BTreeSet<String> {
        let outcomes = outcomes.iter().filter(|outcome| outcome.name() == name);
        outcomes.map(|outcome| outcome.id().to_owned()).collect()
    };
    let (confirmed, unknown) = (named("ordered"), named("outcome-unknown"));
    assert!(confirmed.is_subset(&books), "lost: {:?}", confirmed.difference(&books));
    let nobodys: Vec<&String> = books.iter().filter(|id| !confirmed.contains(*id) && !unknown.contains(*id)).collect();
    assert!(nobodys.is_empty(), "orders that nobody heard of: {nobodys:?}");
}

#[test]
fn redis_is_shut_down_and_comes_back() {
    let mut redis = Redis::start();
    let backend = Backend::named("backend");
    let edge = edge_with_backend(impatient(&redis.url()), &backend);
    let mut outcomes = sales_go_on(&edge);

    redis.stop();
    outcomes.extend(only_purchases_suffer(&edge));
    eventually("readiness says so", || (edge.control(&Request::get("/readyz")).status == 503).then_some(()));
    assert_eq!(edge.control(&Request::get("/healthz")).status, 200, "the process itself is well");

    redis.start_again();
    outcomes.extend(sales_go_on(&edge));
    eventually("readiness says so", || (edge.control(&Request::get("/readyz")).status == 200).then_some(()));
    answers_and_books_agree(&redis, &outcomes);
}

#[test]
fn redis_freezes_and_wakes_up() {
    let redis = Redis::start();
    let backend = Backend::named("backend");
    let edge = edge_with_backend(impatient(&redis.url()), &backend);
    let mut outcomes = sales_go_on(&edge);

    redis.freeze();
    outcomes.extend(only_purchases_suffer(&edge));
    redis.thaw();
    outcomes.extend(sales_go_on(&edge));

    // What was under way when it froze was done when it woke up; whoever asks again hears so, once and for all.
    for round in [0, 2, 4] {
        let key = purchase_with_key(&format!("away-{round}"));
        let first = edge.ask(&key);
        assert_eq!(edge.ask(&key).text(), first.text());
        outcomes.push(Outcome::of(&first));
        assert!(outcomes.last().unwrap().is_order(), "{first:?}");
    }
    answers_and_books_agree(&redis, &outcomes);
}

#[test]
fn replies_are_lost_for_a_while_in_the_middle_of_a_sale() {
    let redis = Redis::start();
    let network = Network::to(redis.address());
    let edges = [
        impatient(&network.redis_url()).ticket(tickets(400)).start(),
        impatient(&redis.url()).ticket(tickets(400)).start(),
    ];
    let addresses = edges.each_ref().map(Edge::address);
    let key = |number: usize| purchase_with_key(&format!("buyer-{number}"));

    // Half of the crowd meets the edge whose replies are lost while the sale is on.
    let answers: Vec<Answer> = scope(|scope| {
        let sale = scope.spawn(|| crowd(40, 300, &addresses, key));
        eventually("the sale is on", || (redis.sold() >= 20).then_some(()));
        network.hold_replies();
        std::thread::sleep(2 * DEADLINE);
        network.cut();
        network.release();
        sale.join().unwrap()
    });
    let outcomes: Vec<Outcome> = answers.iter().map(Outcome::of).collect();
    let others: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.is_order()).collect();
    assert!(others.iter().all(|outcome| must_come_again(outcome)), "there was stock for all: {others:?}");
    let unknown = count(&outcomes, "outcome-unknown");
    assert!(unknown > 0, "the story needs someone whose outcome was unknown: {others:?}");

    eventually("the edge is well again", || edges[0].ask(&key(0)).status.eq(&201).then_some(()));
    for outcome in outcomes.iter().filter(|outcome| outcome.name() == "outcome-unknown") {
        for edge in &edges {
            let order = edge.order(outcome.id());
            assert!(order.is_none_or(|order| order["state"] == "HELD" && order["order_id"] == outcome.id()));
        }
    }
    // Now everyone asks again, at the edge that is not the one of before.
    let again: Vec<Outcome> = (0..300).map(|number| buy(addresses[(number + 1) % 2], &key(number))).collect();
    for (before, after) in outcomes.iter().zip(&again) {
        assert!(after.is_order(), "{after:?}");
        match before.name() {
            "ordered" => assert_eq!(before, after, "the one true answer"),
            "outcome-unknown" => assert_eq!(before.id(), after.id(), "the order of which nobody knew"),
            _ => {}
        }
    }
    assert_eq!(order_ids(&again), redis.books_agree(), "one order each, and no other");
    assert_eq!(redis.sold(), 300);
}

#[test]
fn redis_is_killed_again_and_again_in_the_middle_of_a_sale() {
    let mut redis = Redis::start();
    let edge = impatient(&redis.url()).ticket(tickets(2000)).start();
    let mut outcomes = Vec::new();
    for round in 0..3 {
        let answers = scope(|scope| {
            let key = |number: usize| purchase_with_key(&format!("{round}-{number}"));
            let address = edge.address();
            let sale = scope.spawn(move || crowd(20, 400, &[address], key));
            let before = redis.sold();
            let sold = eventually("the sale is on", || Some(redis.sold()).filter(|sold| *sold >= before + 20));
            assert!(sold < before + 400, "the sale was over before anything happened to it");
            redis.kill9();
            std::thread::sleep(Duration::from_millis(100));
            redis.start_again();
            sale.join().unwrap()
        });
        outcomes.extend(answers.iter().map(Outcome::of));
        outcomes.extend(sales_go_on(&edge));
    }
    assert_eq!(count(&outcomes, "sold-out") + count(&outcomes, "sale-missing"), 0);
    answers_and_books_agree(&redis, &outcomes);
}

#[test]
fn a_redis_that_has_forgotten_everything_sells_nothing() {
    let mut redis = Redis::start_without_persistence();
    let edge = impatient(&redis.url()).ticket(tickets(10)).start();
    assert!(buy(edge.address(), &purchase_with_key("k1")).is_order());

    redis.kill9();
    redis.start_again();
    let outcome = eventually("the edge hears of it", || {
        let outcome = buy(edge.address(), &purchase());
        (!must_come_again(&outcome)).then_some(outcome)
    });
    let Outcome::Refused { name, status, .. } = &outcome else { panic!("sold from nothing: {outcome:?}") };
    assert_eq!((name.as_str(), *status), ("sale-missing", 503));
    for _ in 0..20 {
        assert_eq!(buy(edge.address(), &purchase()), outcome, "and it stays so");
        assert_eq!(buy(edge.address(), &Request::get("/buy/ticket")).name(), "sale-missing");
        assert_eq!(buy(edge.address(), &purchase_with_key("k1")).name(), "sale-missing");
    }
    let there: u64 = redis.command("EXISTS ticket_hash_key");
    assert_eq!(there, 0, "the edge does not make a sale anew by itself");
}

#[test]
fn forgotten_scripts_and_torn_connections_cost_nothing_but_time() {
    const BUYERS: usize = 10_000;
    let redis = Redis::start();
    let edges =
        [(); 2].map(|()| Edge::setup().redis(&redis).ticket(json!({ "total": BUYERS, "deadline": "10s" })).start());
    let addresses = edges.each_ref().map(Edge::address);
    let key = |number: usize| purchase_with_key(&format!("buyer-{number}"));

    let answers = scope(|scope| {
        let sale = scope.spawn(|| crowd(40, BUYERS, &addresses, key));
        let mut rounds = 0;
        while !sale.is_finished() {
            let () = redis.command("SCRIPT FLUSH");
            let _: u64 = redis.command("CLIENT KILL TYPE normal SKIPME yes");
            rounds += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(rounds > 3, "the sale was over before anything happened to it");
        sale.join().unwrap()
    });

    let outcomes: Vec<Outcome> = answers.iter().map(Outcome::of).collect();
    let wrong = outcomes.iter().find(|outcome| !outcome.is_order() && !must_come_again(outcome));
    assert_eq!(wrong, None, "there was stock for all");
    addresses.into_iter().for_each(|address| drop(patiently(address, &key(0))));
    let again: Vec<Outcome> = crowd(40, BUYERS, &addresses, key).iter().map(Outcome::of).collect();
    for (before, after) in outcomes.iter().zip(&again).filter(|(before, _)| before.is_order()) {
        assert_eq!(before, after);
    }
    assert_eq!(order_ids(&again), redis.books_agree());
    assert_eq!(buy(addresses[0], &purchase()).name(), "sold-out");
}

fn patiently(address: std::net::SocketAddr, request: &Request) -> Outcome {
    eventually("it is ordered", || {
        let outcome = buy(address, request);
        outcome.is_order().then_some(outcome)
    })
}

#[test]
fn a_sale_that_is_deleted_and_made_anew_by_hand_is_a_new_sale() {
    let redis = Redis::start();
    let edges = [(); 2].map(|()| impatient(&redis.url()).ticket(tickets(50)).start());
    let addresses = edges.each_ref().map(Edge::address);
    let old = order_ids(&crowd(10, 50, &addresses, |_| purchase()).iter().map(Outcome::of).collect::<Vec<_>>());
    assert_eq!(old.len(), 50);
    let with_key = buy(addresses[0], &purchase_with_key("k1"));
    assert_eq!(with_key.name(), "sold-out");

    let _: u64 = redis.command("DEL ticket_hash_key");
    redis.open_by_hand(30);
    for address in addresses {
        eventually("the new sale sells", || {
            let outcome = buy(address, &purchase_with_key(&format!("{address}")));
            outcome.is_order().then_some(())
        });
    }
    let answers: Vec<Outcome> = crowd(10, 60, &addresses, |_| purchase()).iter().map(Outcome::of).collect();
    assert_eq!((count(&answers, "ordered"), count(&answers, "sold-out")), (28, 32));

    let new = redis.books_agree();
    assert_eq!(new.len(), 30);
    assert!(new.is_disjoint(&old), "the old sale's orders are not mixed with the new one's");
    let put_away: Vec<String> = redis.command("KEYS {ticket_hash_key}:orders:before:*");
    assert_eq!(put_away.len(), 1, "and are kept: {put_away:?}");
    let kept: u64 = redis.command(&format!("HLEN {}", put_away[0]));
    assert_eq!(kept, 50);
}

#[test]
fn an_edge_that_is_cut_off_says_so_and_the_other_sells_everything() {
    let redis = Redis::start();
    let network = Network::to(redis.address());
    let cut_off = impatient(&network.redis_url()).ticket(tickets(100)).start();
    let other = impatient(&redis.url()).ticket(tickets(100)).start();
    network.hold_replies();

    let mut connection = Connection::to(cut_off.address());
    eventually("it has noticed", || {
        let answer = connection.ask(&purchase_with_key("cut off"));
        assert_eq!(answer.status, 503, "{answer:?}");
        (answer.problem() == "ledger-unavailable").then_some(())
    });
    let answers: Vec<Outcome> = crowd(10, 200, &[other.address()], |_| purchase()).iter().map(Outcome::of).collect();
    let bought = count(&answers, "ordered");
    assert_eq!(bought + count(&answers, "sold-out"), 200);
    assert!((99..=100).contains(&bought), "all, but for the one that may have been made before: {bought}");
    assert_eq!(redis.sold(), 100);
    assert_eq!(connection.ask(&purchase()).problem(), "ledger-unavailable", "it cannot know that all is sold");
}

#[test]
fn a_full_queue_is_called_busy_and_not_sold_out() {
    let redis = Redis::start();
    let network = Network::to(redis.address());
    let sale = json!({ "total": 100, "deadline": "20s", "queue": 1, "local_stock": 10, "seed_dialect": true });
    let edge = Edge::setup().redis_at(&network.redis_url(), "10s").ticket(sale).start();
    network.hold_replies();
    let mut first = edge.connect();
    first.send(&purchase().bytes());
    eventually("one purchase is at the ledger", || (redis.sold() == 1).then_some(()));

    // One more may wait. Whoever comes then is sent away, in either dialect.
    let request = |number: usize| if number.is_multiple_of(2) { purchase() } else { Request::get("/buy/ticket") };
    let outcomes: Vec<Outcome> = scope(|scope| {
        let address = edge.address();
        let sale = scope.spawn(move || crowd(10, 10, &[address], request));
        let busy = || edge.metric("spikegate_purchases_total", "outcome=\"busy\"");
        eventually("all others are sent away", || (busy() == 9).then_some(()));
        network.release();
        sale.join().unwrap().iter().map(Outcome::of).collect()
    });
    assert_eq!((count(&outcomes, "ordered"), count(&outcomes, "busy")), (1, 9), "{outcomes:?}");
    assert!(Outcome::of(&first.answer()).is_order());
    assert_eq!(redis.books_agree().len(), 2);
    assert_eq!(edge.metric("spikegate_purchases_total", "outcome=\"sold_out\""), 0);
}

#[test]
fn a_sale_whose_data_is_damaged_leaves_the_others_alone() {
    let redis = Redis::start();
    let edge = Edge::setup()
        .redis(&redis)
        .set("sales", json!({ "good": { "total": 10 }, "bad": { "key": "bad_key" } }))
        .start();
    redis.command::<()>("HSET bad_key ticket_total_nums abc");
    edge.wait_for_log("sale bad: ");
    for _ in 0..3 {
        assert_eq!(edge.ask(&Request::post("/buy/good")).status, 201);
    }
    assert_eq!(edge.ask(&Request::post("/buy/bad")).status, 503);
    redis.command::<()>("HSET bad_key ticket_total_nums 5");
    eventually("the repaired sale sells", || (edge.ask(&Request::post("/buy/bad")).status == 201).then_some(()));
}

#[test]
fn readers_of_orders_wait_in_a_bounded_number() {
    let redis = Redis::start();
    let edge = Edge::setup().redis(&redis).ticket(json!({ "total": 5 })).start();
    redis.freeze();
    let path = format!("/sales/ticket/orders/{}", "0".repeat(32));
    let answers = crowd(300, 300, &[edge.address()], |_| Request::get(&path));
    redis.thaw();
    let busy = answers.iter().filter(|answer| answer.problem() == "busy").count();
    assert!((300 - 256..300).contains(&busy), "{busy} of 300 were told to come again");
    assert!(answers.iter().all(|answer| answer.status == 503 && answer.header("retry-after").is_some()));
}
