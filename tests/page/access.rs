//! Accessibility of the page: small phones, keyboard, screen readers, dark mode, two languages, no scripts.

use serde_json::{Value, json};

use super::{Shop, buy, is_faultless, newest_order, plain, text};
use crate::harness::browser::{BACKSPACE, ENTER, TAB};
use crate::harness::purchase::purchase;
use crate::harness::{Browser, becomes, buy as buy_directly, wait_until};

/// Presses Tab until the focus is at this element.
#[track_caller]
fn tab_to(browser: &Browser, id: &str) {
    for _ in 0..20 {
        browser.press(TAB);
        if browser.run("return document.activeElement.id") == id {
            return;
        }
    }
    panic!("Tab does not lead to {id}");
}

#[test]
fn tickets_are_bought_with_nothing_but_the_keyboard() {
    let shop = Shop::open(json!({ "total": 5 }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));

    browser.press(TAB);
    assert_eq!(browser.run("return document.activeElement.className"), "skip", "the first stop leads past all else");
    browser.press(ENTER);
    tab_to(&browser, "buyer");
    browser.press("Grace");
    tab_to(&browser, "quantity");
    browser.press(&format!("{BACKSPACE}2"));
    tab_to(&browser, "submit");
    browser.shows("#submit", &text("en", "buy.submit", json!({ "count": 2 })));
    let ring = browser.run("return getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(ring, "solid", "the focus is seen");
    browser.press(ENTER);
    let id = newest_order(&browser);
    let heading = format!("order-{id}");
    browser.until("the focus is at the order", &format!("return document.activeElement.id === '{heading}'"));
    let order = shop.edge.order(&id).expect("the order");
    assert_eq!((&order["buyer"], &order["quantity"]), (&json!("Grace"), &json!(2)));
    assert_eq!(shop.edge.sold(), 2);
    is_faultless(&browser);
}

/// Gives every text that is shown with too little contrast (WCAG 2.2, 1.4.3), and how many were looked at.
const PALE: &str = include_str!("pale.js");

#[track_caller]
fn is_readable(browser: &Browser) {
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        let found = browser.run(PALE);
        assert!(found["seen"].as_u64().unwrap() > 10, "{found}");
        assert_eq!(found["pale"], json!([]), "{scheme}");
    }
}

#[track_caller]
fn fits(browser: &Browser, pixels: u32) {
    browser.width(pixels);
    let wide = browser.run("return document.documentElement.scrollWidth");
    assert_eq!(wide, pixels, "nothing is beside the screen");
    let small = browser.run(
        "return [...document.querySelectorAll('button, input')].filter((element) => element.checkVisibility()) \
         .filter((element) => Math.min(element.offsetWidth, element.offsetHeight) < 24) \
         .map((element) => element.id || element.textContent)",
    );
    assert_eq!(small, json!([]), "large enough for a finger (WCAG 2.2, 2.5.8)");
}

#[test]
fn it_fits_a_small_phone_and_can_be_read_in_every_state() {
    let shop = Shop::open(json!({ "total": 100_000_000, "per_buyer": 1000 }));
    for (language, tag) in [("en", "en-US"), ("zh", "zh-CN")] {
        let browser = Browser::start_in(tag);
        browser.width(320);
        // Before it opens: what has begun to change its colour goes on.
        browser.prefer("light");
        browser.open(&shop.url());
        let in_each_state = |name: &str| {
            fits(&browser, 320);
            is_readable(&browser);
            browser.picture(&format!("phone-{name}-{language}-dark"));
            browser.prefer("light");
            browser.picture(&format!("phone-{name}-{language}"));
        };
        browser.shows("#state", &plain(language, "state.open"));
        in_each_state("open");
        buy(&browser, &format!("{}{language}", "W".repeat(38)), 2);
        newest_order(&browser);
        browser.shows("article.order .story", &plain(language, "orders.unpayable"));
        in_each_state("held");
        shop.edge.operate("pause", &json!({}));
        browser.shows("#state", &plain(language, "state.paused"));
        browser.click("#submit");
        in_each_state("paused");
        shop.edge.operate("resume", &json!({}));
        browser.shows("#state", &plain(language, "state.open"));
        is_faultless(&browser);
    }
}

