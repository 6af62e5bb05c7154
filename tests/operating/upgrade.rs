//! Upgrades under load, and readiness before an edge stops.

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::backend::After;
use crate::harness::edge::Setup;
use crate::harness::process::{Successor, free_address};
use crate::harness::purchase::{order_ids, purchase};
use crate::harness::{Backend, Connection, Edge, Outcome, PATIENCE, Redis, Request, ab, buy, crowd, eventually};

/// Purchases of one round of the load.
const ROUND: usize = 500;

/// The ledger may take long: what a busy disk delays is not lost.
fn setup(backend: &Backend) -> Setup {
    Edge::setup()
        .set("shutdown", json!({ "grace": "20s" }))
        .ticket(json!({ "total": 100_000, "hold": "1h", "deadline": "20s" }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
}

/// Does something again and again until it is over; gives what came of it each time.
fn until<T>(over: &AtomicBool, something: impl Fn() -> T) -> Vec<T> {
    let mut all = vec![something()];
    while !over.load(Ordering::SeqCst) {
        all.push(something());
    }
    all
}

/// Upgrades in a row.
const UPGRADES: usize = 5;

/// Upgrades several times under load: every request is answered. Returns the number of purchases.
fn nothing_is_lost(setup: Setup) -> usize {
    let mut edge = setup.start();
    let address = edge.address();
    let over = AtomicBool::new(false);
    let (last, outcomes) = scope(|scope| {
        // Should anything fail here, the load has to end, too.
        let _over = Over(&over);
        let buying = scope.spawn(|| until(&over, || crowd(8, ROUND, &[address], |_| purchase())));
        let kept = scope.spawn(|| until(&over, || ab(&["-k", "-n", "4000", "-c", "8"], address, "/kept")));
        let anew = scope.spawn(|| until(&over, || ab(&["-n", "1000", "-c", "8"], address, "/anew")));
        eventually("the sale is on", || (edge.sold() >= 200).then_some(()));
        let mut last = edge.upgrade();
        assert_eq!(edge.wait().0.code(), Some(0), "{}", edge.log());
        for _ in 1..UPGRADES {
            // The control listener is the newest one's, and so is the rest.
            let next = edge.upgrade();
            eventually("the one before has ended", || last.has_ended().then_some(()));
            last = next;
        }
        assert!(!last.has_ended());
        over.store(true, Ordering::SeqCst);
        let reports = [kept.join().unwrap(), anew.join().unwrap()].concat();
        for report in &reports {
            assert_eq!((report.failed, report.non_2xx), (0, 0), "{report:?}");
        }
        let answers = buying.join().unwrap().concat();
        let proxied: u64 = reports.iter().map(|report| report.complete).sum();
        println!("{} purchases and {proxied} proxied requests", answers.len());
        (last, answers.iter().map(Outcome::of).collect::<Vec<_>>())
    });
    assert_eq!(order_ids(&outcomes).len(), outcomes.len());
    assert_eq!(edge.sold(), outcomes.len() as u64);
    for outcome in outcomes.iter().step_by(500) {
        assert!(edge.order(outcome.id()).is_some());
    }
    assert!(last.signal("TERM"));
    eventually("the last one ends, too", || last.has_ended().then_some(()));
    assert!(Connection::try_to(address).is_err(), "nobody has the socket any more");
    outcomes.len()
}

/// Ends the load, whatever happens.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn an_edge_on_redis_is_followed_under_load() {
    let (redis, backend) = (Redis::start(), Backend::named("backend"));
    let sold = nothing_is_lost(setup(&backend).redis_at(&redis.url(), "10s"));
    assert_eq!(redis.books_agree().len(), sold);
}

#[test]
fn an_edge_with_a_ledger_of_its_own_is_followed_under_load() {
    let backend = Backend::named("backend");
    nothing_is_lost(setup(&backend));
}

/// An upgrade that fails disturbs neither clients nor the sale.
#[track_caller]
fn goes_on(edge: &mut Edge, why: &str) {
    let sold = edge.sold();
    let answer = edge.control(&Request::post("/upgrade"));
    assert_eq!((answer.status, answer.problem().as_str()), (409, "upgrade-failed"), "{answer:?}");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("This process continues. ") && detail.contains(why), "{detail}");
    edge.wait_for_log("upgrade failed, this process continues: ");
    eventually("it sells", || buy(edge.address(), &purchase()).is_order().then_some(()));
    assert_eq!(edge.sold(), sold + 1);
    eventually("it is ready", || edge.is_ready().then_some(()));
    assert!(!edge.has_ended());
}

#[test]
fn a_new_program_that_fails_leaves_the_old_one_at_work() {
    let redis = Redis::start();
    let backend = Backend::named("backend");
    for setup in [setup(&backend), setup(&backend).redis_at(&redis.url(), "10s")] {
        let mut edge = setup.own_program().start();
        let program = edge.program().to_owned();
        let replace = |script: &str| {
            let new = program.with_extension("new");
            std::fs::write(&new, script).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::rename(&new, &program).unwrap();
        };
        replace("#!/bin/sh\nexit 3\n");
        goes_on(&mut edge, "ended before it was checked");
        replace("#!/bin/sh\necho nonsense >&0\nsleep 60\n");
        goes_on(&mut edge, "said \"nonsense\" instead of");
        std::fs::remove_file(&program).unwrap();
        goes_on(&mut edge, "it cannot be started");
        std::fs::copy(crate::harness::process::binary("spikegate"), &program).unwrap();

        // One that finds its file wrong, and one that fails only when it has the ledger.
        edge.rewrite(|setup| setup.set("thread", json!(1)));
        goes_on(&mut edge, "ended before it was checked");
        let not_there = json!({ "total": 1, "stat_log": "/nowhere/stat.log", "deadline": "20s" });
        edge.rewrite(|setup| setup.without("thread").ticket(not_there));
        goes_on(&mut edge, "ended before it was ready");

        edge.rewrite(|setup| setup.ticket(json!({ "total": 1, "deadline": "20s" })));
        let next = edge.upgrade();
        assert_eq!(edge.wait().0.code(), Some(0), "{}", edge.log());
        assert!(buy(edge.address(), &purchase()).is_order());
        drop(next);
    }
}

