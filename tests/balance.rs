//! Which backend gets which request: weights, turns, hashes, and what happens when a backend is not well.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::ab::Report;
use crate::harness::backend::After;
use crate::harness::process::free_address;
use crate::harness::{Backend, Connection, Edge, OrderService, Request, ab, eventually};

/// The article's four backends, weighted 1:2:3:4. Their names are of one length, as the demo's are: their answers hold
/// them, and `ab` takes answers of different lengths for failed ones.
fn demo() -> Vec<OrderService> {
    ["a", "b", "c", "d"].map(OrderService::start).into()
}

fn weighted(addresses: &[SocketAddr]) -> Value {
    let server = |(index, address): (usize, &SocketAddr)| json!({ "address": address, "weight": index + 1 });
    json!({ "balance": "weighted", "servers": addresses.iter().enumerate().map(server).collect::<Vec<_>>() })
}

fn servers(addresses: &[SocketAddr]) -> Value {
    Value::Array(addresses.iter().map(|address| json!({ "address": address })).collect())
}

fn addresses(services: &[OrderService]) -> Vec<SocketAddr> {
    services.iter().map(OrderService::address).collect()
}

fn counts(services: &[OrderService]) -> Vec<u64> {
    services.iter().map(OrderService::requests).collect()
}

/// The backends' names in the order in which requests reached them, one request after the other.
fn names(edge: &Edge, count: usize) -> Vec<String> {
    let mut connection = edge.connect();
    (0..count).map(|_| connection.ask(&Request::get("/")).text().to_owned()).collect()
}

#[test]
fn a_thousand_requests_are_shared_exactly_by_weight() {
    let services = demo();
    let edge = Edge::setup().proxies_to(weighted(&addresses(&services))).start();

    let report = ab(&["-n", "1000", "-c", "100"], edge.address(), "/order/list");

    assert_eq!((report.complete, report.failed, report.non_2xx), (1000, 0, 0));
    assert_eq!(counts(&services), [100, 200, 300, 400]);
}

#[test]
fn a_thousand_requests_on_kept_connections_are_shared_exactly_by_weight() {
    let services = demo();
    let edge = Edge::setup().proxies_to(weighted(&addresses(&services))).start();

    let report = ab(&["-k", "-n", "1000", "-c", "100"], edge.address(), "/order/list");

    assert_eq!(report, Report { complete: 1000, failed: 0, non_2xx: 0, keep_alive: 1000 });
    assert_eq!(counts(&services), [100, 200, 300, 400]);
}

#[test]
fn three_live_backends_share_what_a_dead_one_would_get() {
    // Whichever of the four is dead, the others' shares keep their proportion.
    scope(|scope| {
        for dead in 0..4 {
            scope.spawn(move || {
                let mut services = demo();
                let addresses = addresses(&services);
                services[dead].kill();
                let edge = Edge::setup().proxies_to(weighted(&addresses)).start();

                let report = ab(&["-n", "1000", "-c", "100"], edge.address(), "/");

                assert_eq!((report.complete, report.failed, report.non_2xx), (1000, 0, 0));
                let weights = 10 - (dead as u64 + 1);
                for (index, service) in services.iter().enumerate().filter(|(index, _)| *index != dead) {
                    let share = 1000.0 * (index as f64 + 1.0) / weights as f64;
                    let got = service.requests() as f64;
                    assert!((got - share).abs() <= 1.0, "with {dead} dead, {index} got {got} of a share of {share}");
                }
            });
        }
    });
}

#[test]
fn round_robin_gives_each_its_turn() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let edge = Edge::setup().proxies_to(json!({ "balance": "round_robin", "servers": servers(&addresses) })).start();

    assert_eq!(names(&edge, 7), ["a", "b", "c", "a", "b", "c", "a"]);
}

#[test]
fn weighted_gives_no_backend_its_share_in_a_burst() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let [a, b, c] = backends.each_ref().map(Backend::address);
    let servers = json!([{ "address": a, "weight": 5 }, { "address": b }, { "address": c }]);
    let edge = Edge::setup().proxies_to(json!({ "servers": servers })).start();

    assert_eq!(names(&edge, 14), ["a", "a", "b", "a", "c", "a", "a", "a", "a", "b", "a", "c", "a", "a"]);
}

#[test]
fn ip_hash_moves_only_the_clients_of_a_backend_that_died() {
    let mut backends: BTreeMap<String, Backend> =
        ["a", "b", "c", "d"].map(|name| (name.to_owned(), Backend::named(name))).into();
    let addresses: Vec<SocketAddr> = backends.values().map(Backend::address).collect();
    let edge = Edge::setup().proxies_to(json!({ "balance": "ip_hash", "servers": servers(&addresses) })).start();
    // Nginx hashes the first three bytes of an IPv4 address; clients of different networks are told apart by both.
    let clients: Vec<IpAddr> = (0..64).map(|client| Ipv4Addr::new(127, client / 8 + 1, client * 3, 1).into()).collect();
    let ask = |client: IpAddr| Connection::from(client, edge.address()).ask(&Request::get("/")).text().to_owned();

    let before: Vec<String> = clients.iter().map(|client| ask(*client)).collect();
    let again: Vec<String> = clients.iter().map(|client| ask(*client)).collect();
    assert_eq!(before, again, "the same client gets the same backend");
    for name in backends.keys() {
        let share = before.iter().filter(|own| *own == name).count();
        assert!((4..=32).contains(&share), "{name} has {share} of 64 clients: {before:?}");
    }

    backends.remove("b");
    let after: Vec<String> = clients.iter().map(|client| ask(*client)).collect();
    for (before, after) in before.iter().zip(&after) {
        assert_ne!(after, "b");
        assert!(before == "b" || before == after, "a client was moved from {before} to {after}");
    }
}

