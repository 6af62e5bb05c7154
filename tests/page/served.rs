//! How the page is served: types, caching, and what its policy says.

use serde_json::json;

use super::Shop;
use crate::harness::{Answer, Request};

/// The paths of all that the page loads, as the page and its scripts name them.
fn parts(shop: &Shop) -> Vec<String> {
    let page = shop.edge.ask(&Request::get("/shop/ticket"));
    let mut parts: Vec<String> =
        page.text().split('"').filter(|value| value.starts_with("/shop/assets/")).map(str::to_owned).collect();
    let mut at = 0;
    while at < parts.len() {
        let folder = parts[at].rsplit_once('/').unwrap().0.to_owned();
        let script = shop.edge.ask(&Request::get(&parts[at]));
        for line in script.text().lines().filter(|line| line.starts_with("import ")) {
            let name = line.split('"').nth(1).and_then(|name| name.strip_prefix("./")).unwrap();
            let path = format!("{folder}/{name}");
            if !parts.contains(&path) {
                parts.push(path);
            }
        }
        at += 1;
    }
    parts
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.header(name).unwrap_or_else(|| panic!("no {name}: {:?}", answer.headers))
}

#[test]
fn the_page_and_its_parts_are_kept_and_asked_for_as_they_say() {
    let shop = Shop::open(json!({ "total": 1 }));
    let page = shop.edge.ask(&Request::get("/shop/ticket"));
    assert_eq!((page.status, header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(header(&page, "cache-control"), "no-cache");
    assert!(!page.text().contains("{{"), "every place is filled in");
    assert!(page.text().contains(r#"data-buy-path="/buy/ticket""#));
    let policy = header(&page, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");

    let parts = parts(&shop);
    assert_eq!(parts.len(), 13, "{parts:?}");
    for path in parts.iter().chain([&"/shop/ticket".to_owned()]) {
        let answer = shop.edge.ask(&Request::get(path));
        assert_eq!(answer.status, 200, "{path}");
        let content_type = match path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(header(&answer, "content-type"), content_type, "{path}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{path}");
        if path != "/shop/ticket" {
            assert_eq!(header(&answer, "cache-control"), "public, max-age=31536000, immutable", "{path}");
        }

        let tag = header(&answer, "etag").to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let again = shop.edge.ask(&Request::get(path).header("If-None-Match", &known));
            assert_eq!((again.status, again.body.len()), (304, 0), "{path} {known}");
            assert_eq!(header(&again, "etag"), tag);
        }
        let other = shop.edge.ask(&Request::get(path).header("If-None-Match", "\"other\""));
        assert_eq!((other.status, other.body), (200, answer.body), "{path}");
        let head = shop.edge.ask(&Request::new("HEAD", path));
        assert_eq!((head.status, header(&head, "content-type")), (200, content_type), "{path}");
    }
}

#[test]
fn a_part_of_another_release_is_not_kept() {
    let shop = Shop::open(json!({ "total": 1 }));
    let answer = shop.edge.ask(&Request::get("/shop/assets/0000000000000000/shop.js"));
    assert_eq!((answer.status, header(&answer, "cache-control")), (200, "no-cache"));
}

#[test]
fn what_is_no_page_is_not_found() {
    let shop = Shop::open(json!({ "total": 1 }));
    for path in
        ["/shop/Ticket", "/shop/%3Cscript%3E", "/shop/a.b", "/shop/assets/x/nothing.js", "/shop/assets/x/..%2Fpage.rs"]
    {
        assert_eq!(shop.edge.ask(&Request::get(path)).status, 404, "{path}");
    }
    let long = format!("/shop/{}", "a".repeat(65));
    assert_eq!(shop.edge.ask(&Request::get(&long)).status, 404);
    assert_eq!(shop.edge.ask(&Request::post("/shop/ticket")).status, 405);
}
