//! Request IDs: made by the edge or taken from a trusted proxy, passed to backends and clients.

use serde_json::json;

use super::{behind_the_door, in_json, logged, objects};
use crate::harness::backend::After;
use crate::harness::client::everything;
use crate::harness::purchase::purchase;
use crate::harness::{Answer, Backend, Connection, Edge, Request};

/// A backend that answers with the request ID that it got, and sends another one in its header.
fn echo() -> Backend {
    Backend::start(|request| {
        let told = request.header("x-request-id").unwrap_or("none").to_owned();
        let head = format!("HTTP/1.1 200 OK\r\nX-Request-Id: backend's\r\nContent-Length: {}\r\n\r\n", told.len());
        request.send(format!("{head}{told}").as_bytes());
        After::KeepOpen
    })
}

fn is_made(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

fn id(answer: &Answer) -> &str {
    answer.header("X-Request-Id").unwrap_or_else(|| panic!("{answer:?}"))
}

#[test]
fn client_backend_and_log_get_the_same_request_id_and_only_trusted_proxies_set_it() {
    let backend = echo();
    let (setup, _other) = logged(in_json(&["request_id", "path"]));
    let edge = setup
        .set("request_id", json!("X-Request-Id"))
        .set("trusted_proxies", json!(["127.0.0.9/32"]))
        .upstream("load_rule", json!({ "servers": [{ "address": backend.address() }] }))
        .start();
    let ask = |from: &str, request: Request| {
        Connection::from(from.parse().unwrap(), edge.address()).ask(&request.header("X-Request-Id", "given-1"))
    };
    let mut ids = Vec::new();
    for request in [
        Request::get("/"),
        behind_the_door(Request::get("/")),
        purchase(),
        behind_the_door(purchase()),
        Request::get("/sales/ticket"),
        Request::get("/buy/ticket"),
        purchase().json(&json!({ "quantity": 0 })),
        Request::get("/sales/ticket/orders/x"),
    ] {
        let strange = ask("127.0.0.1", request.clone());
        assert!(is_made(id(&strange)), "{strange:?}");
        let ours = ask("127.0.0.9", request.clone());
        assert_eq!(id(&ours), "given-1", "{ours:?}");
        if strange.header("content-type").is_none() {
            assert_eq!((strange.text(), ours.text()), (id(&strange), "given-1"), "the backend was told it");
        }
        ids.extend([id(&strange).to_owned(), id(&ours).to_owned()]);
    }
    let lines = objects(&edge, ids.len());
    let mut logged: Vec<_> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    logged.sort_unstable();
    ids.sort_unstable();
    assert_eq!(logged, ids);
    let made: std::collections::BTreeSet<_> = ids.iter().filter(|id| *id != "given-1").collect();
    assert_eq!(made.len(), ids.len() / 2, "no two have the same");
}

#[test]
fn both_ways_answer_alike_with_an_id() {
    let (setup, _backend) = logged(json!({}));
    let edge = setup.set("request_id", json!("X-Request-Id")).set("trusted_proxies", json!(["127.0.0.0/8"])).start();
    let given = |request: Request| request.header("X-Request-Id", "the-same").header("Connection", "close");
    let asks = [purchase(), purchase(), Request::get("/buy/ticket?quantity=0"), Request::get("/sales/ticket")];
    edge.ask(&purchase());
    for request in asks.map(given) {
        let [front, behind] = [request.clone(), behind_the_door(request)].map(|request| {
            let bytes = everything(edge.address(), &request.bytes());
            let text = String::from_utf8(bytes).unwrap();
            text.split("\r\n").filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect::<Vec<_>>()
        });
        assert!(front.iter().any(|line| line == "X-Request-Id: the-same"), "{front:?}");
        assert_eq!(front, behind);
    }
}

#[test]
fn without_the_setting_nobody_has_an_id() {
    let backend = echo();
    let edge = Edge::setup()
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .ticket(json!({ "total": 1 }))
        .start();
    assert!(edge.ask(&purchase()).header("X-Request-Id").is_none());
    // What the client says is none of our business.
    assert_eq!(edge.ask(&Request::get("/").header("X-Request-Id", "mine")).text(), "mine");
}
