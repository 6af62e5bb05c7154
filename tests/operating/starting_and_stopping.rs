//! How the process starts, why it refuses to start, and how it ends.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::scope;
use std::time::Duration;

use serde_json::json;

use crate::harness::backend::After;
use crate::harness::process::{Process, binary, free_address};
use crate::harness::purchase::{count, purchase, purchase_with_key};
use crate::harness::{Backend, Connection, Edge, Network, Outcome, PATIENCE, Redis, Request, buy, eventually};

/// Runs the binary until it ends by itself, which it must do soon.
#[track_caller]
fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::TempDir::with_prefix("spikegate-run-").unwrap();
    let mut command = Command::new(binary("spikegate"));
    command.args(arguments).current_dir(folder.path()).stdout(Stdio::piped());
    let mut process = Process::start("spikegate", &mut command, folder.path());
    let mut stdout = process.stdout();
    let status = process.wait(PATIENCE);
    let mut output = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut output).unwrap();
    Output { status, stdout: output, stderr: process.log().into_bytes() }
}

/// The lines of standard error of a run that had to end with this code.
#[track_caller]
fn fails(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing on standard output");
    assert!(!stderr.contains("panicked"), "a message, not a panic: {stderr}");
    stderr
}

fn shipped_config() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf/spikegate.yaml")
}

#[test]
fn a_port_that_is_taken_ends_the_process_and_is_named() {
    for control_is_taken in [false, true] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let setup = Edge::setup().ticket(json!({ "total": 1 }));
        let config = match control_is_taken {
            false => setup.write(address, free_address()),
            true => setup.write(free_address(), address),
        };
        let stderr = fails(1, &["run", "--config", config.to_str().unwrap()]);
        assert!(stderr.contains(&address.to_string()), "{stderr}");
    }
}

#[test]
fn a_bad_file_ends_the_process_with_everything_that_is_wrong_with_it() {
    let setup = Edge::setup()
        .set("lissen", json!([]))
        .proxies_to(json!({ "servers": [{ "address": "127.0.0.1:1", "weight": 0 }, { "address": "nowhere" }] }))
        .ticket(json!({ "total": -5, "hold": "five", "local_stok": 1 }));
    let path = setup.write(free_address(), free_address());
    let path = path.to_str().unwrap();

    let by_check = fails(1, &["check", "--config", path]);
    for named in [
        "lissen",
        "upstreams.load_rule.servers[0].weight",
        "upstreams.load_rule.servers[1].address",
        "sales.ticket.total",
        "sales.ticket.hold",
        "sales.ticket.local_stok",
    ] {
        assert!(by_check.lines().any(|line| line.contains(&format!("{named}: "))), "{named} is missing in {by_check}");
    }
    let by_run = fails(1, &["run", "--config", path]);
    for line in by_check.lines() {
        assert!(by_run.contains(line), "run says what check says: {line:?} is missing in {by_run}");
    }
}

#[test]
fn a_missing_or_broken_file_is_refused() {
    let stderr = fails(1, &["run", "--config", "/nowhere/spikegate.yaml"]);
    assert!(stderr.contains("/nowhere/spikegate.yaml"), "{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.yaml");
    std::fs::write(&path, "listen: [").unwrap();
    fails(1, &["check", "--config", path.to_str().unwrap()]);
}

#[test]
fn the_shipped_file_is_in_order() {
    let path = shipped_config();
    let output = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}: ok\n", path.display()));
}

