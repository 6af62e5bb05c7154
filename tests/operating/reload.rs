//! Reloads: the edge applies a changed configuration as a whole or not at all, and no request is lost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::scope;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::backend::After;
use crate::harness::process::free_address;
use crate::harness::purchase::{order_ids, purchase};
use crate::harness::{Backend, Connection, Edge, Outcome, Redis, Request, ab, buy, crowd, eventually};

fn to(backends: &[SocketAddr]) -> Value {
    json!({ "servers": backends.iter().map(|address| json!({ "address": address })).collect::<Vec<_>>() })
}

/// The detail of a reload that the edge refuses.
#[track_caller]
fn refused(edge: &Edge) -> String {
    let answer = edge.control(&Request::post("/reload"));
    assert_eq!((answer.status, answer.problem().as_str()), (422, "configuration-refused"), "{answer:?}");
    assert!(!answer.json()["errors"].as_array().unwrap().is_empty(), "{answer:?}");
    answer.json()["detail"].as_str().unwrap().to_owned()
}

#[test]
fn routes_and_groups_come_and_go() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let mut edge = Edge::setup().proxies_to(to(&[old.address()])).start();
    let mut open = edge.connect();
    assert_eq!(open.ask(&Request::get("/shop")).text(), "old");

    let told = edge.reload(|setup| {
        let routes = json!([{ "path": "/shop", "upstream": "more" }, { "path": "/", "upstream": "load_rule" }]);
        setup.upstream("more", to(&[new.address()])).set("routes", routes)
    });
    assert_eq!(told, json!({ "changed": ["routes", "upstreams.more"], "needs_restart": [] }));
    assert_eq!(open.ask(&Request::get("/shop")).text(), "new", "on a connection that was open before");
    assert_eq!(edge.connect().ask(&Request::get("/")).text(), "old");
    assert_eq!(edge.metric("spikegate_upstream_up", "more"), 1);

    let told = edge.reload(|setup| {
        setup
            .set("upstreams", json!({ "more": to(&[new.address()]) }))
            .set("routes", json!([{ "path": "/shop", "upstream": "more" }]))
    });
    assert_eq!(told["changed"], json!(["routes", "upstreams.load_rule"]));
    assert_eq!(open.ask(&Request::get("/shop")).text(), "new");
    assert_eq!(open.ask(&Request::get("/")).status, 404);

    assert_eq!(edge.reload(|setup| setup), json!({ "changed": [], "needs_restart": [] }));
    edge.wait_for_log("reloaded: nothing has changed");
}

#[test]
fn a_request_ends_by_the_rules_that_it_began_with() {
    let (arrived, arrivals) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let (arrived, waits) = (Mutex::new(arrived), Mutex::new(waits));
    let slow = Backend::start(move |request| {
        arrived.lock().unwrap().send(()).unwrap();
        let _ = waits.lock().unwrap().recv();
        request.answer("slow");
        After::KeepOpen
    });
    let other = Backend::named("other");
    let named = |name: &str| json!([{ "path": "/", "upstream": "load_rule", "response_headers": { "set": { "X-Rules": name } } }]);
    let mut edge = Edge::setup().upstream("load_rule", to(&[slow.address()])).set("routes", named("old")).start();
    let mut under_way = edge.connect();
    under_way.send(&Request::get("/").bytes());
    arrivals.recv_timeout(Duration::from_secs(20)).unwrap();

    edge.reload(|setup| setup.upstream("load_rule", to(&[other.address()])).set("routes", named("new")));
    let newer = edge.ask(&Request::get("/"));
    assert_eq!((newer.text(), newer.header("x-rules")), ("other", Some("new")));
    go_on.send(()).unwrap();
    let answer = under_way.answer();
    assert_eq!((answer.text(), answer.header("x-rules")), ("slow", Some("old")));
    let answer = under_way.ask(&Request::get("/"));
    assert_eq!((answer.text(), answer.header("x-rules")), ("other", Some("new")), "the next one is a new request");
}

