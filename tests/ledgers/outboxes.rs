//! The outbox of every ledger: which edge delivers, how far it is, and which events are set aside.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spikegate::ledger::{
    Change, Claim, EventId, Ledger, LedgerError, LogEntry, OrderId, Outbox, Purchase, Record, Recorded, RefusedEvent,
    SET_ASIDE_MAX, SaleState, Taken, Terms,
};
use spikegate::stores::embedded::EmbeddedLedger;
use spikegate::stores::redis::RedisLedger;
use tempfile::TempDir;

use crate::harness::redis::Redis;

const SALE: &str = "ticket";

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A ledger under test, as both of the things that it is, with a sale.
struct Subject {
    name: &'static str,
    ledger: Arc<dyn Ledger>,
    outbox: Arc<dyn Outbox>,
    epoch: u64,
}

impl Subject {
    async fn take(&self, claim: &Claim, lines_max: usize) -> Taken {
        self.outbox.take(SALE, self.epoch, claim, lines_max).await.unwrap()
    }

    /// The numbers of the entries that this edge is to deliver next.
    async fn next(&self, claim: &Claim, lines_max: usize) -> Vec<u64> {
        let work = self.take(claim, lines_max).await.work;
        work.unwrap_or_else(|| panic!("{}: it is another edge's", self.name)).entries.iter().map(|e| e.seq).collect()
    }

    async fn record(&self, claim: &Claim, record: Record) -> Recorded {
        self.outbox.record(SALE, self.epoch, &claim.edge, &record).await.unwrap()
    }

    /// Buys this many tickets in one step, which is one entry.
    async fn buy(&self, tickets: u8) {
        let purchase = |_| Purchase { id: OrderId(rand::random()), buyer: None, quantity: 1 };
        let batch = Arc::new((0..tickets).map(purchase).collect());
        self.ledger.reserve(SALE, self.epoch, &terms(), &batch).await.unwrap();
    }
}

fn terms() -> Terms {
    Terms { hold_ms: 60_000, ..Terms::default() }
}

fn claim(edge: &str, lease: Duration) -> Claim {
    Claim { edge: edge.into(), lease }
}

/// Long enough for a test.
fn long(edge: &str) -> Claim {
    claim(edge, Duration::from_secs(60))
}

fn up_to(delivered: u64) -> Record {
    Record { delivered, ..Record::default() }
}

fn event(seq: u64, part: u32) -> EventId {
    EventId { seq, part }
}

fn refused(event: EventId, why: &str) -> Record {
    let order = Some(OrderId([event.part as u8; 16]));
    Record { refused: Some(RefusedEvent { event, order, why: why.to_owned() }), ..Record::default() }
}

async fn in_redis(redis: &Redis) -> Subject {
    let ledger = RedisLedger::connect(&redis.url(), Duration::from_secs(5), Duration::from_secs(5)).await.unwrap();
    opened("redis", Arc::new(ledger)).await
}

async fn embedded(folder: &Path) -> Subject {
    opened("embedded", Arc::new(EmbeddedLedger::open(folder, now_ms).unwrap())).await
}

async fn opened<L: Ledger + Outbox>(name: &'static str, ledger: Arc<L>) -> Subject {
    let epoch = ledger.open(SALE, Some(10_000)).await.unwrap().epoch;
    Subject { name, ledger: ledger.clone(), outbox: ledger, epoch }
}

/// Both stores, each with a sale, for tests of what they promise alike.
async fn both() -> (Redis, TempDir, [Subject; 2]) {
    let (redis, folder) = (Redis::start(), TempDir::new().unwrap());
    let subjects = [in_redis(&redis).await, embedded(folder.path()).await];
    (redis, folder, subjects)
}

