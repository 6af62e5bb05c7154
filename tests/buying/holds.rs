//! The life of an order: it is paid, cancelled, or its hold ends and its tickets are sold again.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::purchase::{order_ids, purchase, purchase_with_key};
use crate::harness::{Edge, Outcome, Redis, Request, at_best_within, buy, crowd, eventually};

/// One sync (100 ms by default), and time for the machine.
const ONE_SYNC: Duration = Duration::from_millis(600);

fn tickets(total: u64) -> Value {
    json!({ "total": total, "hold": "3s", "deadline": "2500ms", "seed_dialect": true, "buyer": { "header": "X-User-Id" } })
}

/// Runs a test with either ledger.
fn with_both_ledgers(sale: &Value, story: impl Fn(Edge)) {
    story(Edge::setup().ticket(sale.clone()).start());
    let redis = Redis::start();
    story(Edge::setup().redis(&redis).ticket(sale.clone()).start());
    redis.books_agree();
}

fn by(buyer: &str) -> Request {
    purchase().header("X-User-Id", buyer)
}

fn ordered(address: SocketAddr, request: &Request) -> String {
    let outcome = buy(address, request);
    assert!(outcome.is_order(), "{outcome:?}");
    outcome.id().to_owned()
}

fn paid_by(payment: &str) -> Value {
    json!({ "payment": payment })
}

/// How long ago the hold of an order ended.
fn since_end(order: &Value) -> Duration {
    let end: jiff::Timestamp = order["expires_at"].as_str().unwrap().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.saturating_sub(Duration::from_millis(end.as_millisecond() as u64))
}

#[test]
fn a_ticket_that_is_not_paid_is_sold_to_another_within_a_sync_of_the_end_of_its_hold() {
    with_both_ledgers(&tickets(1), |edge| {
        let (mut first, mut expired) = (ordered(edge.address(), &by("ann")), 0);
        at_best_within(ONE_SYNC, "selling a ticket after its hold", || {
            let order = edge.order(&first).unwrap();
            assert_eq!(buy(edge.address(), &by("bob")).name(), "sold-out");
            let second = eventually("bob gets it", || {
                let outcome = buy(edge.address(), &by("bob"));
                outcome.is_order().then(|| outcome.id().to_owned())
            });
            let late = since_end(&order);
            assert!(late > Duration::ZERO, "{late:?} after the end of the hold");
            assert_eq!(edge.order(&first).unwrap()["state"], "RELEASED");
            assert_eq!(edge.order(&second).unwrap()["state"], "HELD");
            expired += 1;
            edge.wait_for_metric("spikegate_orders_expired_total", "", expired);
            first = second;
            late
        });
    });
}

#[test]
fn a_paid_order_stays_and_a_cancelled_one_is_for_sale_at_once() {
    with_both_ledgers(&tickets(2), |edge| {
        let (ann, bob) = (ordered(edge.address(), &by("ann")), ordered(edge.address(), &by("bob")));
        let paid = edge.settle(&ann, "confirm", &paid_by("p-1"));
        assert_eq!(paid.status, 200, "{paid:?}");
        let document = paid.json();
        assert_eq!((&document["state"], &document["payment"]), (&json!("PAID"), &json!("p-1")));
        assert_eq!(edge.settle(&ann, "confirm", &paid_by("p-1")), paid, "the same payment hears the same");
        let cancelled = edge.settle(&bob, "cancel", &json!({}));
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
        assert_eq!(
            (&cancelled.json()["state"], &cancelled.json()["reason"]),
            (&json!("RELEASED"), &json!("cancelled"))
        );
        assert_eq!(edge.settle(&bob, "cancel", &json!({})), cancelled);

        let mut eve = String::new();
        at_best_within(ONE_SYNC, "selling what was cancelled", || {
            if !eve.is_empty() {
                edge.settle(&eve, "cancel", &json!({}));
            }
            let begun = Instant::now();
            eve = eventually("eve gets what was given back", || {
                let outcome = buy(edge.address(), &by("eve"));
                outcome.is_order().then(|| outcome.id().to_owned())
            });
            begun.elapsed()
        });
        eventually("eve's hold ends", || (edge.snapshot()["sold"] == 1).then_some(()));
        assert_eq!(edge.order(&ann).unwrap()["state"], "PAID");
        assert_eq!(edge.order(&eve).unwrap()["state"], "RELEASED");
        assert_eq!(edge.snapshot()["paid"], 1);
    });
}

