//! Buying on the page: the countdown, a purchase, and the order after a reload.

use std::time::Duration;

use serde_json::json;

use super::{Shop, buy, is_faultless, newest_order, plain, text};
use crate::harness::{Browser, Network, Outcome, Redis, Request, buy as buy_directly, eventually};

/// A time so far from now, as the configuration writes it.
fn in_time(time: Duration) -> String {
    (jiff::Timestamp::now() + time).to_string()
}

#[test]
fn a_visitor_waits_for_the_opening_and_buys() {
    let browser = Browser::start();
    let shop = Shop::open(json!({ "total": 100, "opens_at": in_time(Duration::from_secs(10)) }));
    // The visitor's own clock is an hour fast, and it is not the one that counts.
    browser.run_first("const now = Date.now; Date.now = () => now() + 3600_000");
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.pending"));
    browser.shows("#left", &text("en", "sale.left", json!({ "available": 100, "total": 100 })));
    browser.shows("#countdown", "0:0");
    browser.picture("pending");

    browser.click("#submit");
    browser.shows("#message", "The sale opens in 0:0");
    assert_eq!(shop.edge.sold(), 0);

    browser.shows("#state", &plain("en", "state.open"));
    assert_eq!(browser.text("#message"), "", "why nothing could be bought is gone");
    buy(&browser, "Anna Ødegård 王", 2);
    let id = newest_order(&browser);
    let order = shop.edge.order(&id).expect("the order that the page shows");
    assert_eq!((&order["buyer"], &order["quantity"]), (&json!("Anna Ødegård 王"), &json!(2)));
    assert_eq!(shop.edge.sold(), 2);
    browser.shows("#left", "98 of 100 left");
    browser.shows("article.order .remaining", ":");
    browser.shows("#message", &plain("en", "buy.done"));
    assert_eq!(browser.run("return document.activeElement.id"), format!("order-{id}"), "the reader is taken there");
    browser.picture("bought");

    browser.reload();
    assert_eq!(newest_order(&browser), id);
    browser.shows("article.order .badge", &plain("en", "orders.HELD"));
    assert_eq!(browser.run("return document.querySelector('#buyer').value"), "Anna Ødegård 王");
    assert_eq!(shop.edge.sold(), 2);
    is_faultless(&browser);
}

#[test]
fn sold_out_is_seen_at_once_and_so_is_new_stock() {
    let shop = Shop::open(json!({ "total": 1 }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));
    assert!(buy_directly(shop.edge.address(), &Request::post("/buy/ticket")).is_order());
    browser.shows("#state", &plain("en", "state.sold_out"));
    browser.shows("#left", &text("en", "sale.left", json!({ "available": 0, "total": 1 })));
    browser.picture("sold-out");
    browser.fill("#buyer", "bob");
    browser.click("#submit");
    browser.shows("#message", &plain("en", "refusal.sold-out"));

    shop.edge.operate("stock", &json!({ "change_id": "more", "delta": 2 }));
    browser.shows("#state", &plain("en", "state.open"));
    browser.shows("#left", &text("en", "sale.left", json!({ "available": 2, "total": 3 })));
    buy(&browser, "bob", 1);
    newest_order(&browser);
    browser.shows("#left", &text("en", "sale.left", json!({ "available": 1, "total": 3 })));
    is_faultless(&browser);
}