#[tokio::test]
async fn the_log_is_given_from_its_first_entry_on_and_never_goes_back() {
    let (_redis, _folder, subjects) = both().await;
    for subject in subjects {
        let (name, here) = (subject.name, long("here"));
        for tickets in [3, 1, 2] {
            subject.buy(tickets).await;
        }
        let before = subject.outbox.delivery(SALE, subject.epoch).await.unwrap();
        assert_eq!((before.progress.version, before.progress.delivered, before.lease), (4, 0, None), "{name}");

        let taken = subject.take(&here, 1_000).await;
        let entries: Vec<LogEntry> = taken.work.unwrap().entries;
        assert_eq!(entries, subject.ledger.log(SALE, 0, 100).await.unwrap(), "{name}");
        assert!(matches!(entries[0].change, Change::Opened { total: 10_000, sold: 0 }), "{name}");
        assert_eq!(taken.progress.oldest_at_ms, Some(entries[0].at_ms), "{name}");

        assert_eq!(subject.next(&here, 1).await, [1], "{name}: lines end it");
        assert_eq!(subject.next(&here, 2).await, [1, 2], "{name}: the last one is whole");
        assert_eq!(subject.next(&here, 0).await, [0_u64; 0], "{name}: the lease alone");
        assert_eq!(subject.next(&here, 1_000).await, [1, 2, 3, 4], "{name}: what is not recorded comes again");

        assert_eq!(subject.record(&here, up_to(3)).await, Recorded::Done);
        assert_eq!(subject.next(&here, 1_000).await, [4], "{name}");
        assert_eq!(subject.record(&here, up_to(2)).await, Recorded::Done);
        assert_eq!(subject.next(&here, 1_000).await, [4], "{name}: it does not go back");
        let oldest = subject.take(&here, 0).await.progress.oldest_at_ms;
        assert_eq!(oldest, Some(entries[3].at_ms), "{name}");

        assert_eq!(subject.record(&here, up_to(4)).await, Recorded::Done);
        let taken = subject.take(&here, 1_000).await;
        assert_eq!((taken.progress.delivered, taken.progress.oldest_at_ms), (4, None), "{name}");
        let beyond = subject.outbox.record(SALE, subject.epoch, "here", &up_to(5)).await;
        assert!(matches!(beyond, Err(LedgerError::Damaged(_))), "{name}: {beyond:?}");

        subject.ledger.set_state(SALE, SaleState::Paused).await.unwrap();
        assert_eq!(subject.next(&here, 1_000).await, [5], "{name}");
        assert_eq!(subject.ledger.log(SALE, 0, 100).await.unwrap().len(), 5, "{name}: nothing is trimmed");
    }
}

#[tokio::test]
async fn one_edge_at_a_time_delivers_and_another_goes_on_where_it_stopped() {
    let (_redis, _folder, subjects) = both().await;
    for subject in subjects {
        let name = subject.name;
        let (here, there) = (claim("here", Duration::from_secs(3)), long("there"));
        subject.buy(1).await;
        assert_eq!(subject.next(&here, 100).await, [1, 2], "{name}");
        subject.record(&here, up_to(1)).await;

        let taken = subject.take(&there, 100).await;
        assert_eq!((&*taken.lease.edge, taken.work), ("here", None), "{name}");
        assert!(taken.lease.left <= here.lease && taken.progress.delivered == 1, "{name}");
        assert_eq!(subject.record(&there, up_to(2)).await, Recorded::Lost, "{name}");
        subject.outbox.release(SALE, subject.epoch, "there").await.unwrap();
        assert!(subject.take(&there, 100).await.work.is_none(), "{name}: nobody gives back what others have");

        tokio::time::sleep(here.lease).await;
        assert_eq!(subject.outbox.delivery(SALE, subject.epoch).await.unwrap().lease, None, "{name}: it ran out");
        assert_eq!(subject.next(&there, 100).await, [2], "{name}: the other goes on");
        assert_eq!(subject.record(&here, up_to(2)).await, Recorded::Lost, "{name}");
        assert!(subject.take(&here, 100).await.work.is_none(), "{name}");

        subject.outbox.release(SALE, subject.epoch, "there").await.unwrap();
        assert_eq!(subject.next(&here, 100).await, [2], "{name}: what is given back is taken at once");
    }
}

