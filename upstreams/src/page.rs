//! The page where people buy: `GET /shop/{sale}`, and what it is made of under `/shop/assets/`.
//!
//! All of it is in the binary. The page is the same for everybody: what is left, orders and payments it asks for
//! itself, at the edge. It buys at `/buy/{sale}`, the path that a sale has unless its configuration says otherwise.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const PAGE: &str = include_str!("../page/shop.html");

/// What the page may do: load its own scripts and styles, and ask the host that it came from. Texts from outside can
/// then never become script, and no other site can show the page in a frame.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// A browser may keep it, and asks each time whether it is still the same.
const ASK_AGAIN: &str = "no-cache";
/// A browser never asks again: other content has another path. One year, the longest that RFC 9111 has a use for.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

pub(crate) const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset { name: $name, content_type: $content_type, text: include_str!(concat!("../page/", $name)) }
    };
}

const ASSETS: [Asset; 13] = [
    asset!("ask.js", SCRIPT),
    asset!("clock.js", SCRIPT),
    asset!("en.js", SCRIPT),
    asset!("icon.svg", "image/svg+xml"),
    asset!("order.js", SCRIPT),
    asset!("orders.js", SCRIPT),
    asset!("purchase.js", SCRIPT),
    asset!("sale.js", SCRIPT),
    asset!("shop.css", "text/css; charset=utf-8"),
    asset!("shop.js", SCRIPT),
    asset!("store.js", SCRIPT),
    asset!("text.js", SCRIPT),
    asset!("zh.js", SCRIPT),
];

/// Names the content of page and assets together: the page names the folder of its assets by it, so that what a browser
/// keeps never mixes two releases.
const VERSION: u64 = {
    let mut hash = fnv1a(FNV_OFFSET, PAGE);
    let mut at = 0;
    while at < ASSETS.len() {
        hash = fnv1a(fnv1a(hash, ASSETS[at].name), ASSETS[at].text);
        at += 1;
    }
    hash
};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a with 64 bits (Fowler, Noll, Vo): it tells releases apart, keeps no secret, and the compiler can compute it.
const fn fnv1a(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

pub(crate) fn version() -> String {
    format!("{VERSION:016x}")
}

/// The page and its assets.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/shop/{sale}", get(page)).route("/shop/assets/{version}/{name}", get(asset))
}

async fn page(Path(sale): Path<String>, headers: HeaderMap) -> Response {
    if !is_sale_id(&sale) {
        return (StatusCode::NOT_FOUND, "a sale's id is 1 to 64 of a-z, 0-9, - and _\n").into_response();
    }
    let version = version();
    // The ids that are allowed cannot be anything but text in HTML.
    let html = PAGE
        .replace("{{buy_path}}", &format!("/buy/{sale}"))
        .replace("{{sale}}", &sale)
        .replace("{{version}}", &version);
    let own = [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer")];
    (own, kept(&headers, &version, HTML, ASK_AGAIN, html)).into_response()
}

async fn asset(Path((asked_version, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "the page has no such part\n").into_response();
    };
    let version = version();
    // While backends are replaced one by one, a page of one release may ask another release for its parts. It gets
    // what there is, but does not keep it.
    let lifetime = if asked_version == version { FOR_EVER } else { ASK_AGAIN };
    kept(&headers, &version, asset.content_type, lifetime, asset.text)
}

/// The content, or that it is still the same (RFC 9110, 13.1.2).
fn kept(
    asked: &HeaderMap,
    version: &str,
    content_type: &'static str,
    lifetime: &'static str,
    content: impl IntoResponse,
) -> Response {
    let tag = format!("\"{version}\"");
    let is_known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok()).any(|tags| {
        tags.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
    });
    let common: [(HeaderName, &str); 3] =
        [(ETAG, &tag), (CACHE_CONTROL, lifetime), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    if is_known {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    // Behind the content, so that its own type, plain text, is replaced.
    let mut answer = content.into_response();
    answer.headers_mut().remove(CONTENT_TYPE);
    (common, [(CONTENT_TYPE, content_type)], answer).into_response()
}

/// As the edge's configuration has it.
pub(crate) fn is_sale_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(plain)
}

#[cfg(test)]
mod tests;
