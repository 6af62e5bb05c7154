//! A whole shop: edges, ledger, order services and their database; from a purchase to a paid ticket, whichever part
//! fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread::scope;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::edge::Setup;
use crate::harness::process::free_address;
use crate::harness::purchase::{count, order_ids, purchase};
use crate::harness::{Connection, Edge, OrderService, Outcome, Redis, Request, Shelf, buy, crowd, eventually, within};

/// A sync of 100 ms, and what a busy machine may add.
const ONE_SYNC: Duration = Duration::from_millis(600);
/// A payment is several requests and commits; thousands of them take their time on a busy machine.
const MINUTES: Duration = Duration::from_secs(240);

/// An edge with the ledger of `setup`, and an order service that it delivers and proxies to.
struct Shop {
    edge: Edge,
    shelf: Shelf,
    service: Option<OrderService>,
    at: SocketAddr,
}

fn with_service(setup: Setup, shelf: &Shelf, at: SocketAddr, sale: &Value) -> Setup {
    let secret = shelf.secret_file();
    setup
        .proxies_to(json!({ "servers": [{ "address": at, "max_fails": 0 }] }))
        .set("delivery", json!({ "upstream": "load_rule", "secret_file": secret, "timeout": "5s" }))
        .ticket(sale.clone())
}

impl Shop {
    fn open(setup: Setup, shelf: Shelf, sale: &Value) -> Self {
        let at = free_address();
        let edge = with_service(setup, &shelf, at, sale).start();
        let shelf = shelf.with_control(edge.control_address());
        let service = Some(shelf.service_at(at, "demo:approve"));
        Self { edge, shelf, service, at }
    }

    fn start_service(&mut self) {
        self.service = Some(self.shelf.service_at(self.at, "demo:approve"));
    }

    fn stop_service(&mut self) {
        self.service.take().unwrap().kill();
    }

    /// Waits until every event is delivered to the order service.
    fn all_is_delivered(&self) {
        within(MINUTES, "all is delivered", || {
            let answer = self.edge.control(&Request::get("/sales/ticket/delivery"));
            assert_eq!((answer.status, &answer.json()["set_aside"]), (200, &json!([])), "{answer:?}");
            (answer.json()["lag_entries"] == 0).then_some(())
        });
    }

    /// Every order of the database with its state, each there once.
    fn orders(&self) -> BTreeMap<String, String> {
        let rows = self.shelf.rows("orders");
        let orders: BTreeMap<_, _> = rows.iter().cloned().collect();
        assert_eq!(orders.len(), rows.len(), "no order has two rows");
        orders
    }
}

fn ids(outcomes: &[Outcome]) -> BTreeSet<String> {
    order_ids(outcomes)
}

fn bought(addresses: &[SocketAddr], requests: usize) -> Vec<Outcome> {
    let by = |number: usize| purchase().header("X-User-Id", &format!("buyer {number}"));
    crowd(20, requests, addresses, by).iter().map(Outcome::of).collect()
}

/// Pays through the edge until the answer is final. Returns whether the buyer has the ticket.
fn pay(connection: &mut Connection, id: &str) -> bool {
    eventually("the payment has an end", || {
        let answer = connection.ask(&Request::post(&format!("/orders/{id}/pay")));
        match answer.status {
            200 => Some(true),
            409 => match answer.json()["type"].as_str().and_then(|name| name.rsplit(':').next()) {
                Some("already-paid") => Some(true),
                Some("refund-due" | "order-released") => Some(false),
                _ => panic!("{answer:?}"),
            },
            202 | 502 | 503 => None,
            _ => panic!("{answer:?}"),
        }
    })
}

/// Pays these orders, eight at a time.
fn pay_all(address: SocketAddr, ids: &[String]) -> usize {
    scope(|scope| {
        let payers: Vec<_> = ids
            .chunks(ids.len().div_ceil(8).max(1))
            .map(|ids| {
                scope.spawn(move || {
                    let mut connection = Connection::to(address);
                    ids.iter().filter(|id| pay(&mut connection, id)).count()
                })
            })
            .collect();
        payers.into_iter().map(|payer| payer.join().unwrap()).sum()
    })
}