#[test]
fn weights_change_and_a_backend_that_comes_keeps_the_others_health() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let dead = free_address();
    let servers = |weight: u32, more: &[SocketAddr]| {
        let mut servers = vec![
            json!({ "address": a.address(), "weight": weight }),
            json!({ "address": b.address() }),
            json!({ "address": dead, "max_fails": 1, "fail_timeout": "1h" }),
        ];
        servers.extend(more.iter().map(|address| json!({ "address": address })));
        json!({ "balance": "weighted", "servers": servers })
    };
    let mut edge = Edge::setup().proxies_to(servers(1, &[])).start();
    let up = |edge: &Edge, address: SocketAddr| edge.metric("spikegate_upstream_up", &address.to_string());
    let sent =
        |edge: &Edge, address: SocketAddr| edge.metric("spikegate_upstream_requests_total", &address.to_string());
    eventually("it is left alone", || {
        assert_eq!(edge.ask(&Request::get("/")).status, 200);
        (up(&edge, dead) == 0).then_some(())
    });
    let (to_dead, to_a) = (sent(&edge, dead), sent(&edge, a.address()));

    let told = edge.reload(|setup| setup.upstream("load_rule", servers(2, &[c.address()])));
    assert_eq!(told["changed"], json!(["upstreams.load_rule"]));
    assert_eq!((up(&edge, dead), up(&edge, c.address())), (0, 1));
    assert_eq!(sent(&edge, a.address()), to_a, "what was counted goes on");
    let mut connection = edge.connect();
    let names: String = (0..40).map(|_| connection.ask(&Request::get("/")).text().to_owned()).collect();
    let count = |name: char| names.chars().filter(|own| *own == name).count();
    assert!(count('a').abs_diff(20) <= 1 && count('b').abs_diff(10) <= 1 && count('c').abs_diff(10) <= 1, "{names}");
    assert_eq!(sent(&edge, dead), to_dead, "nobody was sent there");
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_is_told() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let mut edge = Edge::setup().ticket(json!({ "total": 10 })).proxies_to(to(&[old.address()])).start();
    edge.rewrite(|setup| setup.upstream("load_rule", to(&[new.address()])).set("clint", json!({ "read": "1s" })));
    let detail = refused(&edge);
    assert!(detail.starts_with("Nothing was changed. ") && detail.contains("clint: unknown key"), "{detail}");
    assert_eq!(edge.ask(&Request::get("/")).text(), "old", "not even what was right in it");

    edge.signal("HUP");
    edge.wait_for_log("reload failed, nothing changed: clint: ");
    edge.rewrite(|setup| {
        setup.without("clint").set("routes", json!([{ "path": "/", "files": { "root": "/nowhere" } }]))
    });
    assert!(refused(&edge).contains("routes[0].files.root: "));
    std::fs::write(edge.folder().join("spikegate.yaml"), "listen: [").unwrap();
    refused(&edge);
    std::fs::remove_file(edge.folder().join("spikegate.yaml")).unwrap();
    assert!(refused(&edge).contains("spikegate.yaml cannot be read"));
    let output = edge.command(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("422: Nothing was changed. "), "{output:?}");
    assert_eq!(edge.ask(&Request::get("/")).text(), "old");
    assert!(buy(edge.address(), &purchase()).is_order());
}

#[test]
fn a_reload_names_what_needs_a_restart_and_applies_the_rest() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let mut edge = Edge::setup().ticket(json!({ "total": 10 })).proxies_to(to(&[old.address()])).start();
    let more = free_address();
    edge.rewrite(|setup| {
        let setup = setup.listener_at(more, json!({})).set("threads", json!(3));
        setup.set("ledger", json!({ "sync": "50ms" })).upstream("load_rule", to(&[new.address()]))
    });
    let output = edge.command(&["reload"]);
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let waits = json!([format!("listen[{more}]"), "threads", "ledger.sync"]);
    assert_eq!(told, json!({ "changed": ["upstreams.load_rule"], "needs_restart": waits }));
    edge.wait_for_log(&format!("needs a restart or an upgrade: listen[{more}], threads"));
    assert_eq!(edge.ask(&Request::get("/")).text(), "new");
    assert!(Connection::try_to(more).is_err());
    assert_eq!(edge.reload(|setup| setup)["needs_restart"], told["needs_restart"], "it is told again until it is done");
}