#[test]
fn a_backend_that_dies_in_mid_run_costs_no_request() {
    let mut services = demo();
    let edge = Edge::setup().proxies_to(weighted(&addresses(&services))).start();

    let failures: Vec<u16> = scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|_| {
                let edge = &edge;
                scope.spawn(move || {
                    let mut connection = edge.connect();
                    (0..250)
                        .map(|_| connection.ask(&Request::get("/")).status)
                        .filter(|status| *status != 200)
                        .collect()
                })
            })
            .collect();
        eventually("the run is under way", || (services[3].requests() > 50).then_some(()));
        services[3].kill();
        runs.into_iter().flat_map(|run: std::thread::ScopedJoinHandle<'_, Vec<u16>>| run.join().unwrap()).collect()
    });

    // Only a request that the dying backend had in its hands may be lost, and at most eight were under way.
    assert!(failures.len() <= 8 && failures.iter().all(|status| *status == 502), "{failures:?}");
    let rest: u64 = services[..3].iter().map(OrderService::requests).sum();
    assert!(rest >= 2000 - 8 - 2000 * 4 / 10, "the others took over: {rest}");
    assert!(names_of_headers(&edge, 60).iter().all(|name| name != "d"), "and nothing goes to it any more");
}

fn names_of_headers(edge: &Edge, count: usize) -> Vec<String> {
    let mut connection = edge.connect();
    let name = |_| {
        let answer = connection.ask(&Request::get("/"));
        assert_eq!(answer.status, 200);
        answer.header("x-backend").unwrap().to_owned()
    };
    (0..count).map(name).collect()
}

#[test]
fn a_backend_that_failed_is_left_alone_for_its_time_and_then_taken_back() {
    let alive = Backend::named("alive");
    let address = free_address();
    let servers = json!([
        { "address": address, "max_fails": 1, "fail_timeout": "2s" },
        { "address": alive.address() },
    ]);
    let edge = Edge::setup().proxies_to(json!({ "servers": servers })).start();

    assert_eq!(names(&edge, 4), ["alive"; 4], "the dead one costs no request");
    let returned = Backend::start_at(address, |request| {
        request.answer("returned");
        After::KeepOpen
    });
    assert_eq!(names(&edge, 20), ["alive"; 20], "it is not tried again before its time");
    assert_eq!(returned.requests(), 0);
    eventually("it gets its share again", || names(&edge, 4).contains(&"returned".to_owned()).then_some(()));
    let share = names(&edge, 20).iter().filter(|name| *name == "returned").count();
    assert_eq!(share, 10, "its full share");
}

#[test]
fn a_health_check_over_http_takes_a_sick_backend_out_and_a_well_one_back() {
    let sick = Arc::new(AtomicBool::new(false));
    let backend = |name: &'static str, sick: Arc<AtomicBool>| {
        Backend::start(move |request| {
            if request.path() == "/healthz" && sick.load(Ordering::SeqCst) {
                request.send(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
            } else {
                request.answer(name);
            }
            After::KeepOpen
        })
    };
    let backends = [backend("a", Arc::clone(&sick)), backend("b", Arc::default())];
    let addresses = backends.each_ref().map(Backend::address);
    let check = json!({ "type": "http", "path": "/healthz", "interval": "100ms", "rise": 2, "fall": 2 });
    let edge = Edge::setup().proxies_to(json!({ "servers": servers(&addresses), "health_check": check })).start();

    eventually("both are in use", || (names(&edge, 4) == ["a", "b", "a", "b"]).then_some(()));
    sick.store(true, Ordering::SeqCst);
    eventually("the sick one is out", || (names(&edge, 4) == ["b"; 4]).then_some(()));
    sick.store(false, Ordering::SeqCst);
    eventually("the well one is back", || names(&edge, 4).contains(&"a".to_owned()).then_some(()));
}

#[test]
fn a_health_check_over_tcp_finds_a_backend_dead_before_a_client_does() {
    let alive = Backend::named("alive");
    let dead = free_address();
    let check = json!({ "type": "tcp", "interval": "100ms", "rise": 1, "fall": 1 });
    let servers = servers(&[dead, alive.address()]);
    // With a single try, a request that went to the dead one would fail.
    let edge = Edge::setup().proxies_to(json!({ "servers": servers, "health_check": check, "tries": 1 })).start();

    let mut connection = edge.connect();
    let mut in_a_row = 0;
    eventually("the dead one is out", || {
        in_a_row = if connection.ask(&Request::get("/")).status == 200 { in_a_row + 1 } else { 0 };
        (in_a_row == 20).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(names(&edge, 20), ["alive"; 20], "and stays out for as long as it is dead");
}
