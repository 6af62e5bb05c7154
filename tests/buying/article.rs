//! The article's own run: its Redis command, its `ab` line, its log file.

use std::path::Path;

use serde_json::json;

use crate::harness::{Connection, Edge, Outcome, Redis, Request, ab, eventually, wrk};

/// The article's settings, except that the stock is put on sale by hand.
fn edge(redis: &Redis, local_stock: u64) -> Edge {
    let sale = json!({
        "local_stock": local_stock,
        "seed_dialect": true,
        "stat_log": "stat.log",
        "buyer": { "header": "X-User-Id" },
        "deadline": "30s",
    });
    Edge::setup().redis_at(&redis.url(), "10s").ticket(sale).start()
}

/// The lines of the stat log, once there are `count`: the edge writes them in the background.
fn stat_lines(folder: &Path, count: usize) -> Vec<String> {
    eventually("the stat log is written", || {
        let text = std::fs::read_to_string(folder.join("stat.log")).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

/// The numbers of `result:RESULT,localSales:N`.
fn local_sales(lines: &[String], result: u8) -> Vec<u64> {
    let prefix = format!("result:{result},localSales:");
    let lines = lines.iter().filter(|line| line.contains(&prefix));
    lines.map(|line| line.rsplit_once(':').unwrap().1.parse().unwrap()).collect()
}

#[test]
fn ten_thousand_tickets_put_on_sale_by_hand_are_sold_by_ab() {
    let redis = Redis::start();
    redis.open_by_hand(10_000);
    let edge = edge(&redis, 150);

    let report = ab(&["-l", "-n", "10000", "-c", "100"], edge.address(), "/buy/ticket");

    assert_eq!((report.complete, report.failed, report.non_2xx), (10_000, 0, 0));
    assert_eq!(redis.sold(), 10_000, "ab saw 10,000 answers, and each was a ticket");
    assert_eq!(edge.metric("spikegate_purchases_total", "outcome=\"ordered\""), 10_000);

    let answer = edge.ask(&Request::get("/buy/ticket"));
    assert_eq!((answer.status, answer.text()), (200, r#"{"code":-1,"msg":"已售罄"}"#));
    assert_eq!(edge.ask(&Request::post("/buy/ticket")).problem(), "sold-out", "and POST says the same in its own way");
    assert_eq!(redis.books_agree().len(), 10_000);
}

#[test]
fn wrk_sells_exactly_the_stock_on_kept_connections() {
    let redis = Redis::start();
    redis.open_by_hand(2_000);
    let edge = edge(&redis, 150);

    // Longer than it takes to sell them, however busy the machine is; nearly all of it is refusals then.
    let report = wrk(&["-t", "2", "-c", "100", "-d", "4s", "--timeout", "20s"], edge.address(), "/buy/ticket");

    assert_eq!((report.socket_errors, report.non_2xx), (0, 0), "{report:?}");
    assert!(report.requests > 2_000, "{report:?}");
    assert_eq!(redis.sold(), 2_000);
    assert_eq!(edge.metric("spikegate_purchases_total", "outcome=\"ordered\""), 2_000);
    assert!(edge.metric("spikegate_purchases_total", "outcome=\"sold_out\"") > 0);
    assert_eq!(redis.books_agree().len(), 2_000);
}

#[test]
fn the_stat_log_has_one_line_for_each_purchase() {
    let redis = Redis::start();
    redis.open_by_hand(150);
    let edge = edge(&redis, 150);

    let report = ab(&["-l", "-k", "-n", "1000", "-c", "50"], edge.address(), "/buy/ticket");
    assert_eq!((report.complete, report.failed, report.keep_alive), (1000, 0, 1000));

    let lines = stat_lines(edge.folder(), 1000);
    assert_eq!(lines.len(), 1000);
    let mut sold = local_sales(&lines, 1);
    sold.sort_unstable();
    assert_eq!(sold, (1..=150).collect::<Vec<u64>>(), "what was sold is counted without a gap");
    assert_eq!(local_sales(&lines, 0).len(), 850, "and everyone else was refused");
    assert!(local_sales(&lines, 0).iter().all(|sales| *sales <= 150));
}

#[test]
fn a_success_has_the_articles_words() {
    let redis = Redis::start();
    redis.open_by_hand(1);
    let edge = edge(&redis, 150);
    let mut connection = edge.connect();

    let answer = connection.ask(&Request::get("/buy/ticket").header("X-User-Id", "alice"));
    let Outcome::Ordered { id, order } = Outcome::of(&answer) else { panic!("{answer:?}") };
    assert!(answer.text().starts_with(r#"{"code":1,"msg":"抢票成功","data":{"#), "{answer:?}");
    assert_eq!((&order["buyer"], &order["quantity"], &order["sale"]), (&json!("alice"), &json!(1), &json!("ticket")));
    assert_eq!(edge.order(&id), Some(order), "the order can be looked up");
}

#[test]
fn the_edge_sells_from_a_bare_hash_that_is_created_after_its_start() {
    let redis = Redis::start();
    let edge = edge(&redis, 150);
    let mut connection = edge.connect();
    assert_eq!(Outcome::of(&connection.ask(&Request::get("/buy/ticket"))).name(), "sale-missing");
    assert_eq!(connection.ask(&Request::post("/buy/ticket")).problem(), "sale-missing");

    // No field beside the total is needed.
    let _: u64 = redis.command("HSET ticket_hash_key ticket_total_nums 2");
    let first = eventually("the sale is found", || bought(&mut connection));
    let second = bought(&mut connection).unwrap();
    assert_ne!(first, second);
    assert_eq!(Outcome::of(&connection.ask(&Request::get("/buy/ticket"))).name(), "sold-out");
    assert_eq!(redis.books_agree().len(), 2);
}

fn bought(connection: &mut Connection) -> Option<String> {
    let outcome = Outcome::of(&connection.ask(&Request::get("/buy/ticket")));
    assert_ne!(outcome.name(), "sold-out", "there are tickets");
    outcome.is_order().then(|| outcome.id().to_owned())
}

#[test]
fn a_stock_that_is_partly_sold_already_is_sold_to_its_end() {
    let redis = Redis::start();
    let _: u64 = redis.command("HSET ticket_hash_key ticket_total_nums 1000 ticket_sold_nums 990");
    let edge = edge(&redis, 150);

    let report = ab(&["-l", "-n", "100", "-c", "10"], edge.address(), "/buy/ticket");
    assert_eq!((report.complete, report.failed), (100, 0));
    assert_eq!(redis.sold(), 1000, "the first 990 were sold by someone else");
    assert_eq!(redis.orders().len(), 10);
}