#[test]
fn the_language_is_the_browsers_until_the_visitor_chooses() {
    let shop = Shop::open(json!({ "total": 5 }));
    let browser = Browser::start_in("zh-CN");
    browser.open(&shop.url());
    browser.shows("#state", &plain("zh", "state.open"));
    let language = || browser.run("return document.documentElement.lang");
    assert_eq!(language(), "zh-Hans");
    assert_eq!(browser.run("return document.title"), "正在销售 · ticket");
    assert_eq!(browser.accessible("#more"), ("button".into(), plain("zh", "buy.more")));
    browser.picture("chinese");

    browser.click("[data-language=en]");
    browser.shows("#state", &plain("en", "state.open"));
    assert_eq!(language(), "en");
    assert_eq!(browser.accessible("#more"), ("button".into(), plain("en", "buy.more")));
    browser.reload();
    browser.shows("#state", &plain("en", "state.open"));
    assert_eq!(language(), "en", "the choice is kept");
    is_faultless(&browser);
}

#[test]
fn a_screen_reader_reads_what_matters_and_no_more() {
    let shop = Shop::open(json!({ "total": 5, "opens_at": "2099-01-01T00:00:00Z" }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.pending"));
    let count = |css: &str| browser.run_with("return document.querySelectorAll(arguments[0]).length", &[json!(css)]);
    for (landmark, number) in [("main", 1), ("body > header", 1), ("body > footer", 1), ("h1", 1)] {
        assert_eq!(count(landmark), number, "{landmark}");
    }
    for (css, role, name) in [
        ("#sale", "region", "ticket"),
        ("#buy", "region", "Buy"),
        ("#buyer", "textbox", "Your name"),
        ("#quantity", "textbox", "Tickets"),
        ("#fewer", "button", "One ticket fewer"),
        ("#more", "button", "One ticket more"),
        ("#submit", "button", "Opens soon"),
        ("#share", "progressbar", "Tickets left"),
        (".languages", "group", "Language"),
    ] {
        assert_eq!(browser.accessible(css), (role.to_owned(), name.to_owned()), "{css}");
    }

    // The countdown moves every second, and nobody has to listen to it.
    listen(&browser);
    browser.run(
        "window.moved = 0; new MutationObserver(() => moved++).observe(document.getElementById('countdown'), \
         { childList: true, characterData: true, subtree: true })",
    );
    browser.until("the countdown moves", "return moved >= 3");
    assert_eq!(browser.run("return [...heard]"), json!([]));
    is_faultless(&browser);
}

/// Collects in `heard` the texts of the live regions, which screen readers read aloud.
#[track_caller]
fn listen(browser: &Browser) {
    browser.run(
        "window.heard = new Set(); \
         const hear = (changes) => changes.forEach(({ target }) => heard.add(target.textContent)); \
         const regions = '[role=status], [role=alert], [aria-live=polite], [aria-live=assertive]'; \
         for (const region of document.querySelectorAll(regions)) \
             new MutationObserver(hear).observe(region, { childList: true, characterData: true, subtree: true })",
    );
}

#[test]
fn a_change_of_the_sale_is_read_aloud_and_its_numbers_are_not() {
    let shop = Shop::open(json!({ "total": 5 }));
    let browser = Browser::start();
    browser.open(&shop.url());
    browser.shows("#state", &plain("en", "state.open"));
    listen(&browser);
    assert!(buy_directly(shop.edge.address(), &purchase()).is_order());
    browser.shows("#left", "4 of 5");
    assert_eq!(browser.run("return [...heard]"), json!([]));
    shop.edge.operate("pause", &json!({}));
    browser.shows("#state", &plain("en", "state.paused"));
    assert_eq!(browser.run("return [...heard]"), json!([plain("en", "state.paused")]));
    is_faultless(&browser);
}

#[test]
fn without_scripts_the_page_says_how_to_buy() {
    let shop = Shop::open(json!({ "total": 5 }));
    let browser = Browser::start();
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.open(&shop.url());
    let shown = |css: &str| -> Value {
        browser.devtools(
            "Runtime.evaluate",
            &json!({ "expression": format!("document.querySelector({css:?})?.innerText"), "returnByValue": true }),
        )["result"]["value"]
            .clone()
    };
    let words = shown("noscript").as_str().unwrap_or_default().to_owned();
    assert!(words.contains("needs JavaScript") && words.contains("JavaScript 才能"), "{words}");
    browser.picture("no-script");
    browser.fill("#plain-quantity", "3");
    browser.click("noscript button");
    // WebDriver returns from the click when the form is sent, not when it is answered.
    becomes("three tickets are sold", 3, || shop.edge.sold());
    let is_order = |body: &Value| body.as_str().is_some_and(|text| text.contains("order_id"));
    wait_until("the browser shows the order", || shown("body"), is_order);
}