#[test]
fn a_payment_after_the_hold_takes_the_order_back_or_is_refunded() {
    let sale =
        json!({ "total": 2, "hold": "3s", "deadline": "2500ms", "per_buyer": 1, "buyer": { "header": "X-User-Id" } });
    with_both_ledgers(&sale, |edge| {
        let refund = |id: &str, payment: &str| {
            let answer = edge.settle(id, "confirm", &paid_by(payment));
            assert_eq!((answer.status, answer.problem().as_str()), (409, "refund-due"), "{answer:?}");
            answer.json()["reason"].as_str().unwrap().to_owned()
        };
        let (ann, bob) = (ordered(edge.address(), &by("ann")), ordered(edge.address(), &by("bob")));
        eventually("both are released", || (edge.snapshot()["sold"] == 0).then_some(()));

        // Ann pays late, and there is a ticket; Bob has another by now; then nothing is left.
        let back = edge.settle(&ann, "confirm", &paid_by("p-1")).json();
        assert_eq!((&back["state"], &back["retaken"]), (&json!("PAID"), &json!(true)), "{back}");
        assert_eq!(refund(&ann, "p-2"), "paid-otherwise");
        let other = eventually("bob buys again", || {
            let outcome = buy(edge.address(), &by("bob"));
            outcome.is_order().then(|| outcome.id().to_owned())
        });
        assert_eq!(edge.settle(&other, "confirm", &paid_by("p-3")).status, 200);
        assert_eq!(refund(&bob, "p-4"), "sold-out");
        edge.operate("stock", &json!({ "change_id": "more", "delta": 1 }));
        assert_eq!(refund(&bob, "p-4"), "buyer-limit");

        let unknown = edge.settle(&"0".repeat(32), "confirm", &paid_by("p-5"));
        assert_eq!((unknown.status, unknown.problem().as_str()), (404, "order-unknown"));
        let paid = edge.settle(&ann, "cancel", &json!({}));
        assert_eq!((paid.status, paid.problem().as_str()), (409, "already-paid"));
        let never = "0123456789abcdef".repeat(2);
        assert_eq!(edge.settle(&never, "cancel", &json!({})).json()["state"], "GIVEN_UP");
        assert_eq!(refund(&never, "p-6"), "given-up");
        for (id, body) in [("xyz", paid_by("p")), (&*ann, paid_by("a b")), (&*ann, paid_by("-")), (&*ann, json!({}))] {
            let bad = edge.settle(id, "confirm", &body);
            assert_eq!((bad.status, bad.problem().as_str()), (400, "bad-request"), "{id} {body}");
        }
        assert_eq!((edge.snapshot()["total"].clone(), edge.snapshot()["paid"].clone()), (json!(3), json!(2)));
    });
}

#[test]
fn a_key_of_a_released_order_gets_order_released_even_when_all_is_sold() {
    with_both_ledgers(&tickets(1), |edge| {
        let request = purchase_with_key("k").header("X-User-Id", "ann");
        let first = ordered(edge.address(), &request);
        edge.settle(&first, "cancel", &json!({}));
        let second = eventually("it is sold again", || {
            let outcome = buy(edge.address(), &by("bob"));
            outcome.is_order().then(|| outcome.id().to_owned())
        });
        assert_eq!(edge.settle(&second, "confirm", &paid_by("p")).status, 200);
        let again = buy(edge.address(), &request);
        assert_eq!((again.name(), again.id()), ("order-released", first.as_str()));
        assert_eq!(buy(edge.address(), &purchase_with_key("other")).name(), "sold-out");
    });
}

#[test]
fn a_buyer_with_unpaid_orders_pays_or_cancels_one_before_the_next() {
    let sale = json!({ "total": 10, "hold": "1h", "unpaid_per_buyer": 1, "buyer": { "header": "X-User-Id" } });
    with_both_ledgers(&sale, |edge| {
        for step in ["confirm", "cancel"] {
            let first = ordered(edge.address(), &by("ann"));
            for _ in 0..3 {
                let refused = buy(edge.address(), &by("ann"));
                let Outcome::Refused { status: 409, body, .. } = &refused else { panic!("{refused:?}") };
                assert_eq!((refused.name(), &body["limit"], &body["have"]), ("unpaid-limit", &json!(1), &json!(1)));
            }
            let body = if step == "confirm" { paid_by("p") } else { json!({}) };
            assert_eq!(edge.settle(&first, step, &body).status, 200);
            let next = eventually("ann may buy again", || {
                let outcome = buy(edge.address(), &by("ann"));
                outcome.is_order().then(|| outcome.id().to_owned())
            });
            edge.settle(&next, "cancel", &json!({}));
            eventually("nothing is unpaid", || (edge.snapshot()["held"] == 0).then_some(()));
        }
        let nobody = edge.ask(&purchase());
        assert_eq!(
            (nobody.status, nobody.problem().as_str()),
            (400, "bad-request"),
            "who says no name cannot be limited"
        );
        let from_memory = edge.metric("spikegate_gate_refused_total", "");
        assert!((4..=6).contains(&from_memory), "{from_memory} of 6 refusals were from memory");
    });
}

