//! The page where people buy, in a real browser, through a real edge.
//!
//! Every test leaves pictures in `target/tmp/page`.

mod access;
mod buying;
mod orders;
mod paying;
mod refusals;
mod served;
mod words;

use serde_json::{Value, json};

use crate::harness::{Browser, Edge, OrderService};

/// An edge that sells `ticket`, and the order service behind it, which has the page.
struct Shop {
    edge: Edge,
    _orders: OrderService,
}

impl Shop {
    /// A sale with these settings; a header names the buyer.
    #[track_caller]
    fn open(settings: Value) -> Self {
        Self::open_with(Edge::setup(), settings)
    }

    #[track_caller]
    fn open_with(setup: crate::harness::edge::Setup, mut settings: Value) -> Self {
        settings["buyer"] = json!({ "header": "X-User-Id" });
        let orders = OrderService::start("orders");
        let servers = json!({ "servers": [{ "address": orders.address() }] });
        Self { edge: setup.ticket(settings).proxies_to(servers).start(), _orders: orders }
    }

    fn url(&self) -> String {
        format!("http://{}/shop/ticket", self.edge.address())
    }
}

/// A text of the page in `en` or `zh`, as its file has it; with `count` for one that has forms.
#[track_caller]
fn text(language: &str, name: &str, values: Value) -> String {
    let texts = texts(language);
    let found = match &texts[name] {
        Value::String(text) => text.as_str(),
        forms => {
            forms[if values["count"] == 1 { "one" } else { "other" }].as_str().unwrap_or_else(|| panic!("no {name}"))
        }
    };
    let mut text = found.to_owned();
    for (word, value) in values.as_object().into_iter().flatten() {
        text = text.replace(&format!("{{{word}}}"), value.to_string().trim_matches('"'));
    }
    text
}

#[track_caller]
fn texts(language: &str) -> Value {
    let path = format!("{}/upstreams/page/{language}.js", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read_to_string(path).unwrap();
    let json = file.trim().strip_prefix("export default ").and_then(|rest| rest.strip_suffix(';')).unwrap();
    serde_json::from_str(json).unwrap()
}

/// A text without values.
#[track_caller]
fn plain(language: &str, name: &str) -> String {
    text(language, name, json!({}))
}

/// Fills the form in and presses its button.
#[track_caller]
fn buy(browser: &Browser, name: &str, quantity: u32) {
    browser.fill("#buyer", name);
    browser.fill("#quantity", &quantity.to_string());
    browser.click("#submit");
}

/// Waits for the newest order on the page, and gives its id.
#[track_caller]
fn newest_order(browser: &Browser) -> String {
    browser.until("an order is shown", "return document.querySelector('article.order') !== null");
    browser.run("return document.querySelector('article.order').dataset.order").as_str().unwrap().to_owned()
}

/// Nothing went wrong in the page's scripts, and they tried nothing that they may not do.
#[track_caller]
fn is_faultless(browser: &Browser) {
    assert_eq!(browser.faults(), Vec::<String>::new());
}
