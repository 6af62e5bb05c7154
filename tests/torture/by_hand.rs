//! People and restarts empty, delete, recreate or damage the sale itself. Then the edges sell nothing, never say "sold
//! out", and an operator can repair all of it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::json;

use super::buyers::{Crowd, Till};
use super::checker;
use super::history::{Ask, Call, History, Said};
use super::site::{Plan, Site};
use super::story::history_file;
use crate::harness::books::Books;
use crate::harness::purchase::{count, order_ids, purchase};
use crate::harness::redis::{Durability, KEY};
use crate::harness::{Edge, Outcome, Request, crowd as ask_all, eventually};

const TOTAL: u64 = 300;

/// Longer than an edge needs to notice what was done to the sale: a sync, and a busy machine.
const NOTICE: Duration = Duration::from_secs(2);

fn site(redis: Durability) -> Site {
    let sale = json!({
        "total": TOTAL,
        "hold": "1h",
        "deadline": "1500ms",
        "local_stock": 50,
        "buyer": { "header": "X-User-Id" },
    });
    Site::start(&Plan { redis: Some(redis), orders: 0, ..Plan::of(sale) })
}

/// A crowd buys while `story` runs. Returns requests and answers.
fn while_a_crowd_buys(name: &str, site: &mut Site, story: impl FnOnce(&mut Site, &History)) -> Vec<Call> {
    let crowd = Crowd {
        seed: 1,
        doors: site.doors(),
        history: History::in_file(&history_file(name, 1)),
        over: AtomicBool::new(false),
        till: Till::new(TOTAL, Duration::from_secs(10)),
        adds_stock: true,
    };
    std::thread::scope(|scope| {
        crowd.gather(scope, 20);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the sale is on", || crowd.history.calls().iter().filter(|call| call.is_ok()).nth(30).map(drop));
            story(site, &crowd.history);
        }));
        crowd.over.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Err(fault) = told {
            std::panic::resume_unwind(fault);
        }
    });
    crowd.history.calls()
}

/// Nothing was sold between the two moments, and no answer was "sold out".
#[track_caller]
fn nothing_is_said(calls: &[Call], from_us: u64, to_us: u64) {
    let mut asked = 0;
    for call in calls {
        let Some((ended, said)) = &call.ended else { continue };
        let is_purchase = matches!(call.ask, Ask::Buy { .. });
        if is_purchase && call.invoked.us >= from_us && ended.us <= to_us {
            asked += 1;
            let is_neither = match said {
                Said::Ok(_) => false,
                Said::No { why, .. } => !checker::denies(why),
                Said::Unknown { .. } => true,
            };
            assert!(is_neither, "{call:?}");
        }
    }
    assert!(asked > 0, "nobody asked");
}

fn both_edges_sell(site: &Site, left: u64) {
    let knows = |edge: &Edge| {
        let answer = edge.ask(&Request::get("/sales/ticket"));
        answer.status == 200 && answer.json()["available"] == left
    };
    eventually("both edges sell", || site.edges.iter().all(knows).then_some(()));
}

/// Exactly this many tickets can be bought now.
#[track_caller]
fn exactly_so_many_are_left(site: &Site, left: u64) {
    let answers = ask_all(20, left as usize + 50, &site.doors().public, |_| purchase());
    let outcomes: Vec<Outcome> = answers.iter().map(Outcome::of).collect();
    assert_eq!((count(&outcomes, "ordered") as u64, count(&outcomes, "sold-out")), (left, 50), "{outcomes:?}");
    assert_eq!(order_ids(&outcomes).len() as u64, left);
}

/// A Redis that keeps nothing forgets the sale. Edges that live on do not make it anew, for they would sell it twice.
#[test]
fn k4_redis_forgets_everything() {
    let mut site = site(Durability::Nothing);
    let (mut from, mut to) = (0, 0);
    let calls = while_a_crowd_buys("k4", &mut site, |site, history| {
        let redis = site.redis.as_mut().unwrap();
        redis.kill9();
        redis.start_again();
        from = history.now().us;
        std::thread::sleep(NOTICE);
        to = history.now().us;
    });
    nothing_is_said(&calls, from, to);
    assert!(Books::read(&mut site.redis.as_ref().unwrap().connection()).unwrap().is_none(), "nobody made it anew");

    site.edges[0].operate("open", &json!({}));
    both_edges_sell(&site, TOTAL);
    exactly_so_many_are_left(&site, TOTAL);
    site.redis.as_ref().unwrap().books_agree();
}

