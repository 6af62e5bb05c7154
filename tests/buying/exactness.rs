//! The edges sell exactly the stock, and refuse most purchases without asking the ledger.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::purchase::{count, order_ids, purchase, purchase_with_key};
use crate::harness::{Answer, Connection, Edge, Outcome, Redis, Request, crowd};

const STOCK: u64 = 100;
const LOCAL_STOCK: u64 = 10;
const BUYERS: usize = 5_000;
const CLIENTS: usize = 200;

/// Deadlines are far off: this is about counting, and a slow machine must not turn a ticket into an unknown one.
fn hundred_tickets() -> Value {
    json!({ "total": STOCK, "local_stock": LOCAL_STOCK, "deadline": "30s" })
}

fn two_edges(redis: &Redis) -> [Edge; 2] {
    let edge = || Edge::setup().redis_at(&redis.url(), "10s").ticket(hundred_tickets()).start();
    [edge(), edge()]
}

/// Every purchase was an order or "sold out", and exactly the stock was sold.
#[track_caller]
fn exactly_the_stock_was_sold(answers: &[Answer]) -> BTreeSet<String> {
    let outcomes: Vec<Outcome> = answers.iter().map(Outcome::of).collect();
    let ids = order_ids(&outcomes);
    assert_eq!(ids.len() as u64, STOCK);
    assert_eq!(count(&outcomes, "sold-out"), BUYERS - STOCK as usize, "{:?}", first_other(&outcomes));
    ids
}

fn first_other(outcomes: &[Outcome]) -> Option<&Outcome> {
    outcomes.iter().find(|outcome| !matches!(outcome.name(), "ordered" | "sold-out"))
}

/// What the ledger was asked by all edges, at most the stock and each edge's local stock, and retries.
#[track_caller]
fn the_ledger_was_asked_little(edges: &[Edge]) {
    let sum = |name: &str| edges.iter().map(|edge| edge.metric(name, "ticket")).sum::<u64>();
    let attempts = sum("spikegate_ledger_attempts_total");
    let most = STOCK + LOCAL_STOCK * edges.len() as u64;
    assert!((STOCK..=most).contains(&attempts), "{attempts} attempts for {STOCK} tickets");
    assert_eq!(sum("spikegate_ledger_retries_total"), 0, "nothing went wrong");
    assert!(sum("spikegate_ledger_batches_total") <= attempts);
    assert_eq!(outcomes_counted(edges, "ordered"), STOCK);
    assert_eq!(outcomes_counted(edges, "sold_out"), BUYERS as u64 - STOCK);
}

fn outcomes_counted(edges: &[Edge], outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    edges.iter().map(|edge| edge.metric("spikegate_purchases_total", &label)).sum()
}

#[test]
fn two_edges_sell_one_stock_exactly() {
    let redis = Redis::start();
    let edges = two_edges(&redis);

    let answers = crowd(CLIENTS, BUYERS, &edges.each_ref().map(Edge::address), |_| purchase());

    let ids = exactly_the_stock_was_sold(&answers);
    assert_eq!(redis.sold(), STOCK);
    assert_eq!(redis.books_agree(), ids, "the ledger has the orders that were answered, and no other");
    the_ledger_was_asked_little(&edges);
}

#[test]
fn two_edges_sell_one_stock_exactly_to_buyers_with_keys() {
    let redis = Redis::start();
    let edges = two_edges(&redis);

    let request = |number: usize| purchase_with_key(&format!("purchase-{number}"));
    let answers = crowd(CLIENTS, BUYERS, &edges.each_ref().map(Edge::address), request);

    let ids = exactly_the_stock_was_sold(&answers);
    assert_eq!(redis.books_agree(), ids);
    the_ledger_was_asked_little(&edges);

    // Each buyer who asks again, now at the other edge, hears the same as before.
    let again = Connection::to(edges[1].address());
    let (yes, no): (Vec<usize>, Vec<usize>) = (0..BUYERS).partition(|number| answers[*number].status == 201);
    let (mut here, mut there) = (again, edges[0].connect());
    for number in yes.into_iter().chain(no.into_iter().take(200)) {
        for connection in [&mut here, &mut there] {
            let answer = connection.ask(&request(number));
            assert_eq!((answer.status, answer.text()), (answers[number].status, answers[number].text()));
        }
    }
    assert_eq!(redis.sold(), STOCK, "and nothing more was sold");
}

