//! Operations on a running sale: open, pause, close, add stock; over HTTP and by the command line.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::harness::purchase::{count, purchase};
use crate::harness::{Edge, Outcome, Redis, Request, at_best_within, becomes, buy, crowd, eventually, wait_until};

/// One sync of the edges (100 ms by default), and time for the machine.
const ONE_SYNC: Duration = Duration::from_millis(500);

/// Time for an edge to start before its sale opens or closes.
const START_S: f64 = 4.0;

/// How long it takes until a purchase at this edge has this outcome. Fails on an outcome that is neither this one nor
/// `before`.
#[track_caller]
fn time_until(edge: &Edge, before: &str, outcome: &str) -> Duration {
    let begun = Instant::now();
    let last = || buy(edge.address(), &purchase()).name().to_owned();
    let last = wait_until(outcome, last, |name| name != before);
    assert_eq!(last, outcome);
    begun.elapsed()
}

fn in_seconds(seconds: f64) -> String {
    let time = SystemTime::now() + Duration::from_secs_f64(seconds);
    jiff::Timestamp::try_from(time).unwrap().to_string()
}

fn two_edges(redis: &Redis, sale: &Value) -> [Edge; 2] {
    [(); 2].map(|()| Edge::setup().redis(redis).ticket(sale.clone()).start())
}

fn sale_says(edge: &Edge, arguments: &[&str]) -> Value {
    let output = edge.sale_command(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} said {text:?}: {error}"))
}

#[test]
fn a_sale_opens_by_itself_at_its_time() {
    let redis = Redis::start();
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let opens_at = Instant::now() + Duration::from_secs_f64(START_S);
        let edge = setup.ticket(json!({ "total": 5, "opens_at": in_seconds(START_S), "seed_dialect": true })).start();
        assert_eq!(edge.shown()["state"], "pending");
        assert!(edge.shown()["opens_at"].is_string());
        let answer = edge.ask(&purchase());
        assert_eq!((answer.status, answer.problem().as_str()), (403, "sale-not-open"));
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=4).contains(&wait), "{answer:?}");
        assert_eq!(buy(edge.address(), &Request::get("/buy/ticket")).name(), "sale-not-open");

        eventually("it opens", || {
            let outcome = buy(edge.address(), &purchase());
            assert!(matches!(outcome.name(), "ordered" | "sale-not-open"), "{outcome:?}");
            outcome.is_order().then_some(())
        });
        assert!(Instant::now() + Duration::from_millis(100) > opens_at, "not before its time");
        assert_eq!(edge.shown()["state"], "open");
    }
}

#[test]
fn a_sale_closes_by_itself_at_its_time() {
    let redis = Redis::start();
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let closes_at = Instant::now() + Duration::from_secs_f64(START_S);
        let sale = json!({ "total": 100_000, "closes_at": in_seconds(START_S), "seed_dialect": true });
        let edge = setup.ticket(sale).start();
        assert!(edge.shown()["closes_at"].is_string());
        assert!(buy(edge.address(), &purchase()).is_order());
        let answer = eventually("it closes", || {
            let answer = edge.ask(&purchase());
            (answer.status != 201).then_some(answer)
        });
        assert!(Instant::now() + Duration::from_millis(100) > closes_at, "not before its time");
        assert_eq!((answer.status, answer.problem().as_str()), (410, "sale-closed"));
        assert_eq!(buy(edge.address(), &Request::get("/buy/ticket")).name(), "sale-closed");
        eventually("it is shown", || (edge.shown()["state"] == "closed").then_some(()));
    }
}

