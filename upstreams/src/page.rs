//! The shop page: `GET /shop/{sale}`, with its assets under `/shop/assets/`.
//!
//! The binary contains all files. The HTML is the same for all buyers: its scripts request stock, orders and payments
//! from the edge. It buys at `/buy/{sale}`, the default path of a sale.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const PAGE: &str = include_str!("../page/shop.html");

/// Allows the page to load its own scripts and styles and to send requests to its own host. Text from outside cannot
/// run as script, and other sites cannot embed the page in a frame.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// Browsers may cache the response but must revalidate it.
const ASK_AGAIN: &str = "no-cache";
/// Browsers need not revalidate: new content has a new path. One year is the customary maximum.
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

/// Hash of the page and all assets. It is part of the asset paths: a browser cache never mixes two releases.
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

/// 64-bit FNV-1a: it distinguishes releases, needs no secrecy, and can be computed at compile time.
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
        return (StatusCode::NOT_FOUND, "a sale id has 1 to 64 characters of a-z, 0-9, - and _\n").into_response();
    }
    let version = version();
    // Valid sale ids contain no characters that are special in HTML.
    let html = PAGE
        .replace("{{buy_path}}", &format!("/buy/{sale}"))
        .replace("{{sale}}", &sale)
        .replace("{{version}}", &version);
    let own = [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer")];
    (own, kept(&headers, &version, HTML, ASK_AGAIN, html)).into_response()
}

async fn asset(Path((asked_version, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "no such asset\n").into_response();
    };
    let version = version();
    // During a rolling upgrade the page of one release may request assets from another. It gets them, but may not cache
    // them.
    let lifetime = if asked_version == version { FOR_EVER } else { ASK_AGAIN };
    kept(&headers, &version, asset.content_type, lifetime, asset.text)
}

/// Returns the content, or 304 if the client has it (RFC 9110, 13.1.2).
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
    // Replaces the content type that axum sets for text.
    let mut answer = content.into_response();
    answer.headers_mut().remove(CONTENT_TYPE);
    (common, [(CONTENT_TYPE, content_type)], answer).into_response()
}

/// The same rule as in the edge's configuration.
pub(crate) fn is_sale_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(plain)
}

#[cfg(test)]
mod tests;
