//! Load balancing: weights, methods, health, backups, and limits of a backend.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
        // What is fair is shown by unit tests; ports, and so hashes, differ here from run to run.
        assert!((1..=48).contains(&share), "{name} has {share} of 64 clients: {before:?}");
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

/// A backend that keeps requests for `/hold` while `held` is true, and answers all others with its name.
fn holding(name: &'static str, held: &Arc<AtomicBool>) -> Backend {
    let held = Arc::clone(held);
    Backend::start(move |request| {
        while request.path() == "/hold" && held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        request.answer(name);
        After::KeepOpen
    })
}

/// The value of a metric of one backend.
fn under_way(edge: &Edge, backend: SocketAddr) -> u64 {
    edge.metric("spikegate_upstream_requests_under_way", &format!("server=\"{backend}\""))
}

#[test]
fn the_idle_one_is_preferred_by_least_conn_and_of_two_random_ones() {
    for balance in ["least_conn", "random_two"] {
        let held = Arc::new(AtomicBool::new(true));
        let backends = ["a", "b"].map(|name| holding(name, &held));
        let addresses = backends.each_ref().map(Backend::address);
        let edge = Edge::setup().proxies_to(json!({ "balance": balance, "servers": servers(&addresses) })).start();
        let mut slow = edge.connect();
        slow.send(&Request::get("/hold").bytes());
        let busy = eventually("one is busy", || backends.iter().position(|backend| backend.requests() > 0));
        assert_eq!(under_way(&edge, addresses[busy]), 1);

        assert_eq!(names(&edge, 10), [["b"; 10], ["a"; 10]][busy], "{balance}");
        held.store(false, Ordering::SeqCst);
        assert_eq!(slow.answer().text(), ["a", "b"][busy]);
        eventually("it is idle again", || (under_way(&edge, addresses[busy]) == 0).then_some(()));
    }
}

#[test]
fn a_key_keeps_its_backend_and_only_those_of_a_dead_one_move() {
    let mut backends: BTreeMap<String, Backend> =
        ["a", "b", "c"].map(|name| (name.to_owned(), Backend::named(name))).into();
    let addresses: Vec<SocketAddr> = backends.values().map(Backend::address).collect();
    let group = json!({ "balance": "hash", "hash": { "key": "header:x-user" }, "servers": servers(&addresses) });
    let edge = Edge::setup().proxies_to(group).start();
    let ask = |user: usize| edge.ask(&Request::get("/").header("X-User", &format!("user-{user}"))).text().to_owned();

    let before: Vec<String> = (0..60).map(ask).collect();
    assert_eq!(before, (0..60).map(ask).collect::<Vec<_>>(), "whichever connection it comes by");
    for name in backends.keys() {
        let share = before.iter().filter(|own| *own == name).count();
        assert!((1..=50).contains(&share), "{name} has {share} of 60 users");
    }
    backends.remove("b");
    for (before, after) in before.iter().zip((0..60).map(ask)) {
        assert!(*before == after || before == "b", "{before} {after}");
    }
}

#[test]
fn every_method_tries_another_backend_when_one_is_dead() {
    let alive = Backend::named("alive");
    let methods = ["weighted", "round_robin", "least_conn", "random_two", "ip_hash", "hash"];
    let edge = methods.iter().fold(Edge::setup(), |setup, method| {
        let mut group = json!({ "balance": method, "servers": servers(&[free_address(), alive.address()]) });
        group["servers"][0]["max_fails"] = json!(0);
        if *method == "hash" {
            group["hash"] = json!({ "key": "uri" });
        }
        setup.upstream(method, group).route(json!({ "path": format!("/{method}"), "upstream": method }))
    });
    let edge = edge.start();
    for method in methods {
        for n in 0..10 {
            let answer = edge.ask(&Request::get(&format!("/{method}/{n}")));
            assert_eq!((answer.status, answer.text()), (200, "alive"), "{method}");
        }
    }
}