#[test]
fn an_unknown_command_exits_with_2() {
    for arguments in [&["frobnicate"][..], &[], &["run", "--config"], &["run", "--config", "x", "--listen", "?"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_redis_that_cannot_be_reached_at_the_start_ends_the_process_and_is_named() {
    let nobody = free_address();
    let setup = Edge::setup().redis_at(&format!("redis://{nobody}"), "300ms").ticket(json!({ "total": 1 }));
    let config = setup.write(free_address(), free_address());
    let stderr = fails(1, &["run", "--config", config.to_str().unwrap()]);
    assert!(stderr.contains(&nobody.to_string()), "{stderr}");
}

#[test]
fn a_password_of_redis_is_never_shown() {
    let nobody = free_address();
    let setup = Edge::setup().redis_at(&format!("redis://edge:very-secret@{nobody}"), "300ms");
    let config = setup.ticket(json!({ "total": 1 })).write(free_address(), free_address());
    let stderr = fails(1, &["run", "--config", config.to_str().unwrap()]);
    assert!(!stderr.contains("very-secret"), "{stderr}");
}

#[test]
fn a_folder_that_another_edge_sells_from_ends_the_process() {
    let edge = Edge::setup().ticket(json!({ "total": 10 })).start();
    assert_eq!(edge.ask(&purchase()).status, 201);
    let data = edge.folder().join("data");
    let setup = Edge::setup().set("ledger", json!({ "embedded": { "path": &data } })).ticket(json!({ "total": 10 }));
    let config = setup.write(free_address(), free_address());
    let stderr = fails(1, &["run", "--config", config.to_str().unwrap()]);
    assert!(stderr.contains(data.to_str().unwrap()), "{stderr}");
    assert_eq!(edge.ask(&purchase()).status, 201, "the first one does not mind");
    assert_eq!(edge.sold(), 2);
}

#[test]
fn the_command_line_overrides_addresses_and_redis() {
    let redis = Redis::start();
    redis.open_by_hand(3);
    let setup = Edge::setup().ticket(json!({ "deadline": "10s" }));
    let (unused, listen, second, control) = (free_address(), free_address(), free_address(), free_address());
    let config = setup.write(unused, free_address());
    let mut command = Command::new(binary("spikegate"));
    command.args(["run", "--config"]).arg(config).args(["--redis", &redis.url(), "--control", &control.to_string()]);
    command.args(["--listen", &listen.to_string(), "--listen", &second.to_string()]);
    command.current_dir(setup.folder()).stdout(Stdio::piped());
    let mut process = Process::start("spikegate", &mut command, setup.folder());
    let ready = eventually("it says that it is ready", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        process.log().lines().find(|line| line.contains("ready: ")).map(str::to_owned)
    });
    assert!(ready.ends_with(&format!("ready: listening on {listen}, {second}; control on {control}")), "{ready}");

    for address in [listen, second] {
        assert_eq!(Connection::to(address).ask(&purchase()).status, 201);
    }
    assert_eq!(redis.sold(), 2);
    assert!(Connection::try_to(unused).is_err());
    process.signal("TERM");
    let mut stdout = process.stdout();
    assert_eq!(process.wait(PATIENCE).code(), Some(0));
    let mut output = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut output).unwrap();
    assert_eq!(output, "", "an edge says nothing on standard output");
}

#[test]
fn the_command_line_is_checked_together_with_the_file() {
    let setup = Edge::setup().ticket(json!({ "total": 1 }));
    let (public, control) = (free_address(), free_address());
    let config = setup.write(public, control);
    let config = config.to_str().unwrap();
    let text = fails(1, &["run", "--config", config, "--listen", &control.to_string()]);
    assert!(text.contains(&format!("{control} is already used by control.listen")), "{text}");
    let text = fails(1, &["run", "--config", config, "--control", "0.0.0.0:9180"]);
    assert!(text.contains("control.listen: is off loopback, so control.token"), "{text}");
}

#[test]
fn an_edge_that_says_it_is_ready_takes_connections_at_once() {
    let edge = Edge::setup().ticket(json!({ "total": 100 }));
    for start in 0..10 {
        // The same folder each time: the edge before it has ended, and the stock goes on.
        let edge = edge.clone().start();
        let answer = Connection::try_to(edge.address()).and_then(|mut connection| connection.try_ask(&purchase()));
        assert_eq!(answer.map(|answer| answer.status).ok(), Some(201), "start {start}");
        assert_eq!(edge.sold(), start + 1);
    }
}

#[test]
fn sigterm_answers_what_is_under_way_and_ends_in_good_order() {
    let redis = Redis::start();
    let network = Network::to(redis.address());
    let backend = Backend::start(|request| {
        std::thread::sleep(Duration::from_millis(700));
        request.answer("slow");
        After::KeepOpen
    });
    let mut edge = Edge::setup()
        .set("shutdown", json!({ "grace": "1m" }))
        .redis_at(&network.redis_url(), "10s")
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .ticket(json!({ "total": 100, "deadline": "20s" }))
        .start();

    let mut proxied: Vec<Connection> = (0..10).map(|_| edge.connect()).collect();
    let mut buying: Vec<Connection> = (0..10).map(|_| edge.connect()).collect();
    let mut idle = edge.connect();
    assert_eq!(idle.ask(&purchase_with_key("before")).status, 201);
    network.hold_replies();
    proxied.iter_mut().for_each(|connection| connection.send(&Request::get("/slow").bytes()));
    buying.iter_mut().for_each(|connection| connection.send(&purchase().bytes()));
    eventually("all are under way", || (backend.requests() == 10 && redis.sold() >= 2).then_some(()));

    edge.signal("TERM");
    eventually("it takes no more connections", || Connection::try_to(edge.address()).is_err().then_some(()));
    network.release();
    for connection in &mut proxied {
        assert_eq!(connection.answer().text(), "slow", "a request that was under way is answered");
    }
    for connection in &mut buying {
        let answer = connection.answer();
        assert!(Outcome::of(&answer).is_order(), "a purchase that was under way is answered: {answer:?}");
    }
    // `wait` gives up long before the grace ends.
    let (status, _) = edge.wait();
    assert_eq!(status.code(), Some(0), "{}", edge.log());
    assert_eq!(redis.books_agree().len(), 11);
}

#[test]
fn sigterm_under_load_loses_no_order_that_was_answered() {
    let mut edge = Edge::setup().set("shutdown", json!({ "grace": "2s" })).ticket(json!({ "total": 100_000 })).start();
    let address = edge.address();
    let answers = scope(|scope| {
        let load = scope.spawn(move || crate::harness::crowd::try_crowd(20, 20_000, &[address], |_| purchase()));
        eventually("the sale is on", || (edge.sold() >= 200).then_some(()));
        edge.signal("TERM");
        let (status, _) = edge.wait();
        assert_eq!(status.code(), Some(0), "{}", edge.log());
        load.join().unwrap()
    });
    let outcomes: Vec<Outcome> = answers.iter().flatten().map(Outcome::of).collect();
    let ids = crate::harness::purchase::order_ids(&outcomes);
    assert!(outcomes.len() < 20_000, "the load was over before the signal came");
    edge.start_again();
    assert_eq!(edge.sold(), ids.len() as u64, "every order was answered, and every answer is an order");
    for id in ids.iter().step_by(10) {
        assert!(edge.order(id).is_some());
    }
}

#[test]
fn without_anything_under_way_sigterm_and_sigint_end_it_soon() {
    for signal in ["TERM", "INT"] {
        // `wait` gives up long before the grace ends: the edge does not wait for an idle connection.
        let mut edge = Edge::setup().set("shutdown", json!({ "grace": "1m" })).ticket(json!({ "total": 10 })).start();
        let idle = edge.connect();
        edge.signal(signal);
        let (status, _) = edge.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {}", edge.log());
        drop(idle);
    }
}

/// Like a paused machine: what the edge remembers from before may be wrong, and the ledger has not answered yet.
#[test]
fn an_edge_that_wakes_up_does_not_say_sold_out_from_an_old_memory() {
    let redis = Redis::start();
    let start = || Edge::setup().redis(&redis).ticket(json!({ "total": 1, "hold": "1h" })).start();
    let (sleeper, other) = (start(), start());
    let order = buy(other.address(), &purchase());
    eventually("it knows", || (sleeper.shown()["state"] == "sold_out").then_some(()));
    let mut waiting: Vec<Connection> = (0..30).map(|_| sleeper.connect()).collect();

    sleeper.signal("STOP");
    assert_eq!(other.settle(order.id(), "cancel", &json!({})).status, 200);
    for (number, connection) in waiting.iter_mut().enumerate() {
        let request = if number % 2 == 0 { purchase() } else { purchase_with_key(&format!("waits {number}")) };
        connection.send(&request.bytes());
    }
    std::thread::sleep(Duration::from_secs(3));
    // It looks at them before it hears of the ledger, which is silent a little longer.
    redis.freeze();
    sleeper.signal("CONT");
    std::thread::sleep(Duration::from_millis(300));
    redis.thaw();

    let outcomes: Vec<Outcome> = waiting.iter_mut().map(|connection| Outcome::of(&connection.answer())).collect();
    assert_eq!(count(&outcomes, "ordered"), 1, "one of them gets the ticket that was given back: {outcomes:?}");
    assert_eq!(count(&outcomes, "sold-out"), 29, "{outcomes:?}");
    redis.books_agree();
}
