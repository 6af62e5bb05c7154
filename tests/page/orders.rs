//! The page shows every change of an order, no matter who made it.

use serde_json::json;

use super::{Shop, buy, is_faultless, newest_order, plain, text};
use crate::harness::Browser;

#[test]
fn a_ticket_that_is_not_paid_in_time_is_bought_by_somebody_else() {
    let shop = Shop::open(json!({ "total": 1, "hold": "6s", "deadline": "2s" }));
    let (ann, bob) = (Browser::start(), Browser::start());
    ann.open(&shop.url());
    bob.open(&shop.url());
    for browser in [&ann, &bob] {
        browser.shows("#state", &plain("en", "state.open"));
    }
    bob.fill("#buyer", "bob");
    buy(&ann, "ann", 1);
    let first = newest_order(&ann);
    bob.shows("#state", &plain("en", "state.sold_out"));
    assert_eq!(bob.text("#submit"), plain("en", "buy.submit_sold_out"));

    // Nobody does anything but wait.
    bob.shows("#state", &plain("en", "state.open"));
    bob.click("#submit");
    let second = newest_order(&bob);
    ann.shows("article.order .badge", &plain("en", "orders.RELEASED"));
    ann.shows("article.order .story", &plain("en", "orders.released"));
    ann.picture("expired");
    assert_ne!(first, second);
    let order = |id: &str| shop.edge.order(id).expect("an order");
    assert_eq!(order(&first)["state"], "RELEASED");
    assert_eq!((&order(&second)["state"], &order(&second)["buyer"]), (&json!("HELD"), &json!("bob")));

    // A settled order can be put away, and the reader is not left nowhere.
    ann.click("article.order .forget");
    ann.until("the order is gone", "return document.querySelector('article.order') === null");
    assert_eq!(ann.run("return document.activeElement.id"), "submit");
    is_faultless(&ann);
    is_faultless(&bob);
}

#[test]
fn what_an_operator_does_to_an_order_is_shown() {
    let shop = Shop::open(json!({ "total": 10, "hold": "1h" }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));
    buy(&browser, "ann", 1);
    let first = newest_order(&browser);
    buy(&browser, "ann", 2);
    browser.until("two orders are shown", "return document.querySelectorAll('article.order').length === 2");
    let second = newest_order(&browser);
    browser.shows("#left", &text("en", "sale.left", json!({ "available": 7, "total": 10 })));

    let settle = |id: &str, step: &str, body| assert_eq!(shop.edge.settle(id, step, &body).status, 200);
    settle(&first, "confirm", json!({ "payment": "p-1" }));
    settle(&second, "cancel", json!({}));
    browser.shows(&format!("[data-order='{first}'] .story"), &plain("en", "orders.paid"));
    browser.shows(&format!("[data-order='{second}'] .story"), &plain("en", "orders.released"));
    browser.picture("paid-and-cancelled");
    browser.reload();
    browser.shows(&format!("[data-order='{first}'] .badge"), &plain("en", "orders.PAID"));
    browser.shows(&format!("[data-order='{second}'] .badge"), &plain("en", "orders.RELEASED"));
    is_faultless(&browser);
}
