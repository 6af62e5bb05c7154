//! Backends by name, whose addresses change while the edge runs.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::harness::backend::After;
use crate::harness::process::free_address;
use crate::harness::{Backend, Dns, Edge, Request, eventually};

const NAME: &str = "shop.test";

/// Backends at one port of different addresses, named by the last number of theirs: 2, 3 and so on.
fn backends<const N: usize>() -> [Backend; N] {
    let port = free_address().port();
    std::array::from_fn(|i| {
        let last = i as u8 + 2;
        Backend::start_at(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)), move |request| {
            request.answer(&last.to_string());
            After::KeepOpen
        })
    })
}

fn by_name(dns: &Dns, port: u16, more: Value) -> Value {
    let server = json!({ "address": format!("{NAME}:{port}") });
    let mut group = json!({ "servers": [server], "resolver": [dns.address()], "resolve": "100ms" });
    group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    group
}

fn asked(edge: &Edge) -> String {
    edge.ask(&Request::get("/")).text().to_owned()
}

#[test]
fn a_name_that_moves_is_followed_and_who_stays_is_not_disturbed() {
    let dns = Dns::start();
    dns.set(NAME, &[[127, 0, 0, 2]]);
    let backends = backends::<3>();
    let port = backends[0].address().port();
    let edge = Edge::setup().proxies_to(by_name(&dns, port, json!({}))).start();
    assert_eq!(asked(&edge), "2");

    dns.set(NAME, &[[127, 0, 0, 3], [127, 0, 0, 2]]);
    eventually("the second address is used too", || (asked(&edge) == "3").then_some(()));
    dns.set(NAME, &[[127, 0, 0, 3], [127, 0, 0, 4]]);
    eventually("the third is used", || (asked(&edge) == "4").then_some(()));
    let before = backends[0].requests();
    let answers: Vec<String> = (0..10).map(|_| asked(&edge)).collect();
    assert_eq!((answers.iter().filter(|answer| *answer == "3").count(), backends[0].requests()), (5, before));
    // The one that stayed goes on counting where it was.
    let label = format!("server=\"127.0.0.3:{port}\"");
    assert_eq!(edge.metric("spikegate_upstream_requests_total", &label), backends[1].requests() as u64);
}

#[test]
fn a_name_that_cannot_be_resolved_keeps_its_addresses() {
    let dns = Dns::start();
    dns.set(NAME, &[[127, 0, 0, 2]]);
    let backends = backends::<2>();
    let edge = Edge::setup().proxies_to(by_name(&dns, backends[0].address().port(), json!({}))).start();
    dns.set(NAME, &[]);
    edge.wait_for_log("shop.test");
    let questions = dns.questions();
    eventually("it is asked about again", || (dns.questions() > questions + 2).then_some(()));
    assert_eq!(asked(&edge), "2");
    assert_eq!(edge.log().matches("cannot be resolved").count(), 1, "it is told once: {}", edge.log());
    dns.set(NAME, &[[127, 0, 0, 3]]);
    eventually("it is followed again", || (asked(&edge) == "3").then_some(()));
}

#[test]
fn a_name_may_be_waited_for_if_the_settings_say_so() {
    let dns = Dns::start();
    let [backend] = backends::<1>();
    let port = backend.address().port();
    let edge = Edge::setup().proxies_to(by_name(&dns, port, json!({ "unresolved": "wait" }))).start();
    assert_eq!(edge.ask(&Request::get("/")).status, 503);
    dns.set(NAME, &[[127, 0, 0, 2]]);
    eventually("it has an address", || (edge.ask(&Request::get("/")).status == 200).then_some(()));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strict.yaml");
    let mut group = by_name(&dns, port, json!({}));
    group["servers"][0]["address"] = json!("other.test:80");
    let config = json!({ "upstreams": { "u": group }, "routes": [{ "path": "/", "upstream": "u" }] });
    std::fs::write(&path, config.to_string()).unwrap();
    let check = |options: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::process::binary("spikegate"));
        let output = command.args(["check", "--config"]).arg(&path).args(options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        (output.status.success(), said)
    };
    let (passed, said) = check(&["--resolve"]);
    assert!(!passed && said.contains("upstreams.u.servers[0].address: other.test:80 cannot be resolved"), "{said}");
    let (passed, said) = check(&[]);
    assert!(passed && said.ends_with(": ok\n"), "a check needs no network unless it is told to: {said}");
}