#[tokio::test]
async fn a_lease_is_renewed_when_half_of_it_is_gone_and_is_its_owners_until_another_takes_it() {
    let (_redis, _folder, subjects) = both().await;
    for subject in subjects {
        let (name, here) = (subject.name, claim("here", Duration::from_secs(4)));
        assert_eq!(subject.take(&here, 0).await.lease.left, here.lease, "{name}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let left = subject.take(&here, 0).await.lease.left;
        assert!(left < here.lease && left >= here.lease / 2, "{name}: {left:?} are enough");
        tokio::time::sleep(here.lease / 2).await;
        assert_eq!(subject.take(&here, 0).await.lease.left, here.lease, "{name}: renewed");
        tokio::time::sleep(here.lease).await;
        assert_eq!(subject.record(&here, up_to(1)).await, Recorded::Done, "{name}: nobody else was there");
        assert_eq!(subject.take(&here, 0).await.lease.left, here.lease, "{name}: taken again");
    }
}

#[tokio::test]
async fn an_event_set_aside_stays_until_it_is_delivered() {
    let (_redis, _folder, subjects) = both().await;
    for subject in subjects {
        let (name, here) = (subject.name, long("here"));
        subject.buy(5).await;
        subject.take(&here, 0).await;
        let both_at_once = Record { delivered: 2, ..refused(event(2, 3), "400 no\nsuch  thing") };
        assert_eq!(subject.record(&here, both_at_once).await, Recorded::Done);
        assert_eq!(subject.record(&here, refused(event(2, 1), "")).await, Recorded::Done);
        assert_eq!(subject.record(&here, refused(event(2, 1), &"x".repeat(500))).await, Recorded::Done, "again");

        let status = subject.outbox.delivery(SALE, subject.epoch).await.unwrap();
        assert_eq!((status.progress.delivered, status.progress.set_aside), (2, 2), "{name}");
        assert_eq!(&*status.lease.unwrap().edge, "here", "{name}");
        let told: Vec<_> =
            status.set_aside.iter().map(|aside| (aside.refused.event, &*aside.refused.why, aside.again)).collect();
        let long_why = "x".repeat(200);
        assert_eq!(told, [(event(2, 1), &*long_why, false), (event(2, 3), "400 no such thing", false)], "{name}");
        assert_eq!(status.set_aside[1].refused.order, Some(OrderId([3; 16])), "{name}");
        assert!(status.set_aside[0].at_ms.abs_diff(now_ms()) < 60_000, "{name}");
        assert_eq!(subject.take(&here, 0).await.work.unwrap().again, [], "{name}: nobody asked for it");

        assert_eq!(subject.outbox.retry(SALE, subject.epoch).await, Ok(2), "{name}");
        assert_eq!(subject.take(&here, 0).await.work.unwrap().again, [event(2, 1), event(2, 3)], "{name}");
        assert_eq!(subject.record(&here, refused(event(2, 1), "still no")).await, Recorded::Done);
        assert_eq!(subject.take(&here, 0).await.work.unwrap().again, [event(2, 3)], "{name}");
        let settled = Record { settled: vec![event(2, 3), event(2, 1)], ..Record::default() };
        assert_eq!(subject.record(&here, settled).await, Recorded::Done);
        let left = subject.outbox.delivery(SALE, subject.epoch).await.unwrap().set_aside;
        assert_eq!(left.len(), 1, "{name}: what is not tried again is not settled");
        assert_eq!((left[0].refused.event, &*left[0].refused.why), (event(2, 1), "still no"), "{name}");
    }
}

#[tokio::test]
async fn only_so_many_events_are_set_aside_and_none_is_dropped() {
    let (_redis, _folder, subjects) = both().await;
    for subject in subjects {
        let (name, here) = (subject.name, long("here"));
        subject.take(&here, 0).await;
        for part in 0..SET_ASIDE_MAX as u32 {
            assert_eq!(subject.record(&here, refused(event(1, part), "no")).await, Recorded::Done, "{name}");
        }
        subject.outbox.retry(SALE, subject.epoch).await.unwrap();
        let one_more = Record { delivered: 1, ..refused(event(1, u32::MAX), "no") };
        assert_eq!(subject.record(&here, one_more.clone()).await, Recorded::Full, "{name}");
        let progress = subject.take(&here, 0).await.progress;
        assert_eq!((progress.delivered, progress.set_aside), (0, SET_ASIDE_MAX as u64), "{name}: nothing was written");
        assert_eq!(
            subject.record(&here, refused(event(1, 7), "still no")).await,
            Recorded::Done,
            "{name}: it has a place"
        );
        let settled = Record { settled: vec![event(1, 8)], ..Record::default() };
        assert_eq!(subject.record(&here, settled).await, Recorded::Done, "{name}");
        assert_eq!(subject.record(&here, one_more).await, Recorded::Done, "{name}: a place is free");
    }
}

#[tokio::test]
async fn another_sale_of_the_name_is_told_apart() {
    let (_redis, _folder, subjects) = both().await;
    for Subject { name, outbox, epoch, .. } in subjects {
        let here = long("here");
        for (sale, epoch, expected) in
            [(SALE, epoch ^ 1, LedgerError::Changed), ("nothing", epoch, LedgerError::Missing)]
        {
            assert_eq!(outbox.take(sale, epoch, &here, 1).await.err().as_ref(), Some(&expected), "{name}");
            let recorded = outbox.record(sale, epoch, "here", &up_to(0)).await;
            assert_eq!(recorded.err().as_ref(), Some(&expected), "{name}");
            assert_eq!(outbox.release(sale, epoch, "here").await.err().as_ref(), Some(&expected), "{name}");
            assert_eq!(outbox.retry(sale, epoch).await.err().as_ref(), Some(&expected), "{name}");
            assert_eq!(outbox.delivery(sale, epoch).await.err().as_ref(), Some(&expected), "{name}");
        }
    }
}

#[tokio::test]
async fn a_sale_made_anew_in_redis_is_delivered_from_its_own_beginning() {
    let redis = Redis::start();
    let old = in_redis(&redis).await;
    let here = long("here");
    old.buy(1).await;
    old.take(&here, 0).await;
    old.record(&here, Record { delivered: 2, ..refused(event(2, 0), "no") }).await;
    redis.command::<()>("DEL ticket");
    redis.command::<()>("HSET ticket ticket_total_nums 5");
    let epoch = old.ledger.open(SALE, None).await.unwrap().epoch;
    let gone = old.outbox.take(SALE, old.epoch, &here, 100).await;
    assert_eq!(gone.err(), Some(LedgerError::Changed));
    let taken = old.outbox.take(SALE, epoch, &here, 100).await.unwrap();
    assert_eq!((taken.progress.delivered, taken.progress.set_aside), (0, 0));
    assert_eq!(taken.work.unwrap().entries[0].seq, 1);
    let kept: u64 = redis.command(&format!("HLEN {{ticket}}:delivery:{:016x}:aside", old.epoch));
    assert_eq!(kept, 1, "what was set aside is not thrown away");
}

#[tokio::test]
async fn the_group_in_redis_shows_how_far_it_is_and_disturbs_no_other_reader() {
    let redis = Redis::start();
    let subject = in_redis(&redis).await;
    let (log, here) = ("{ticket}:log", long("here"));
    subject.buy(1).await;
    redis.command::<()>(&format!("XGROUP CREATE {log} mine 0"));
    assert_eq!(subject.next(&here, 100).await, [1, 2]);
    subject.record(&here, up_to(1)).await;

    let lag = |group: &str| -> i64 {
        let groups: Vec<std::collections::HashMap<String, redis::Value>> =
            redis.command(&format!("XINFO GROUPS {log}"));
        let name = redis::Value::BulkString(group.as_bytes().to_vec());
        let group = groups.into_iter().find(|fields| fields["name"] == name).unwrap();
        assert_eq!(group["pending"], redis::Value::Int(0));
        redis::from_redis_value(group["lag"].clone()).unwrap()
    };
    assert_eq!((lag("delivery"), lag("mine")), (1, 2));
    redis.command::<redis::Value>(&format!("XREADGROUP GROUP mine me COUNT 9 NOACK STREAMS {log} >"));
    assert_eq!((lag("delivery"), lag("mine")), (1, 0), "each has its own place");
    assert_eq!(subject.next(&here, 100).await, [2]);

    redis.command::<()>(&format!("XGROUP DESTROY {log} delivery"));
    assert_eq!(subject.next(&here, 100).await, [1, 2], "who destroys it has all delivered again, and nothing lost");
    redis.command::<()>(&format!("XGROUP DESTROY {log} delivery"));
    subject.record(&here, up_to(2)).await;
    assert_eq!(subject.next(&here, 100).await, [0_u64; 0]);
}

#[tokio::test]
async fn damage_in_redis_is_named_and_nothing_is_written() {
    let redis = Redis::start();
    let subject = in_redis(&redis).await;
    let here = long("here");
    let log = "{ticket}:log";
    let delivery = format!("{{ticket}}:delivery:{:016x}", subject.epoch);
    subject.take(&here, 0).await;
    let rows = [
        (format!("SET {delivery}:aside x"), format!("DEL {delivery}:aside"), "another type"),
        (format!("SET {delivery}:again x"), format!("DEL {delivery}:again"), "another type"),
        (format!("RENAME {log} away"), format!("RENAME away {log}"), "is gone"),
        (format!("RENAME {delivery} away"), format!("RENAME away {delivery}"), ""),
    ];
    for (damage, repair, named) in rows {
        redis.command::<()>(&damage);
        let outcome = subject.outbox.record(SALE, subject.epoch, "here", &up_to(1)).await;
        match &outcome {
            Err(LedgerError::Damaged(text)) if !named.is_empty() => assert!(text.contains(named), "{damage}: {text}"),
            // Without its key nobody has the delivery.
            Ok(Recorded::Lost) if named.is_empty() => {}
            other => panic!("{damage}: {other:?}"),
        }
        redis.command::<()>(&repair);
        assert_eq!(subject.take(&here, 0).await.progress.delivered, 0, "{damage}");
    }
    redis.command::<()>(&format!("HSET {delivery}:aside nonsense nonsense"));
    let status = subject.outbox.delivery(SALE, subject.epoch).await;
    assert!(matches!(status, Err(LedgerError::Damaged(_))), "{status:?}");
}

#[tokio::test]
async fn the_embedded_outbox_outlives_its_edge_but_the_lease_does_not() {
    let folder = TempDir::new().unwrap();
    let first = embedded(folder.path()).await;
    let (here, there) = (long("here"), long("there"));
    first.buy(2).await;
    first.take(&here, 0).await;
    first.record(&here, Record { delivered: 1, ..refused(event(1, 0), "no") }).await;
    first.record(&here, refused(event(2, 0), "no")).await;
    first.outbox.retry(SALE, first.epoch).await.unwrap();
    drop(first);

    // The thread that has the file ends soon after the last handle of it.
    let second = loop {
        match EmbeddedLedger::open(folder.path(), now_ms) {
            Ok(ledger) => break opened("embedded", Arc::new(ledger)).await,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let taken = second.take(&there, 100).await;
    assert_eq!((taken.progress.delivered, taken.progress.set_aside), (1, 2));
    let work = taken.work.unwrap();
    assert_eq!(work.again, [event(1, 0), event(2, 0)]);
    assert_eq!(work.entries.len(), 1);
}