#[test]
fn pausing_at_one_edge_pauses_all_and_resuming_goes_on() {
    let redis = Redis::start();
    let [here, there] = two_edges(&redis, &json!({ "total": 100_000, "seed_dialect": true }));
    assert!(buy(there.address(), &purchase()).is_order());

    at_best_within(ONE_SYNC, "pausing at one edge and resuming at the other", || {
        assert_eq!(here.operate("pause", &json!({}))["state"], "paused");
        let until_paused = time_until(&there, "ordered", "sale-paused");
        assert_eq!(there.ask(&purchase()).status, 403);
        assert_eq!(buy(there.address(), &Request::get("/buy/ticket")).name(), "sale-paused");
        time_until(&here, "ordered", "sale-paused");
        assert_eq!(there.shown()["state"], "paused");
        let sold = redis.sold();

        assert_eq!(there.operate("resume", &json!({}))["state"], "open");
        let until_resumed = time_until(&here, "sale-paused", "ordered");
        assert_eq!(redis.sold(), sold + 1);
        until_paused.max(until_resumed)
    });
    redis.books_agree();
}

#[test]
fn a_closed_sale_sells_nothing_and_can_be_opened_again() {
    let redis = Redis::start();
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let edge = setup.ticket(json!({ "total": 100_000 })).start();
        at_best_within(ONE_SYNC, "closing and opening", || {
            assert_eq!(edge.operate("close", &json!({}))["state"], "closed");
            let until_closed = time_until(&edge, "ordered", "sale-closed");
            assert_eq!(edge.operate("close", &json!({}))["state"], "closed", "closing twice is closing");
            assert_eq!(edge.operate("open", &json!({}))["state"], "open");
            until_closed.max(time_until(&edge, "sale-closed", "ordered"))
        });
    }
}

#[test]
fn new_stock_is_sold_at_every_edge_within_one_sync_although_all_was_sold_out() {
    let redis = Redis::start();
    let edges = two_edges(&redis, &json!({ "total": 10, "seed_dialect": true }));
    let addresses = edges.each_ref().map(Edge::address);
    let sold_out = |request: &Request| buy(addresses[0], request).name() == "sold-out";
    assert_eq!(crowd(10, 20, &addresses, |_| purchase()).iter().filter(|answer| answer.status == 201).count(), 10);
    assert!(sold_out(&purchase()) && sold_out(&Request::get("/buy/ticket")));

    let mut total = 10;
    at_best_within(ONE_SYNC, "selling new stock", || {
        total += 5;
        let snapshot = edges[1].operate("stock", &json!({ "change_id": format!("up to {total}"), "delta": 5 }));
        assert_eq!((&snapshot["total"], &snapshot["available"]), (&json!(total), &json!(5)));
        let times = edges.each_ref().map(|edge| time_until(edge, "sold-out", "ordered"));

        let outcomes: Vec<Outcome> = crowd(10, 20, &addresses, |_| purchase()).iter().map(Outcome::of).collect();
        assert_eq!((count(&outcomes, "ordered"), count(&outcomes, "sold-out")), (3, 17));
        assert_eq!(redis.books_agree().len(), total);
        times.into_iter().max().unwrap()
    });
}