#[test]
fn what_a_dead_edge_sold_is_released_by_another_and_by_itself_after_a_restart() {
    let redis = Redis::start();
    let mut first = Edge::setup().redis(&redis).ticket(tickets(5)).start();
    let second = Edge::setup().redis(&redis).ticket(tickets(5)).start();
    (0..5).for_each(|_| drop(ordered(first.address(), &purchase())));
    first.kill9();
    eventually("all is sold again by the other", || {
        buy(second.address(), &purchase());
        (redis.books_agree().len() == 5 && second.metric("spikegate_orders_expired_total", "") == 5).then_some(())
    });

    let mut alone = Edge::setup().ticket(tickets(5)).start();
    (0..5).for_each(|_| drop(ordered(alone.address(), &purchase())));
    alone.kill9();
    alone.start_again();
    eventually("all is released after the restart", || (alone.sold() == 0).then_some(()));
}

/// 400 orders, each paid at about the time when its hold ends, while others buy what becomes free.
#[test]
fn payment_and_expiry_race_and_one_of_them_wins() {
    let total = 400;
    let sale = json!({ "total": total, "hold": "3s", "deadline": "2500ms", "local_stock": 100 });
    with_both_ledgers(&sale, |edge| {
        let outcomes: Vec<_> = crowd(50, total, &[edge.address()], |_| purchase()).iter().map(Outcome::of).collect();
        let ids: Vec<String> = order_ids(&outcomes).into_iter().collect();
        assert_eq!(ids.len(), total);
        let last = edge.order(&ids[0]).unwrap();
        eventually("the holds are about to end", || {
            let end: jiff::Timestamp = last["expires_at"].as_str().unwrap().parse().unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
            (end.as_millisecond() - now < 100).then_some(())
        });
        let mut refunds = 0;
        std::thread::scope(|scope| {
            let others = scope.spawn(|| crowd(20, 2_000, &[edge.address()], |_| purchase()));
            for (n, id) in ids.iter().enumerate() {
                let answer = edge.settle(id, "confirm", &paid_by(&format!("p-{n}")));
                match answer.status {
                    200 => {}
                    409 => {
                        assert!(["sold-out"].contains(&answer.json()["reason"].as_str().unwrap()), "{answer:?}");
                        refunds += 1;
                    }
                    _ => panic!("{answer:?}"),
                }
            }
            others.join().unwrap();
        });
        let paid = ids.iter().filter(|id| edge.order(id).unwrap()["state"] == "PAID").count();
        assert_eq!(paid + refunds, total, "money and ticket agree");
        assert_eq!(edge.snapshot()["paid"], paid);
    });
}

#[test]
fn the_command_line_settles_orders() {
    let edge = Edge::setup().ticket(json!({ "total": 3, "hold": "1h" })).start();
    let (first, second) = (ordered(edge.address(), &purchase()), ordered(edge.address(), &purchase()));
    let says = |arguments: &[&str]| {
        let output = edge.sale_command(arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (done, text) = says(&["confirm", "ticket", &first, "--payment", "till-7"]);
    assert!(done && text.contains("\"PAID\"") && text.contains("till-7"), "{text}");
    let (done, text) = says(&["order", "ticket", &first]);
    assert!(done && text.contains("\"PAID\""), "{text}");
    let (done, text) = says(&["cancel", "ticket", &first]);
    assert!(!done && text.contains("cannot be cancelled"), "{text}");
    let (done, text) = says(&["confirm", "ticket", &first, "--payment", "till-8"]);
    assert!(!done && text.contains("must be refunded"), "{text}");
    let (done, text) = says(&["cancel", "ticket", &second]);
    assert!(done && text.contains("\"RELEASED\""), "{text}");
    let (done, text) = says(&["sweep", "ticket"]);
    assert!(done && text.contains("\"released\": 0"), "{text}");
    let (done, text) = says(&["cancel", "ticket", "not-an-id"]);
    assert!(!done && text.contains("32 hexadecimal digits"), "{text}");
}