#[test]
fn one_edge_sells_its_embedded_stock_exactly() {
    let edge = Edge::setup().ticket(hundred_tickets()).start();

    let answers = crowd(CLIENTS, BUYERS, &[edge.address()], |_| purchase());

    let ids = exactly_the_stock_was_sold(&answers);
    assert_eq!(edge.sold(), STOCK);
    for id in &ids {
        assert_eq!(edge.order(id).unwrap()["state"], "HELD");
    }
    the_ledger_was_asked_little(std::slice::from_ref(&edge));
}

#[test]
fn both_dialects_and_all_quantities_share_one_stock() {
    let redis = Redis::start();
    let settings = json!({ "total": 300, "local_stock": 20, "deadline": "30s", "seed_dialect": true });
    let edge = || Edge::setup().redis_at(&redis.url(), "10s").ticket(settings.clone()).start();
    let edges = [edge(), edge()];
    let addresses: [SocketAddr; 2] = edges.each_ref().map(Edge::address);

    let request = |number: usize| match number % 4 {
        0 => Request::get("/buy/ticket"),
        1 => Request::get("/buy/ticket?quantity=3"),
        2 => Request::post("/buy/ticket?quantity=2"),
        _ => Request::post("/buy/ticket").json(&json!({ "quantity": 1 })),
    };
    let outcomes: Vec<Outcome> = crowd(50, 1000, &addresses, request).iter().map(Outcome::of).collect();

    let quantity = |outcome: &Outcome| match outcome {
        Outcome::Ordered { order, .. } => order["quantity"].as_u64().unwrap(),
        Outcome::Refused { name, body, .. } => {
            assert!(name == "sold-out" || name == "not-enough-left", "{outcome:?}");
            assert!(name == "sold-out" || (1..=2).contains(&body["left"].as_u64().unwrap()), "{outcome:?}");
            0
        }
    };
    let sold: u64 = outcomes.iter().map(quantity).sum();
    assert_eq!(sold, 300, "single tickets take what larger orders leave");
    assert_eq!(redis.sold(), 300);
    assert_eq!(redis.books_agree(), order_ids(&outcomes));
}

#[test]
fn the_last_ticket_goes_to_exactly_one_of_two_edges_every_time() {
    let redis = Redis::start();
    let edges = two_edges(&redis);
    let first = edges.each_ref().map(Edge::address);
    assert_eq!(exactly_the_stock_was_sold(&crowd(50, BUYERS, &first, |_| purchase())).len(), 100);

    for round in 0..30 {
        let changed = edges[round % 2].operate("stock", &json!({ "change_id": format!("one-{round}"), "delta": 1 }));
        assert_eq!((&changed["total"], &changed["available"]), (&json!(101 + round), &json!(1)));
        for edge in &edges {
            crate::harness::eventually("both edges know of it", || (edge.shown()["available"] == 1).then_some(()));
        }
        let outcomes: Vec<Outcome> = crowd(8, 8, &first, |_| purchase()).iter().map(Outcome::of).collect();
        assert_eq!((count(&outcomes, "ordered"), count(&outcomes, "sold-out")), (1, 7), "{outcomes:?}");
    }
    assert_eq!(redis.books_agree().len(), 130);
}

#[test]
fn two_sales_at_one_edge_are_two_stocks() {
    let redis = Redis::start();
    let sale = |id: &str, total: u64| json!({ "path": format!("/buy/{id}"), "key": id, "total": total });
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let edge = setup.set("sales", json!({ "ticket": sale("ticket", 30), "seat": sale("seat", 20) })).start();
        // The same keys at both: a key is one purchase of one sale.
        let path = |number: usize| ["/buy/ticket", "/buy/seat"][number % 2];
        let request = |number: usize| Request::post(path(number)).header("Idempotency-Key", &(number / 2).to_string());
        let answers = crowd(20, 100, &[edge.address()], request);

        let bought = |of: usize| {
            let outcomes: Vec<Outcome> = answers.iter().skip(of).step_by(2).map(Outcome::of).collect();
            assert_eq!(count(&outcomes, "ordered") + count(&outcomes, "sold-out"), 50, "{outcomes:?}");
            order_ids(&outcomes)
        };
        let (tickets, seats) = (bought(0), bought(1));
        assert_eq!((tickets.len(), seats.len()), (30, 20));
        assert!(tickets.is_disjoint(&seats));
        for seat in &seats {
            assert_eq!(edge.ask(&Request::get(&format!("/sales/seat/orders/{seat}"))).status, 200);
            assert_eq!(edge.order(seat), None, "an order of one sale is none of the other");
        }
        let list = edge.control(&Request::get("/sales")).json();
        assert_eq!((&list[0]["sold"], &list[1]["sold"]), (&json!(30), &json!(20)), "in the file's order: {list}");
    }
}