fn from_purchase_to_paid(setup: Setup, shelf: Shelf, total: usize) {
    let sale = json!({ "total": total, "hold": "1h", "deadline": "30s", "buyer": { "header": "X-User-Id" } });
    let shop = Shop::open(setup, shelf, &sale);
    let outcomes = bought(&[shop.edge.address()], total + 50);
    assert_eq!((count(&outcomes, "ordered"), count(&outcomes, "sold-out")), (total, 50));
    let ids: Vec<String> = ids(&outcomes).into_iter().collect();
    assert_eq!(pay_all(shop.edge.address(), &ids), total);
    shop.all_is_delivered();
    let paid: BTreeMap<String, String> = ids.into_iter().map(|id| (id, "PAID".to_owned())).collect();
    assert!(shop.orders() == paid, "one row for each order, and no other");
    assert_eq!(shop.edge.snapshot()["paid"], total);
    let settled = shop.shelf.rows("settlements");
    assert!(settled.len() == total && settled.iter().all(|(_, state)| state == "paid"), "each was paid once");
}

#[test]
fn ten_thousand_orders_come_from_purchase_to_paid_in_postgresql() {
    let redis = Redis::start();
    from_purchase_to_paid(Edge::setup().redis(&redis), Shelf::postgres(), 10_000);
    assert_eq!(redis.books_agree().len(), 10_000);
}

#[test]
fn orders_come_from_purchase_to_paid_in_sqlite() {
    from_purchase_to_paid(Edge::setup(), Shelf::sqlite(), 1_000);
}

/// Of those who hold an order, three in ten never pay. Whoever finds nothing comes again.
fn all_is_paid_in_the_end(setup: Setup, shelf: Shelf) {
    const TOTAL: usize = 300;
    const HOLD: Duration = Duration::from_secs(3);
    let sale = json!({ "total": TOTAL, "hold": "3s", "deadline": "2500ms", "buyer": { "header": "X-User-Id" } });
    let shop = Shop::open(setup, shelf, &sale);
    let address = shop.edge.address();
    let all_paid = || shop.edge.snapshot()["paid"] == TOTAL;
    let begun = Instant::now();
    scope(|scope| {
        for buyer in 0..8 {
            let all_paid = &all_paid;
            scope.spawn(move || {
                let mut connection = Connection::to(address);
                let by = purchase().header("X-User-Id", &format!("buyer {buyer}"));
                let mut orders = buyer;
                loop {
                    let outcome = Outcome::of(&connection.ask(&by));
                    match outcome.name() {
                        "ordered" => {
                            orders += 1;
                            if orders % 10 >= 3 {
                                pay(&mut connection, outcome.id());
                            }
                        }
                        "sold-out" if all_paid() => return,
                        "sold-out" => std::thread::sleep(Duration::from_millis(20)),
                        other => panic!("{other}"),
                    }
                    assert!(begun.elapsed() < MINUTES, "not all is paid: {}", begun.elapsed().as_secs());
                }
            });
        }
    });
    shop.all_is_delivered();
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let orders = shop.orders();
    let with = |wanted: &str| orders.values().filter(|state| *state == wanted).count();
    assert_eq!((with("PAID"), with("HELD")), (TOTAL, 0));
    assert!(with("RELEASED") > TOTAL / 10, "{} were released", with("RELEASED"));
    // What was released last was released at the end of its hold, and is paid by somebody else by now.
    let released = orders.iter().filter(|(_, state)| *state == "RELEASED");
    let last_ms = released
        .map(|(id, _)| {
            let order = shop.edge.order(id).unwrap();
            order["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64
        })
        .max();
    let late = end.saturating_sub(Duration::from_millis(last_ms.unwrap()));
    assert!(late < HOLD + ONE_SYNC + Duration::from_secs(1), "{late:?} after the last hold had ended");
}

#[test]
fn tickets_of_those_who_never_pay_are_sold_to_others_from_redis() {
    let redis = Redis::start();
    all_is_paid_in_the_end(Edge::setup().redis(&redis), Shelf::sqlite());
    redis.books_agree();
}

#[test]
fn tickets_of_those_who_never_pay_are_sold_to_others_from_the_embedded_ledger() {
    all_is_paid_in_the_end(Edge::setup(), Shelf::postgres());
}

#[test]
fn an_order_service_that_is_away_and_dies_again_and_again_misses_nothing() {
    let sale = json!({ "total": 5_000, "hold": "1h", "deadline": "30s" });
    let mut shop = Shop::open(Edge::setup(), Shelf::sqlite(), &sale);
    let address = shop.edge.address();
    let mut made = BTreeSet::new();
    for round in 0..6 {
        // In every other round it is not there at all; otherwise it dies in the middle of deliveries.
        if round % 2 == 1 {
            shop.stop_service();
        }
        scope(|scope| {
            let sale = scope.spawn(|| bought(&[address], 500));
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(20 * (round + 1)));
                shop.stop_service();
            }
            made.extend(ids(&sale.join().unwrap()));
        });
        shop.start_service();
    }
    shop.all_is_delivered();
    let orders = shop.orders();
    assert_eq!(made.len(), 3_000);
    assert!(orders.keys().eq(&made), "one row for each order, and no other");
    assert!(orders.values().all(|state| state == "HELD"));
}

