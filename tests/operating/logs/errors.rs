//! The error log: cause and place of each failure, and the limit on repeated lines.

use serde_json::json;

use super::{logged, read};
use crate::harness::process::free_address;
use crate::harness::{Edge, Request, eventually};

#[test]
fn a_line_names_cause_and_place() {
    let gone = free_address();
    let edge = Edge::setup()
        .upstream("shop", json!({ "servers": [{ "address": gone, "max_fails": 0 }] }))
        .route(json!({ "path": "/api", "upstream": "shop" }))
        .set("request_id", json!("X-Request-Id"))
        .set("error_log", json!({ "path": "error.log" }))
        .start();
    let answer = edge.ask(&Request::get("/api/x?secret=1"));
    assert_eq!(answer.status, 502);
    let id = answer.header("X-Request-Id").unwrap();
    let log = edge.folder().join("error.log");
    let line = eventually("it is told", || read(&log).lines().find(|line| line.contains(" 502 ")).map(str::to_owned));
    let place = format!("502 GET /api/x: upstream shop, {gone}, route /api, request {id}: ConnectRefused");
    assert!(line.contains("ERROR") && line.contains(&place) && !line.contains("secret"), "{line}");
    assert_eq!(edge.log(), "", "all of it is in the file");
}

#[test]
fn there_is_a_line_for_the_first_of_many_and_a_count_for_the_others() {
    let (setup, _backend) = logged(json!({}));
    let edge = setup
        .ticket(json!({ "total": 1 }))
        .set("control", json!({ "token": "a-token-of-some-length" }))
        .set("error_log", json!({ "path": "error.log" }))
        .start_until("ready");
    // Each of them is a line of its own, and none of those is limited where it is written.
    let mut control = crate::harness::Connection::to(edge.control_address());
    let pause = |state: &str| {
        Request::post(&format!("/sales/ticket/{state}")).header("Authorization", "Bearer a-token-of-some-length")
    };
    assert_eq!(control.ask(&pause("close")).status, 200);
    let stock = Request::post("/sales/ticket/stock").header("Authorization", "Bearer a-token-of-some-length");
    for n in 0..200 {
        let change = json!({ "change_id": format!("c{n}"), "delta": -1000 });
        assert_eq!(control.ask(&stock.clone().json(&change)).status, 409);
    }
    let log = edge.folder().join("error.log");
    let told = eventually("the others are counted", || {
        let text = read(&log);
        text.contains(" more like it").then_some(text)
    });
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("control: sale ticket")).collect();
    assert!((10..=100).contains(&lines.len()), "{told}");
    let metrics = control.ask(&Request::get("/metrics").header("Authorization", "Bearer a-token-of-some-length"));
    let held = metrics.text().lines().find_map(|line| line.strip_prefix("spikegate_error_log_held_back_total "));
    assert!(held.unwrap().parse::<u64>().unwrap() > 0);
}

#[test]
fn rust_log_overrides_the_level_of_the_settings() {
    let setup = || Edge::setup().ticket(json!({ "total": 1 }));
    let level = |level: &str| json!({ "path": "error.log", "level": level });
    let quiet = setup().set("error_log", level("error")).start();
    assert_eq!(read(&quiet.folder().join("error.log")), "");
    let loud = setup().set("error_log", level("error"));
    let loud = loud.environment(&[("RUST_LOG".to_owned(), "info".to_owned())]).start();
    eventually("it says that it is ready", || {
        read(&loud.folder().join("error.log")).contains("ready: listening").then_some(())
    });
}