#[test]
fn a_reload_applies_limits_and_times_of_a_sale() {
    let redis = Redis::start();
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let sale = |more: Value| {
            let mut settings = json!({ "total": 100, "buyer": { "header": "X-User" }, "hold": "1h" });
            settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            settings
        };
        let mut edge = setup.ticket(sale(json!({}))).start();
        let by_ann = purchase().header("X-User", "ann");
        for _ in 0..3 {
            assert!(buy(edge.address(), &by_ann).is_order());
        }
        let told = edge.reload(|setup| setup.ticket(sale(json!({ "per_buyer": 4, "deadline": "4s" }))));
        assert_eq!(told["changed"], json!(["sales.ticket.deadline", "sales.ticket.per_buyer"]));
        assert!(buy(edge.address(), &by_ann).is_order());
        assert_eq!(buy(edge.address(), &by_ann).name(), "buyer-limit");

        edge.reload(|setup| setup.ticket(sale(json!({ "closes_at": "2020-01-01T00:00:00Z" }))));
        eventually("it closes", || (buy(edge.address(), &purchase()).name() == "sale-closed").then_some(()));
        edge.reload(|setup| setup.ticket(sale(json!({ "buyer": { "header": "X-Other" }, "per_buyer": 1 }))));
        let other = purchase().header("X-Other", "ann");
        eventually("it opens", || {
            let name = buy(edge.address(), &other).name().to_owned();
            assert!(["sale-closed", "buyer-limit"].contains(&name.as_str()), "{name}");
            (name == "buyer-limit").then_some(())
        });
        assert_eq!(edge.sold(), 4);

        let told = edge.reload(|setup| setup.set("sales", json!({ "other": { "total": 1 } })));
        assert_eq!(told, json!({ "changed": [], "needs_restart": ["sales.other", "sales.ticket"] }));
        assert_eq!(edge.sold(), 4, "the sale goes on");
    }
}

#[test]
fn a_reload_applies_address_lists_limits_and_the_control_token() {
    let backend = Backend::named("here");
    let mut edge = Edge::setup().proxies_to(to(&[backend.address()])).start();
    let mut open = edge.connect();
    let status = |open: &mut Connection| open.ask(&Request::get("/")).status;
    assert_eq!(status(&mut open), 200);
    edge.reload(|setup| setup.set("deny", json!(["127.0.0.1"])));
    assert_eq!((status(&mut open), status(&mut edge.connect())), (403, 403));
    edge.reload(|setup| setup.set("deny", json!([])).set("limits", json!({ "requests_per_second": 1, "burst": 2 })));
    let statuses: Vec<u16> = (0..20).map(|_| status(&mut open)).collect();
    assert!(statuses.starts_with(&[200, 200]) && statuses.contains(&429), "{statuses:?}");
    let limited = edge.metric("spikegate_requests_limited_total", "");
    edge.reload(|setup| setup.set("limits", json!({})));
    assert!((0..20).all(|_| status(&mut open) == 200));
    assert_eq!(edge.metric("spikegate_requests_limited_total", ""), limited, "what was counted goes on");

    let told = edge.reload(|setup| setup.set("control", json!({ "token": "a-token-of-twenty-four-c" })));
    assert_eq!(told["changed"], json!(["control.token"]));
    assert_eq!(edge.control(&Request::post("/reload")).status, 401);
    assert_eq!(edge.command(&["reload", "--token", "a-token-of-twenty-four-c"]).status.code(), Some(0));
}

#[test]
fn reloading_under_load_loses_nothing() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let mut edge =
        Edge::setup().ticket(json!({ "total": 100_000, "hold": "1h" })).proxies_to(to(&[a.address()])).start();
    let address = edge.address();
    let is_over = Arc::new(AtomicBool::new(false));
    let outcomes = scope(|scope| {
        let buying = scope.spawn(|| crowd(8, 6_000, &[address], |_| purchase()));
        let kept = scope.spawn(move || ab(&["-k", "-n", "6000", "-c", "8"], address, "/kept"));
        let anew = scope.spawn(move || ab(&["-n", "3000", "-c", "8"], address, "/anew"));
        let over = Arc::clone(&is_over);
        let watched = scope.spawn(move || {
            for report in [kept.join().unwrap(), anew.join().unwrap()] {
                assert_eq!((report.failed, report.non_2xx), (0, 0), "{report:?}");
            }
            let answers = buying.join().unwrap();
            over.store(true, Ordering::SeqCst);
            answers.iter().map(Outcome::of).collect::<Vec<_>>()
        });
        let mut reloads = 0;
        while reloads < 20 || !is_over.load(Ordering::SeqCst) && reloads < 200 {
            let servers = if reloads % 2 == 0 { to(&[a.address(), b.address()]) } else { to(&[b.address()]) };
            let routes = json!([{ "path": format!("/{reloads}"), "upstream": "load_rule" }, { "path": "/", "upstream": "load_rule" }]);
            edge.reload(|setup| setup.upstream("load_rule", servers).set("routes", routes));
            reloads += 1;
        }
        println!("{reloads} reloads");
        watched.join().unwrap()
    });
    assert_eq!(order_ids(&outcomes).len(), 6_000);
    assert_eq!(edge.sold(), 6_000);
}