#[test]
fn a_purchase_without_an_answer_is_asked_again_until_it_has_one() {
    let redis = Redis::start();
    let network = Network::to(redis.address());
    let setup = crate::harness::Edge::setup().redis_at(&network.redis_url(), "1s");
    let shop = Shop::open_with(setup, json!({ "total": 10, "deadline": "1500ms" }));
    let visitor = |name: &str| {
        let browser = Browser::start();
        // What a visitor waits half a minute for happens in seconds.
        browser.run_first("const later = setTimeout; window.setTimeout = (call, time) => later(call, time / 8)");
        browser.open(&shop.url());
        browser.shows("#state", &plain("en", "state.open"));
        browser.fill("#buyer", name);
        browser.fill("#quantity", "3");
        browser
    };
    let (browser, other) = (visitor("carol"), visitor("dan"));

    // The ledger takes the purchase, and its answer does not come.
    network.hold_replies();
    browser.click("#submit");
    browser.shows("#message", &plain("en", "buy.retry_unknown"));
    browser.shows("#progress", "of 8");
    browser.picture("asking-again");
    let key = browser.run("return JSON.parse(localStorage['spikegate:sale:ticket']).attempt.key");

    // It does not ask for ever, and it forgets nothing.
    browser.shows("#message", &plain("en", "buy.still_unknown"));
    browser.shows("#again", &plain("en", "buy.again"));
    browser.shows("#contact", "The shop is not responding");
    browser.picture("unknown");
    assert_eq!(browser.run("return document.querySelector('#submit').getAttribute('aria-disabled')"), "true");

    // Of a purchase that begins now it is certain that nothing was ordered.
    other.click("#submit");
    other.shows("#message", &plain("en", "buy.retry"));
    let reason = plain("en", "refusal.ledger-unavailable");
    other.shows("#message", &text("en", "buy.given_up", json!({ "reason": reason })));

    // Neither does a page that was left and comes back.
    browser.reload();
    browser.shows("#message", &plain("en", "buy.retry_unknown"));
    assert_eq!(browser.run("return JSON.parse(localStorage['spikegate:sale:ticket']).attempt.key"), key);
    browser.shows("#again", &plain("en", "buy.again"));

    network.release();
    eventually("the edge hears of its ledger", || {
        (shop.edge.ask(&Request::get("/sales/ticket")).status == 200).then_some(())
    });
    browser.click("#again");
    let id = newest_order(&browser);
    browser.shows("#message", &plain("en", "buy.done_again"));
    assert_eq!(shop.edge.order(&id).expect("the order")["quantity"], 3);
    assert_eq!(shop.edge.sold(), 3, "asked often, bought once");
    assert_eq!(browser.run("return JSON.parse(localStorage['spikegate:sale:ticket']).attempt"), json!(null));
    is_faultless(&browser);
    is_faultless(&other);
}

#[test]
fn a_page_that_ended_between_request_and_answer_finds_its_order() {
    let shop = Shop::open(json!({ "total": 1 }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));
    // The purchase arrived; its answer is for a page that is gone.
    let key = "0123456789abcdef0123456789abcdef";
    let request =
        Request::post("/buy/ticket").header("X-User-Id", "dave").header("Idempotency-Key", &format!("\"{key}\""));
    let Outcome::Ordered { id, .. } = buy_directly(shop.edge.address(), &request) else { panic!("no order") };
    browser.run_with(
        "localStorage['spikegate:sale:ticket'] = JSON.stringify({ attempt: arguments[0], orders: [] })",
        &[json!({ "key": key, "buyer": "dave", "quantity": 1 })],
    );
    browser.reload();
    assert_eq!(newest_order(&browser), id, "although it is sold out");
    browser.shows("#message", &plain("en", "buy.done_again"));
    assert_eq!(shop.edge.sold(), 1);
    is_faultless(&browser);
}

#[test]
fn a_hidden_page_sends_no_requests() {
    let shop = Shop::open(json!({ "total": 5 }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));
    let asked = "return performance.getEntriesByType('resource').filter(({ name }) => name.includes('/sales/')).length";
    let count = || browser.run(asked).as_u64().unwrap();
    let before = count();
    eventually("it asks again", || (count() > before).then_some(()));

    browser.minimize();
    let hidden = count();
    std::thread::sleep(Duration::from_secs(3));
    assert!(count() <= hidden + 1, "{hidden} requests, then {}; one may have been under way", count());

    assert!(buy_directly(shop.edge.address(), &Request::post("/buy/ticket")).is_order());
    browser.restore();
    browser.shows("#left", &text("en", "sale.left", json!({ "available": 4, "total": 5 })));
    is_faultless(&browser);
}