/// What was sold before is another sale's: it is put away, and neither counted nor deleted.
#[test]
fn h1_the_stock_hash_is_deleted_and_made_again() {
    let mut site = site(Durability::Always);
    let (mut from, mut to) = (0, 0);
    let calls = while_a_crowd_buys("h1", &mut site, |site, history| {
        let _: u64 = site.redis.as_ref().unwrap().command(&format!("DEL {KEY}"));
        from = history.now().us + 500_000;
        std::thread::sleep(NOTICE);
        to = history.now().us;
    });
    nothing_is_said(&calls, from, to);
    let redis = site.redis.as_ref().unwrap();
    let before: u64 = redis.command(&format!("HLEN {{{KEY}}}:orders"));
    redis.open_by_hand(70);
    both_edges_sell(&site, 70);
    exactly_so_many_are_left(&site, 70);
    redis.books_agree();
    let put_away: Vec<String> = redis.command(&format!("KEYS {{{KEY}}}:orders:before:*"));
    let [put_away] = &put_away[..] else { panic!("{put_away:?}") };
    assert_eq!(redis.command::<u64>(&format!("HLEN {put_away}")), before, "they are all there");
}

/// A value that is none, a key of another type, a record that is not ours: each is an error, and none is a count.
#[test]
fn h2_the_sale_is_edited_into_nonsense() {
    let mut site = site(Durability::Always);
    let mut silent = Vec::new();
    let calls = while_a_crowd_buys("h2", &mut site, |site, history| {
        let redis = site.redis.as_ref().unwrap();
        let mut damaged_for_a_while = |damage: &dyn Fn(), repair: &dyn Fn()| {
            damage();
            let from = history.now().us + 700_000;
            std::thread::sleep(NOTICE / 2);
            silent.push((from, history.now().us));
            repair();
            eventually("it sells again", || site.edges.iter().all(|edge| edge.is_ready()).then_some(()));
        };
        for nonsense in ["many", "-5", "1e3"] {
            let field = format!("{KEY} ticket_total_nums");
            let before: String = redis.command(&format!("HGET {field}"));
            damaged_for_a_while(&|| redis.command(&format!("HSET {field} {nonsense}")), &|| {
                redis.command(&format!("HSET {field} {before}"))
            });
        }
        damaged_for_a_while(
            &|| {
                let () = redis.command(&format!("RENAME {KEY} {KEY}.aside"));
                redis.command(&format!("SET {KEY} nonsense"))
            },
            &|| redis.command(&format!("RENAME {KEY}.aside {KEY}")),
        );
    });
    for (from, to) in silent {
        nothing_is_said(&calls, from, to);
    }
    exactly_so_many_are_left(&site, site.edges[0].snapshot()["available"].as_u64().unwrap());
    site.redis.as_ref().unwrap().books_agree();
}

/// Damage by hand that cannot be prevented must be found: a counter set back, an order removed.
#[test]
fn h3_the_books_tell_what_was_done_to_them() {
    let mut site = site(Durability::Always);
    while_a_crowd_buys("h3", &mut site, |_, _| {});
    let redis = site.redis.as_ref().unwrap();
    redis.books_agree();
    let faults = || Books::read(&mut redis.connection()).unwrap().unwrap().faults();

    let _: i64 = redis.command(&format!("HINCRBY {KEY} ticket_sold_nums -5"));
    assert!(faults().iter().any(|fault| fault.starts_with("sold: the counter, the orders")), "{:?}", faults());
    let _: i64 = redis.command(&format!("HINCRBY {KEY} ticket_sold_nums 5"));
    assert_eq!(faults(), [""; 0]);

    let orders = redis.orders();
    let (id, record) = orders.iter().find(|(_, record)| record.starts_with("HELD")).expect("an unpaid order");
    let _: u64 = redis.command(&format!("HDEL {{{KEY}}}:orders {id}"));
    let lost = format!("order {id} of the log has no record");
    assert!(faults().iter().any(|fault| fault.starts_with(&lost)), "{record}: {:?}", faults());
}