#[test]
fn an_upgrade_applies_what_a_reload_cannot() {
    let backend = Backend::named("backend");
    let mut edge = setup(&backend).start();
    let more = free_address();
    let told = edge.reload(|setup| setup.listener_at(more, json!({})).set("threads", json!(1)));
    assert_eq!(told["needs_restart"], json!([format!("listen[{more}]"), "threads"]));
    edge.signal("USR2");
    let id = eventually("it is followed", || {
        let log = edge.log();
        let line = log.lines().find(|line| line.ends_with(" has taken over"))?.to_owned();
        line.split("process ").nth(1)?.split(' ').next()?.parse().ok()
    });
    let next = Successor::new(id);
    assert_eq!(edge.wait().0.code(), Some(0), "{}", edge.log());
    for address in [edge.address(), more] {
        assert_eq!(Connection::to(address).ask(&Request::get("/")).text(), "backend");
    }
    assert_eq!(edge.reload(|setup| setup)["needs_restart"], json!([]));
    drop(next);
}

#[test]
fn readiness_goes_before_the_service() {
    let backend = Backend::named("backend");
    let mut edge = setup(&backend).set("shutdown", json!({ "delay": "1m" })).start();
    let mut open = edge.connect();
    assert_eq!(open.ask(&Request::get("/")).status, 200);
    edge.signal("TERM");
    eventually("it is not ready", || (!edge.is_ready()).then_some(()));
    assert_eq!(edge.control(&Request::get("/readyz")).text(), "stopping\n");
    assert_eq!(edge.control(&Request::get("/healthz")).status, 200, "it is alive");
    let (kept, anew) = (open.ask(&Request::get("/")), edge.ask(&Request::get("/")));
    for answer in [kept, anew, edge.ask(&purchase())] {
        assert!(answer.status < 300 && !answer.closes(), "{answer:?}");
    }
    drop(open);
    edge.signal("TERM");
    assert_eq!(edge.wait().0.code(), Some(0), "a second one ends the delay: {}", edge.log());

    let mut edge = setup(&backend).set("shutdown", json!({ "delay": "2s", "grace": "5s" })).start();
    let begun = Instant::now();
    edge.signal("TERM");
    eventually("it takes no more connections", || Connection::try_to(edge.address()).is_err().then_some(()));
    assert!(begun.elapsed() >= Duration::from_secs(2), "after {:?}", begun.elapsed());
    assert_eq!(edge.wait().0.code(), Some(0), "{}", edge.log());
}

#[test]
fn a_connection_between_two_requests_may_send_one_more() {
    let backend = Backend::start(|request| {
        if request.header("transfer-encoding").is_some() {
            // To the last chunk, so that nothing of it is taken for the next request.
            let mut read = std::mem::take(&mut request.rest);
            while !read.ends_with(b"0\r\n\r\n") {
                let mut piece = [0; 512];
                let length = request.stream.read(&mut piece).unwrap();
                assert_ne!(length, 0, "the body has an end");
                read.extend_from_slice(&piece[..length]);
            }
        }
        request.answer("backend");
        After::KeepOpen
    });
    let asks = |request: &Request, answers: fn(u16) -> bool| {
        let mut edge = setup(&backend).start();
        let address: SocketAddr = edge.address();
        // One whose end Pingora alone knows stays Pingora's.
        let chunked = Request::post("/").body("text/plain", "piece").chunked(2);
        let mut connections = [edge.connect(), edge.connect()];
        assert_eq!(connections[0].ask(&Request::get("/sales/ticket")).status, 200);
        assert_eq!(connections[1].ask(&chunked).status, 200);
        edge.signal("TERM");
        eventually("it stops", || Connection::try_to(address).is_err().then_some(()));
        for connection in &mut connections {
            let answer = connection.ask(request);
            assert!(answers(answer.status) && answer.closes(), "{answer:?}");
        }
        assert_eq!(edge.wait().0.code(), Some(0), "{}", edge.log());
    };
    asks(&Request::get("/"), |status| status == 200);
    asks(&purchase(), |status| status == 201);
}

#[test]
fn systemd_is_told_which_process_it_is() {
    let backend = Backend::named("backend");
    let setup = setup(&backend);
    let path = setup.folder().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let says = || {
        let mut text = [0; 256];
        let length = supervisor.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    let mut edge = setup.environment(&[("NOTIFY_SOCKET".to_owned(), path.display().to_string())]).start();
    assert_eq!(says(), "READY=1");
    let next = edge.upgrade();
    assert_eq!(says(), format!("MAINPID={}", next.id()));
    assert_eq!(edge.wait().0.code(), Some(0), "{}", edge.log());
    assert!(next.signal("TERM"));
    assert_eq!(says(), "STOPPING=1");
    eventually("it ends", || next.has_ended().then_some(()));
}
