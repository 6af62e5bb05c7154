//! The page explains every refusal in both languages.

use serde_json::{Value, json};

use super::{Shop, buy, is_faultless, newest_order, plain, text};
use crate::harness::purchase::purchase;
use crate::harness::{Browser, Redis, Request, buy as buy_directly};

/// The page explains this refusal in the current language and in the other one.
#[track_caller]
fn is_told(browser: &Browser, name: &str, values: &Value) {
    for (language, tag) in [("en", "en"), ("zh", "zh-Hans"), ("en", "en")] {
        browser.click(&format!("[data-language={language}]"));
        browser.shows("#message", &text(language, name, values.clone()));
        assert_eq!(browser.run("return document.documentElement.lang"), tag);
    }
    assert_eq!(browser.run("return JSON.parse(localStorage['spikegate:sale:ticket']).attempt"), Value::Null);
}

/// The page is reloaded while it has a purchase under way, and asks for it at once, whatever the sale's state.
#[track_caller]
fn goes_on_with(browser: &Browser, attempt: &Value) {
    browser.run_with(
        "localStorage['spikegate:sale:ticket'] = JSON.stringify({ attempt: arguments[0], orders: [] })",
        std::slice::from_ref(attempt),
    );
    browser.reload();
}

fn attempt(buyer: &str, quantity: u32) -> Value {
    json!({ "key": format!("{:032x}", rand::random::<u128>()), "buyer": buyer, "quantity": quantity })
}

fn by(buyer: &str) -> Request {
    purchase().header("X-User-Id", buyer)
}

#[test]
fn each_refusal_is_told() {
    let shop = Shop::open(json!({ "total": 6, "per_buyer": 3 }));
    let edge = &shop.edge;
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));

    buy(&browser, "ann", 4);
    is_told(&browser, "refusal.buyer-limit", &json!({ "limit": 3, "have": 0 }));
    browser.picture("buyer-limit");

    assert!(buy_directly(edge.address(), &by("eve").header("Idempotency-Key", "once")).is_order());
    goes_on_with(&browser, &json!({ "key": "once", "buyer": "eve", "quantity": 2 }));
    is_told(&browser, "refusal.key-reused", &json!({}));

    goes_on_with(&browser, &attempt(&"long".repeat(40), 1));
    is_told(&browser, "refusal.bad-request", &json!({ "field": "x-user-id" }));

    for buyer in ["bob", "carol", "dave"] {
        assert!(buy_directly(edge.address(), &by(buyer)).is_order());
    }
    browser.shows("#left", "2 of 6");
    buy(&browser, "ann", 3);
    is_told(&browser, "refusal.not-enough-left", &json!({ "count": 2 }));
    assert!(buy_directly(edge.address(), &by("bob")).is_order());
    browser.shows("#left", "1 of 6");
    buy(&browser, "ann", 2);
    is_told(&browser, "refusal.not-enough-left", &json!({ "count": 1 }));

    assert!(buy_directly(edge.address(), &by("carol")).is_order());
    goes_on_with(&browser, &attempt("ann", 1));
    is_told(&browser, "refusal.sold-out", &json!({}));
    edge.operate("stock", &json!({ "change_id": "more", "delta": 5 }));

    edge.operate("pause", &json!({}));
    goes_on_with(&browser, &attempt("ann", 1));
    is_told(&browser, "refusal.sale-paused", &json!({}));
    browser.shows("#state", &plain("en", "state.paused"));
    browser.picture("paused");
    browser.click("#submit");
    browser.shows("#message", &plain("en", "refusal.sale-paused"));

    edge.operate("resume", &json!({}));
    browser.shows("#state", &plain("en", "state.open"));
    assert_eq!(browser.text("#message"), "");

    edge.operate("close", &json!({}));
    goes_on_with(&browser, &attempt("ann", 1));
    is_told(&browser, "refusal.sale-closed", &json!({}));
    browser.shows("#state", &plain("en", "state.closed"));
    browser.picture("closed");
    assert_eq!(edge.sold(), 6);
    is_faultless(&browser);
}

#[test]
fn an_order_that_ended_or_stands_in_the_way_is_told() {
    let shop = Shop::open(json!({ "total": 5, "unpaid_per_buyer": 1 }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));
    buy(&browser, "ann", 1);
    newest_order(&browser);
    browser.shows("#message", &plain("en", "buy.done"));
    browser.click("#submit");
    is_told(&browser, "refusal.unpaid-limit", &json!({ "limit": 1, "have": 1 }));

    let outcome = buy_directly(shop.edge.address(), &by("bob").header("Idempotency-Key", "left"));
    assert_eq!(shop.edge.settle(outcome.id(), "cancel", &json!({})).status, 200);
    goes_on_with(&browser, &json!({ "key": "left", "buyer": "bob", "quantity": 1 }));
    is_told(&browser, "refusal.order-released", &json!({}));
    is_faultless(&browser);
}

#[test]
fn a_sale_that_has_not_begun_is_told() {
    let shop = Shop::open(json!({ "total": 5, "opens_at": "2099-01-01T00:00:00Z" }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.pending"));
    browser.shows("#countdown", "days");
    goes_on_with(&browser, &attempt("ann", 1));
    is_told(&browser, "refusal.sale-not-open", &json!({}));
    assert_eq!(shop.edge.sold(), 0);
    is_faultless(&browser);
}

#[test]
fn a_sale_that_is_gone_or_never_was_is_told() {
    let redis = Redis::start();
    let shop = Shop::open_with(crate::harness::Edge::setup().redis(&redis), json!({ "total": 5 }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));
    let gone: u64 = redis.command(&format!("del {}", crate::harness::redis::KEY));
    assert_eq!(gone, 1);
    browser.shows("#state", &plain("en", "state.missing"));
    goes_on_with(&browser, &attempt("ann", 1));
    is_told(&browser, "refusal.sale-missing", &json!({}));

    browser.open(&shop.url().replace("ticket", "other"));
    browser.shows("#state", &plain("en", "state.missing"));
    is_faultless(&browser);
}

#[test]
fn inputs_that_make_no_sense_are_told_where_they_stand() {
    let shop = Shop::open(json!({ "total": 5 }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));
    browser.click("#submit");
    browser.shows("#buyer-fault", &plain("en", "buy.name_missing"));
    assert_eq!(browser.run("return document.activeElement.id"), "buyer");
    for wrong in ["0", "101", "-1", "1.5", "x"] {
        buy_with(&browser, "ann", wrong);
        browser.shows("#quantity-fault", &plain("en", "buy.quantity_wrong"));
        assert_eq!(browser.run("return document.activeElement.id"), "quantity");
    }
    browser.picture("wrong-quantity");
    assert_eq!(shop.edge.sold(), 0);

    browser.fill("#quantity", "1");
    browser.click("#more");
    browser.click("#more");
    browser.click("#fewer");
    browser.shows("#submit", &text("en", "buy.submit", json!({ "count": 2 })));
    browser.click("#submit");
    let id = newest_order(&browser);
    assert_eq!(shop.edge.order(&id).expect("the order")["quantity"], 2);
    is_faultless(&browser);
}

#[track_caller]
fn buy_with(browser: &Browser, name: &str, quantity: &str) {
    browser.fill("#buyer", name);
    browser.fill("#quantity", quantity);
    browser.click("#submit");
}