#[test]
fn backups_serve_only_when_all_others_are_gone_and_down_never() {
    let a = Backend::named("a");
    let address = a.address();
    let [backup, down] = ["backup", "down"].map(Backend::named);
    let servers = json!([
        { "address": address, "fail_timeout": "100ms" },
        { "address": backup.address(), "backup": true },
        { "address": down.address(), "down": true },
    ]);
    let edge = Edge::setup().proxies_to(json!({ "servers": servers })).start();
    assert_eq!(names(&edge, 10), ["a"; 10]);
    drop(a);
    assert_eq!(names(&edge, 10), ["backup"; 10]);
    let _a = Backend::start_at(address, |request| {
        request.answer("a");
        After::KeepOpen
    });
    eventually("it is back", || (names(&edge, 10) == ["a"; 10]).then_some(()));
    assert_eq!(down.requests(), 0);
}

#[test]
fn max_conns_is_never_exceeded_at_the_backend() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let backend = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        Backend::start(move |request| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(3));
            now.fetch_sub(1, Ordering::SeqCst);
            request.answer("ok");
            After::KeepOpen
        })
    };
    let servers = json!([{ "address": backend.address(), "max_conns": 3 }]);
    let edge = Edge::setup().proxies_to(json!({ "servers": servers })).start();
    let answers = scope(|scope| {
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..50).map(|_| edge.ask(&Request::get("/"))).collect::<Vec<_>>())).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let (served, busy): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(served.len(), backend.requests());
    assert!(!busy.is_empty());
    for answer in busy {
        assert_eq!((answer.status, answer.problem_name().as_str()), (503, "backends-busy"));
        assert!((1..=3).contains(&answer.header("retry-after").unwrap().parse::<u64>().unwrap()));
    }
    eventually("nothing is under way", || (under_way(&edge, backend.address()) == 0).then_some(()));
    assert_eq!(names(&edge, 20), ["ok"; 20], "whoever asks for one thing after the other always finds room");
}

#[test]
fn a_request_counts_no_longer_when_its_client_is_gone_or_its_backend_failed() {
    let held = Arc::new(AtomicBool::new(true));
    let backend = {
        let held = Arc::clone(&held);
        Backend::start(move |request| {
            while request.path() == "/hold" && held.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            if request.path() == "/break" {
                return After::Close;
            }
            request.answer("ok");
            After::KeepOpen
        })
    };
    let servers = json!([{ "address": backend.address(), "max_conns": 1 }]);
    let edge = Edge::setup().proxies_to(json!({ "servers": servers })).start();
    let status = |path: &str| edge.ask(&Request::get(path)).status;

    let mut leaves = edge.connect();
    leaves.send(&Request::get("/hold").bytes());
    eventually("it is at the backend", || (backend.requests() == 1).then_some(()));
    assert_eq!(status("/"), 503, "there is no room for another");
    drop(leaves);
    eventually("there is room again", || (status("/") == 200).then_some(()));
    eventually("the backend fails", || (status("/break") == 502).then_some(()));
    eventually("there is room again", || (status("/") == 200).then_some(()));
    eventually("nothing is under way", || (under_way(&edge, backend.address()) == 0).then_some(()));
    held.store(false, Ordering::SeqCst);
}

#[test]
fn a_backend_that_came_back_gets_its_whole_share_in_the_end() {
    let alive = Backend::named("alive");
    let address = free_address();
    let servers = json!([
        { "address": address, "fail_timeout": "100ms", "slow_start": "1s" },
        { "address": alive.address() },
    ]);
    let edge = Edge::setup().proxies_to(json!({ "servers": servers })).start();
    assert_eq!(names(&edge, 4), ["alive"; 4]);
    let _returned = Backend::start_at(address, |request| {
        request.answer("returned");
        After::KeepOpen
    });
    let share = || names(&edge, 20).iter().filter(|name| *name == "returned").count();
    eventually("it is back", || (share() > 0).then_some(()));
    eventually("with its whole share", || (share() == 10).then_some(()));
}