#[test]
fn an_edge_that_dies_while_it_delivers_leaves_the_rest_to_another_and_to_itself() {
    let redis = Redis::start();
    let sale = json!({ "total": 5_000, "hold": "1h", "deadline": "30s" });
    let mut shop = Shop::open(Edge::setup().redis(&redis), Shelf::sqlite(), &sale);
    let other = with_service(Edge::setup().redis(&redis), &shop.shelf, shop.at, &sale).start();
    let mut made = ids(&bought(&[shop.edge.address(), other.address()], 1_000));
    shop.edge.kill9();
    made.extend(ids(&bought(&[other.address()], 500)));
    shop.edge.start_again();
    made.extend(ids(&bought(&[shop.edge.address()], 500)));
    shop.all_is_delivered();
    assert!(shop.orders().keys().eq(&made) && made.len() == 2_000, "one row for each order, and no other");
    assert_eq!(redis.books_agree(), made);
}

/// A thousand orders are paid at about the time when their holds end, while others buy what becomes free.
#[test]
fn payment_and_expiry_race_a_thousand_times_and_money_and_ticket_agree() {
    const TOTAL: usize = 1_000;
    let redis = Redis::start();
    let sale = json!({ "total": TOTAL, "hold": "4s", "deadline": "2500ms" });
    let shop = Shop::open(Edge::setup().redis(&redis), Shelf::sqlite(), &sale);
    let address = shop.edge.address();
    let ids: Vec<String> = ids(&bought(&[address], TOTAL)).into_iter().collect();
    assert_eq!(ids.len(), TOTAL);
    let end = |id: &String| {
        let order = shop.edge.order(id).unwrap();
        order["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
    };
    let first = ids.iter().step_by(50).map(end).min().unwrap();
    eventually("the holds are about to end", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        (first - now < 300).then_some(())
    });
    let tickets = scope(|scope| {
        let others = scope.spawn(|| {
            for _ in 0..2_000 {
                let _outcome = buy(address, &purchase());
            }
        });
        let tickets = pay_all(address, &ids);
        others.join().unwrap();
        tickets
    });
    shop.all_is_delivered();

    // Whoever was charged has a ticket, or the money is back.
    let settled = within(MINUTES, "every payment has come to an end", || {
        let settled = shop.shelf.rows("settlements");
        settled.iter().all(|(_, state)| ["paid", "refunded", "declined"].contains(&state.as_str())).then_some(settled)
    });
    let orders = shop.orders();
    let mut paid = 0;
    for (id, state) in &settled {
        assert_eq!(state == "paid", orders[id] == "PAID", "order {id} is {}, its payment {state}", orders[id]);
        paid += usize::from(state == "paid");
    }
    assert_eq!(paid, tickets, "what the buyers were told is so");
    assert_eq!(shop.edge.snapshot()["paid"], paid);
    assert!(tickets > 0, "some were in time");
    redis.books_agree();
}