#[test]
fn a_change_of_stock_is_made_once_and_never_below_what_is_sold() {
    let redis = Redis::start();
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let edge = setup.ticket(json!({ "total": 10 })).start();
        for _ in 0..4 {
            assert!(buy(edge.address(), &purchase()).is_order());
        }
        let change = |id: &str, delta: i64| json!({ "change_id": id, "delta": delta });
        for _ in 0..3 {
            assert_eq!(edge.operate("stock", &change("a", 5))["total"], 15, "the same change is made once");
        }
        let refused = |body: &Value| {
            let answer = edge.control(&Request::post("/sales/ticket/stock").json(body));
            (answer.status, answer.json()["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned())
        };
        assert_eq!(refused(&change("a", 6)), (409, "change-id-reused".to_owned()));
        assert_eq!(refused(&change("b", -12)), (409, "below-sold".to_owned()));
        assert_eq!(edge.operate("stock", &change("c", -11))["available"], 0);
        assert_eq!(refused(&change("d", -1)), (409, "below-sold".to_owned()));
        eventually("all is sold", || (buy(edge.address(), &purchase()).name() == "sold-out").then_some(()));
        assert_eq!((edge.snapshot()["total"].clone(), edge.sold()), (json!(4), 4));

        for (path, body, status) in [
            ("/sales/ticket/stock", json!({ "delta": 1 }), 400..=422),
            ("/sales/ticket/stock", json!({ "change_id": "e", "delta": "x" }), 400..=422),
            ("/sales/ticket/stock", json!({ "change_id": "e", "delta": 1, "more": 1 }), 400..=422),
            ("/sales/ticket/stock", json!({ "change_id": "", "delta": 1 }), 400..=422),
            ("/sales/other/stock", change("e", 1), 404..=404),
            ("/sales/other/pause", json!({}), 404..=404),
        ] {
            let answer = edge.control(&Request::post(path).json(&body));
            assert!(status.contains(&answer.status), "{path} {body}: {answer:?}");
        }
        assert_eq!(edge.snapshot()["total"], 4);
    }
}

#[test]
fn the_command_line_operates_a_running_sale() {
    let redis = Redis::start();
    for setup in [Edge::setup(), Edge::setup().redis(&redis)] {
        let edge = setup.ticket(json!({ "local_stock": 10 })).start();
        assert_eq!(buy(edge.address(), &purchase()).name(), "sale-missing", "no total, no sale");

        assert_eq!(sale_says(&edge, &["open", "ticket", "--total", "2"])["total"], 2);
        // Until the first sync after the opening, the edge knows the sale but not its stock.
        becomes("a purchase", "ordered".to_owned(), || buy(edge.address(), &purchase()).name().to_owned());
        assert_eq!(sale_says(&edge, &["show", "ticket"])["sold"], 1);
        let list = sale_says(&edge, &["list"]);
        assert_eq!((list.as_array().unwrap().len(), &list[0]["sale"]), (1, &json!("ticket")));

        assert_eq!(sale_says(&edge, &["pause", "ticket"])["state"], "paused");
        assert_eq!(sale_says(&edge, &["resume", "ticket"])["state"], "open");
        let more = ["add-stock", "ticket", "3", "--change-id", "lot-2"];
        assert_eq!(sale_says(&edge, &more)["total"], 5);
        assert_eq!(sale_says(&edge, &more)["total"], 5, "the same change is made once");
        assert_eq!(sale_says(&edge, &["add-stock", "ticket", "-4"])["total"], 1, "without an id, one is made up");
        assert_eq!(sale_says(&edge, &["close", "ticket"])["state"], "closed");

        for wrong in [&["show", "other"][..], &["add-stock", "ticket", "-1"]] {
            let output = edge.sale_command(wrong);
            assert_eq!(output.status.code(), Some(1), "{wrong:?}: {output:?}");
            assert!(!output.stderr.is_empty(), "and says why: {output:?}");
        }
        assert_eq!(edge.sale_command(&["close"]).status.code(), Some(2), "a command that is none");
    }
}

#[test]
fn opening_again_with_a_total_changes_no_sale_that_is_there() {
    let edge = Edge::setup().ticket(json!({ "total": 10 })).start();
    assert!(buy(edge.address(), &purchase()).is_order());
    let snapshot = edge.operate("open", &json!({ "total": 500 }));
    assert_eq!((&snapshot["total"], &snapshot["sold"]), (&json!(10), &json!(1)));
}

#[test]
fn a_control_listener_with_a_token_asks_for_it() {
    let token = "a-token-of-twenty-four-c";
    let setup = Edge::setup().set("control", json!({ "token": token })).ticket(json!({ "total": 10 }));
    let edge = setup.start();
    let pause = Request::post("/sales/ticket/pause").json(&json!({}));
    for request in [&pause, &pause.clone().header("Authorization", "Bearer wrong"), &Request::get("/sales")] {
        assert_eq!(edge.control(request).status, 401, "{request:?}");
    }
    assert!(buy(edge.address(), &purchase()).is_order());
    let in_other_case = pause.clone().header("Authorization", &format!("bearer {token}"));
    assert_eq!(edge.control(&in_other_case).status, 200, "the scheme's case does not matter");
    let with_token = pause.header("Authorization", &format!("Bearer {token}"));
    assert_eq!(edge.control(&with_token).status, 200);
    let output = edge.sale_command(&["resume", "ticket"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(sale_says(&edge, &["resume", "ticket", "--token", token])["state"], "open");
}
