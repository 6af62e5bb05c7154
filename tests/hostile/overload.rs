//! More purchases than the ledger can serve: the edge refuses the rest early, and loses none that it accepted.

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::purchase::purchase;
use crate::harness::{Answer, Connection, Edge, Network, Passage, Redis, eventually};

const CLIENTS: u32 = 150;
/// Each client asks so often, whether it was served or not: all together 300 times a second.
const PERIOD: Duration = Duration::from_millis(500);
const LOAD: Duration = Duration::from_secs(4);
/// Redis takes half of this for a reply on average, and each reply brings at most [`LOCAL_STOCK`] orders: together 100
/// a second, a third of what is asked for.
const REPLY: Duration = Duration::from_millis(200);
const LOCAL_STOCK: usize = 10;

/// What became of one request.
struct Heard {
    asked: Duration,
    took: Duration,
    client: u32,
    answer: Answer,
}

#[test]
fn under_triple_load_the_excess_is_refused_early_and_evenly() {
    let redis = Redis::start();
    let network = Network::to(redis.address());
    let edge = Edge::setup()
        .redis_at(&network.redis_url(), "2s")
        .ticket(json!({ "total": 1_000_000, "local_stock": LOCAL_STOCK, "queue": 10, "deadline": "3s" }))
        .start();
    assert_eq!(edge.ask(&purchase()).status, 201);
    network.passes(Passage::Free, Passage::Slow(REPLY));

    let (begun, heard) = (Instant::now(), Mutex::<Vec<Heard>>::default());
    let half_kib = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (heard, edge) = (&heard, &edge);
            scope.spawn(move || {
                let mut connection = Connection::to(edge.address());
                let mut due = PERIOD * client / CLIENTS;
                while due < LOAD {
                    sleep(due.saturating_sub(begun.elapsed()));
                    let asked = begun.elapsed();
                    let answer = connection.ask(&purchase());
                    let took = begun.elapsed() - asked;
                    heard.lock().unwrap().push(Heard { asked, took, client, answer });
                    // Whoever waited long asks at once, and does not make up for what was missed.
                    due = (due + PERIOD).max(begun.elapsed());
                }
            });
        }
        sleep(LOAD / 2);
        edge.peak_memory_kib()
    });
    let full_kib = edge.peak_memory_kib();
    network.passes(Passage::Free, Passage::Free);
    let ended = Instant::now();
    eventually("a purchase is served again", || (edge.ask(&purchase()).status == 201).then_some(()));
    let recovered = ended.elapsed();

    let heard = heard.into_inner().unwrap();
    let (sold, refused): (Vec<_>, Vec<_>) = heard.iter().partition(|heard| heard.answer.status == 201);
    let mut waits = HashSet::new();
    for Heard { answer, .. } in &refused {
        assert_eq!((answer.status, answer.problem().as_str()), (503, "busy"), "{answer:?}");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3).contains(&wait), "{answer:?}");
        waits.insert(wait);
    }
    assert_eq!(waits.len(), 3, "they must not all come again in the same second");
    let mut times: Vec<_> = refused.iter().map(|heard| heard.took).collect();
    times.sort();
    let middle = times[times.len() / 2];
    println!(
        "{} asked, {} sold, {} refused, half of them within {middle:?}; memory {half_kib} KiB at half time, {full_kib} in \
         the end; served again after {recovered:?}",
        heard.len(),
        sold.len(),
        refused.len(),
    );
    // Early: a refusal does not wait for the ledger.
    assert!(middle < REPLY / 2, "{middle:?}");
    // Evenly: at all times somebody is served, and nearly as many different clients as if lots had been drawn each
    // time.
    for quarter in 0..4 {
        let time = LOAD / 4 * quarter..LOAD / 4 * (quarter + 1);
        assert!(sold.iter().any(|heard| time.contains(&heard.asked)), "nobody was served in {time:?}");
    }
    let served: HashSet<_> = sold.iter().map(|heard| heard.client).collect();
    let drawn = f64::from(CLIENTS) * (1.0 - (1.0 - 1.0 / f64::from(CLIENTS)).powf(sold.len() as f64));
    assert!(served.len() as f64 > 0.75 * drawn, "{} clients were ever served, by lot {drawn:.0}", served.len());
    assert!(full_kib < half_kib + 4 * 1024, "memory grew from {half_kib} to {full_kib} KiB");
    // What was accepted was answered, and nothing else was sold.
    assert_eq!(edge.sold(), sold.len() as u64 + 2);
    assert!(recovered < Duration::from_secs(3), "{recovered:?}");
}
