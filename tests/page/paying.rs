//! Paying on the page: from the countdown to a paid ticket in the database, and every way in which it can fail.

use std::time::Duration;

use serde_json::{Value, json};

use super::{buy, is_faultless, newest_order, plain};
use crate::harness::process::free_address;
use crate::harness::{Browser, Edge, OrderService, Shelf, eventually};

const ENTER: &str = "\u{e007}";
const TAB: &str = "\u{e004}";

/// An edge and the order service that it delivers to, with a database.
struct Shop {
    edge: Edge,
    shelf: Shelf,
    _service: OrderService,
}

impl Shop {
    /// With these settings of the sale and this payment provider.
    fn open(settings: &Value, payment: &str) -> Self {
        let (at, shelf) = (free_address(), Shelf::sqlite());
        let mut sale = json!({ "buyer": { "header": "X-User-Id" }, "deadline": "2s" });
        sale.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let edge = Edge::setup()
            .ticket(sale)
            .proxies_to(json!({ "servers": [{ "address": at, "max_fails": 0 }] }))
            .set("delivery", json!({ "upstream": "load_rule", "secret_file": shelf.secret_file() }))
            .start();
        let shelf = shelf.with_control(edge.control_address());
        let service = shelf.service_at(at, payment);
        Self { edge, shelf, _service: service }
    }

    /// A browser in which the page is ready for a purchase by `name`.
    fn visitor(&self, name: &str) -> Browser {
        let browser = Browser::start();
        browser.open(&format!("http://{}/shop/ticket", self.edge.address()));
        browser.shows("#state", &plain("en", "state.open"));
        browser.fill("#buyer", name);
        browser
    }

    /// Presses the button as soon as it can be pressed.
    fn pays(browser: &Browser) {
        let enabled = "return document.querySelector('article.order .pay').getAttribute('aria-disabled') !== 'true'";
        browser.until("the order can be paid", enabled);
        browser.click("article.order .pay");
    }

    /// Waits until the database has this order in this state.
    fn keeps(&self, id: &str, state: &str) {
        let row = (id.to_owned(), state.to_owned());
        eventually("the database has it", || self.shelf.rows("orders").contains(&row).then_some(()));
    }
}

#[test]
fn from_the_countdown_to_a_paid_ticket_in_the_database() {
    // A browser takes seconds to start on a busy machine, and the sale must not open meanwhile.
    let browser = Browser::start();
    let opens_at = (jiff::Timestamp::now() + Duration::from_secs(8)).to_string();
    let shop = Shop::open(&json!({ "total": 10, "opens_at": opens_at }), "demo:approve");
    browser.open(&format!("http://{}/shop/ticket", shop.edge.address()));
    browser.shows("#state", &plain("en", "state.pending"));
    browser.shows("#state", &plain("en", "state.open"));
    buy(&browser, "ann", 2);
    let id = newest_order(&browser);
    shop.keeps(&id, "HELD");
    browser.shows("article.order .story", "Pay by");
    Shop::pays(&browser);
    browser.shows("article.order .badge", &plain("en", "orders.PAID"));
    browser.shows("article.order .story", &plain("en", "orders.paid"));
    browser.picture("paid");
    shop.keeps(&id, "PAID");
    assert_eq!(
        (shop.edge.snapshot()["paid"].clone(), shop.shelf.rows("settlements")),
        (json!(2), vec![(id, "paid".into())])
    );
    is_faultless(&browser);
}

#[test]
fn a_ticket_whose_hold_ended_is_paid_by_another_and_the_late_money_goes_back() {
    let shop = Shop::open(&json!({ "total": 1, "hold": "5s" }), "demo:slow=7s");
    let (ann, bob) = (shop.visitor("ann"), shop.visitor("bob"));
    ann.click("#submit");
    let first = newest_order(&ann);
    Shop::pays(&ann);
    ann.shows("article.order .message", &plain("en", "orders.paying"));
    // The money takes longer than the hold lasts.
    eventually("the hold has ended", || (shop.edge.order(&first)?["state"] == "RELEASED").then_some(()));
    bob.shows("#state", &plain("en", "state.open"));
    bob.click("#submit");
    let second = newest_order(&bob);
    assert_eq!(shop.edge.settle(&second, "confirm", &json!({ "payment": "cash" })).status, 200);
    bob.shows("article.order .story", &plain("en", "orders.paid"));
    ann.shows("article.order .badge", &plain("en", "orders.RELEASED"));
    ann.shows("article.order .story", &plain("en", "payment.refunded"));
    ann.picture("refunded");
    shop.keeps(&first, "RELEASED");
    shop.keeps(&second, "PAID");
    assert_eq!(shop.shelf.rows("settlements"), [(first, "refunded".to_owned())]);
    is_faultless(&ann);
    is_faultless(&bob);
}

#[test]
fn a_declined_payment_leaves_the_tickets_held_and_they_are_given_back_by_keyboard() {
    let shop = Shop::open(&json!({ "total": 1 }), "demo:decline");
    let browser = shop.visitor("ann");
    browser.click("#submit");
    let id = newest_order(&browser);
    shop.keeps(&id, "HELD");
    Shop::pays(&browser);
    browser.shows("article.order .message", &plain("en", "payment.declined"));
    browser.picture("declined");
    assert_eq!(shop.edge.snapshot()["held"], 1);

    // From the button to its neighbour, to the question, and to its first answer.
    let focused = "return document.activeElement.className";
    browser.run("document.querySelector('article.order .pay').focus()");
    browser.press(TAB);
    assert_eq!(browser.run(focused), "cancel");
    browser.press(ENTER);
    browser.until("it asks whether that is meant", "return document.querySelector('#sure').open");
    assert_eq!(browser.run("return document.activeElement.value"), "no", "a hasty key gives nothing back");
    browser.picture("sure");
    browser.press(ENTER);
    browser.until("nothing happened", "return !document.querySelector('#sure').open");
    assert_eq!(shop.edge.snapshot()["held"], 1);
    browser.run("document.querySelector('article.order .cancel').focus()");
    browser.press(ENTER);
    browser.until("it asks again", "return document.querySelector('#sure').open");
    browser.run("document.querySelector('#sure [value=yes]').focus()");
    browser.press(ENTER);
    browser.shows("article.order .badge", &plain("en", "orders.RELEASED"));
    browser.shows("article.order .story", &plain("en", "orders.cancelled"));
    shop.keeps(&id, "RELEASED");
    assert_eq!(shop.edge.snapshot()["available"], 1);
    is_faultless(&browser);
}
