//! The two designs that the benchmarks compare Spikegate with work as described.

use std::net::SocketAddr;

use serde_json::json;

use crate::harness::{Answer, OrderService, Request, Shelf, crowd, eventually};

const CLIENTS: usize = 16;

fn two_services(design: &str, total: u32, hold_ms: u32) -> (Shelf, [OrderService; 2]) {
    let shelf = Shelf::postgres().with_designs();
    let services = shelf.services(["demo", "demo"]);
    let open = Request::new("PUT", &format!("/designs/{design}"));
    let answer = services[0].ask(&open.json(&json!({ "total": total, "hold_ms": hold_ms })));
    assert_eq!(answer.status, 200, "{answer:?}");
    (shelf, services)
}

fn purchase(design: &str, buyer: usize) -> Request {
    Request::post(&format!("/designs/{design}/purchase")).header("X-User-Id", &format!("buyer-{buyer}"))
}

fn pay(design: &str, id: &str) -> Request {
    Request::post(&format!("/designs/{design}/orders/{id}/pay"))
}

fn buy_all(design: &str, buyers: usize, addresses: &[SocketAddr]) -> Vec<Answer> {
    crowd(CLIENTS, buyers, addresses, |number| purchase(design, number))
}

/// The ids of the orders that were made; all other answers must be this problem.
fn ids(answers: &[Answer], otherwise: &str) -> Vec<String> {
    let ordered = |answer: &&Answer| answer.status == 201;
    for answer in answers.iter().filter(|answer| !ordered(answer)) {
        assert_eq!((answer.status, answer.problem_name().as_str()), (409, otherwise), "{answer:?}");
    }
    answers.iter().filter(ordered).map(|answer| answer.json()["order_id"].as_str().unwrap().to_owned()).collect()
}

/// How many orders of the database are in this state.
fn count(shelf: &Shelf, state: &str) -> usize {
    shelf.rows("design_orders").iter().filter(|(_, own)| own == state).count()
}

#[test]
fn order_first_sells_what_there_is_and_no_more() {
    let (shelf, services) = two_services("order-first", 50, 600_000);
    let addresses = [services[0].address(), services[1].address()];
    let orders = ids(&buy_all("order-first", 200, &addresses), "sold-out");
    assert_eq!((orders.len(), count(&shelf, "HELD")), (50, 50));
    // Everybody pays twice.
    let paid = crowd(CLIENTS, 100, &addresses, |number| pay("order-first", &orders[number / 2]));
    assert!(paid.iter().all(|answer| answer.status == 200 && answer.json()["state"] == "PAID"), "{paid:?}");
    assert_eq!((count(&shelf, "PAID"), shelf.rows("design_orders").len()), (50, 50));
    let unknown = services[0].ask(&pay("order-first", &"0".repeat(32)));
    assert_eq!((unknown.status, unknown.problem_name().as_str()), (404, "order-unknown"));
}

#[test]
fn order_first_gives_back_what_is_not_paid_once_and_no_more() {
    let (shelf, services) = two_services("order-first", 5, 1_000);
    let addresses = [services[0].address(), services[1].address()];
    let orders = ids(&buy_all("order-first", 5, &addresses), "sold-out");
    assert_eq!(orders.len(), 5);
    eventually("all holds have ended", || (count(&shelf, "RELEASED") == 5).then_some(()));
    let late = services[1].ask(&pay("order-first", &orders[0]));
    assert_eq!((late.status, late.problem_name().as_str()), (409, "order-released"), "{late:?}");

    let sold = shelf.pairs("SELECT sold, total FROM design_stock WHERE design = 'order-first'");
    assert_eq!(sold, [("0".to_owned(), "5".to_owned())], "two that sweep give back each ticket once");
}

#[test]
fn pay_first_takes_every_order_and_pays_as_many_as_there_are_tickets() {
    let (shelf, services) = two_services("pay-first", 50, 600_000);
    let addresses = [services[0].address(), services[1].address()];
    let orders = ids(&buy_all("pay-first", 200, &addresses), "sold-out");
    assert_eq!(orders.len(), 200, "nothing is sold out before it is paid");
    // Everybody pays twice, and hears the same twice.
    let paid = crowd(CLIENTS, 400, &addresses, |number| pay("pay-first", &orders[number / 2]));
    for twice in paid.chunks(2) {
        assert_eq!(twice[0].status, twice[1].status, "{twice:?}");
        assert!(twice[0].status == 200 || twice[0].problem_name() == "refund-due", "{twice:?}");
    }
    assert_eq!(paid.iter().filter(|answer| answer.status == 200).count(), 2 * 50);
    assert_eq!((count(&shelf, "PAID"), count(&shelf, "REFUND_DUE")), (50, 150));
    assert!(ids(&buy_all("pay-first", 20, &addresses), "sold-out").is_empty(), "now it is");
}
