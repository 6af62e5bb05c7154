//! Steps that fail, are lost or do not end. Whatever happens, a purchase ends in yes, no or unknown by its deadline,
//! and what is told for certain is certain.

use super::Fault::{Missing, Silence, Unavailable, UnknownAfterDoing, UnknownWithoutDoing};
use super::*;

/// The outcome, and that it came by the deadline.
#[track_caller]
fn by_deadline(began: Instant, outcome: Outcome) -> Outcome {
    let took = began.elapsed();
    assert!(took < SHORT + SLACK, "{outcome:?} took {took:?}");
    outcome
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_again_and_ends_in_one_order() {
    let rows: [&[Fault]; 6] = [
        &[UnknownAfterDoing],
        &[UnknownWithoutDoing],
        &[UnknownWithoutDoing, UnknownAfterDoing],
        &[UnknownAfterDoing, UnknownAfterDoing, UnknownAfterDoing],
        // Once it may have been done, no later fault makes it certain that it was not.
        &[UnknownAfterDoing, Unavailable, Missing],
        &[UnknownWithoutDoing, Missing, UnknownAfterDoing, Unavailable],
    ];
    for faults in rows {
        for ask in [one(), keyed("k")] {
            let ledger: Arc<InMemoryLedger> = Arc::default();
            let edge = Edge::start(&ledger, 2, |_| {}).await;
            ledger.fail(faults.iter().copied());
            let has_key = ask.key.is_some();
            let (id, again) = ordered(&edge.buy(ask).await);
            let sale = ledger.sale();
            assert_eq!(sale.orders().map(|(id, _)| *id).collect::<Vec<_>>(), [id], "{faults:?}");
            assert_eq!(edge.sent(), (1, faults.len() as u64), "{faults:?}");
            let steps = ledger.steps();
            assert!(steps.iter().all(|step| *step == steps[0]), "{faults:?}: the same is asked again");
            // Only with a key may an earlier request have made it.
            let done_before = faults.iter().any(|fault| matches!(fault, UnknownAfterDoing));
            assert_eq!(again, has_key && done_before, "{faults:?}");
            // The gate is true again.
            edge.hears().await;
            ordered(&edge.buy(one()).await);
            assert_eq!(edge.buy(one()).await, refused(Refusal::SoldOut), "{faults:?}");
        }
    }
}

#[tokio::test]
async fn what_stays_unknown_is_told_so_by_the_deadline_and_found_out_later() {
    let rows: [(&[Fault], bool); 3] =
        [(&[Silence], true), (&[UnknownAfterDoing; 200], true), (&[UnknownWithoutDoing; 200], false)];
    for (faults, is_done) in rows {
        let ledger: Arc<InMemoryLedger> = Arc::default();
        let edge = Edge::start(&ledger, 1, |settings| settings.deadline = SHORT).await;
        ledger.fail(faults.iter().copied());
        let began = Instant::now();
        let outcome = by_deadline(began, edge.buy(keyed("k")).await);
        assert_eq!(outcome, Outcome::Unknown { id: edge.id_of("k") });
        assert_eq!(ledger.sale().orders().count(), usize::from(is_done));

        // Another edge knows nothing of it, and is asked again with the same key.
        ledger.heal();
        let other = Edge::start(&ledger, 1, |_| {}).await;
        assert_eq!(ordered(&other.buy(keyed("k")).await), (edge.id_of("k"), is_done));
        assert_eq!(ledger.sale().orders().count(), 1);
        assert_eq!(other.buy(keyed("other")).await, refused(Refusal::SoldOut));
    }
}

#[tokio::test]
async fn what_was_certainly_not_done_is_refused_at_once() {
    for (fault, refusal) in [(Unavailable, Refusal::Unavailable), (Missing, Refusal::Missing)] {
        let ledger: Arc<InMemoryLedger> = Arc::default();
        let edge = Edge::start(&ledger, 1, |_| {}).await;
        // While the ledger is not heard again, everybody is refused with the same words.
        ledger.hang_syncs(true);
        ledger.fail([fault]);
        for ask in [one(), one(), keyed("k")] {
            assert_eq!(edge.buy(ask).await, refused(refusal.clone()));
        }
        assert_eq!((edge.sent(), ledger.sale().orders().count()), ((1, 0), 0));
    }
}

#[tokio::test]
async fn a_ledger_that_is_back_sells_again() {
    for fault in [Unavailable, Missing] {
        let ledger: Arc<InMemoryLedger> = Arc::default();
        let edge = Edge::start(&ledger, 1, |_| {}).await;
        ledger.fail([fault]);
        assert!(matches!(edge.buy(one()).await, Outcome::Refused(Refusal::Unavailable | Refusal::Missing)));
        // The batch has asked for a sync by itself.
        while edge.sale.view().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ordered(&edge.buy(one()).await);
    }
}

#[tokio::test]
async fn another_sale_under_the_same_name_is_found_out() {
    let ledger: Arc<InMemoryLedger> = Arc::default();
    let edge = Edge::start(&ledger, 1, |_| {}).await;
    let (before, _) = ordered(&edge.buy(keyed("k")).await);
    ledger.begin_anew(1);
    let outcome = edge.buy(keyed("k")).await;
    assert_eq!(outcome, refused(Refusal::Unavailable));
    while edge.sale.view().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (after, again) = ordered(&edge.buy(keyed("k")).await);
    assert!(after != before && !again, "the key stands for an order of the new sale");
    assert_eq!(edge.buy(one()).await, refused(Refusal::SoldOut));
}

#[tokio::test]
async fn a_client_that_has_gone_is_not_bought_for() {
    let ledger: Arc<InMemoryLedger> = Arc::default();
    let edge = Edge::start(&ledger, 10, |_| {}).await;
    let first = edge.occupy(Duration::from_millis(100)).await;
    let gone: Vec<_> = (0..5).map(|_| edge.spawn(one())).collect();
    // Until they stand in the queue.
    while edge.sale.queue.max_capacity() - edge.sale.queue.capacity() < 5 {
        tokio::task::yield_now().await;
    }
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    ordered(&edge.buy(one()).await);
    ordered(&first.await.expect("it does not panic"));
    assert_eq!((edge.sent(), ledger.sale().orders().count()), ((2, 0), 2));
}

#[tokio::test]
async fn an_order_is_made_for_a_client_that_goes_while_the_ledger_decides() {
    let ledger: Arc<InMemoryLedger> = Arc::default();
    let edge = Edge::start(&ledger, 1, |_| {}).await;
    edge.occupy(Duration::from_millis(50)).await.abort();
    while ledger.sale().orders().count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(edge.buy(one()).await, refused(Refusal::SoldOut));
}

/// A ledger whose last ticket another edge has sold to the key `made`, and an edge that has not read of it.
async fn behind(deadline: Duration) -> Edge {
    let ledger: Arc<InMemoryLedger> = Arc::default();
    let edge = Edge::start(&ledger, 3, |settings| settings.deadline = deadline).await;
    ledger.hang_syncs(true);
    ledger.sell_elsewhere(&[Purchase { id: edge.id_of("made"), buyer: None, quantity: 1 }]);
    ordered(&edge.buy(tickets(2)).await);
    edge
}

#[tokio::test]
async fn a_key_waits_for_the_log_and_then_hears_the_truth() {
    let edge = behind(AMPLE).await;
    assert_eq!(edge.buy(one()).await, refused(Refusal::SoldOut));
    edge.ledger.hang_syncs(false);
    let outcomes = edge.buy_all([keyed("never"), keyed("made"), keyed("nor this")]).await;
    assert_eq!(ordered(&outcomes[1]), (edge.id_of("made"), true));
    assert_eq!(outcomes[0], refused(Refusal::SoldOut));
    assert_eq!(outcomes[2], refused(Refusal::SoldOut));
    assert_eq!(edge.sent(), (2, 0), "only the order that was named is asked about");
}

#[tokio::test]
async fn those_who_wait_for_the_log_do_not_keep_others_from_the_ledger() {
    let ledger: Arc<InMemoryLedger> = Arc::default();
    let edge = Edge::start(&ledger, 20, |_| {}).await;
    ledger.hang_syncs(true);
    ledger.sell_elsewhere(&[Purchase { id: edge.id_of("made"), buyer: None, quantity: 1 }]);
    ordered(&edge.buy(one()).await);
    // More than are left, so that each would be refused; whether any of them is a retry, only the log can tell.
    let many = (0..2 * BATCH_MAX).map(|n| Ask { quantity: 19, ..keyed(&format!("key {n}")) }).collect::<Vec<_>>();
    let waiting = edge.buy_all(many);
    let others = async {
        for _ in 0..5 {
            ordered(&edge.buy(one()).await);
        }
        ledger.hang_syncs(false);
    };
    let (outcomes, ()) = tokio::join!(waiting, others);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Refused(Refusal::NotEnough { .. }))));
    assert_eq!(edge.sent(), (6, 0), "none of those who waited was brought to the ledger");
}

#[tokio::test]
async fn a_key_whose_log_does_not_come_is_busy_by_its_deadline_and_never_sold_out() {
    let edge = behind(SHORT).await;
    let began = Instant::now();
    for outcome in edge.buy_all([keyed("made"), keyed("never")]).await {
        assert_eq!(by_deadline(began, outcome), refused(Refusal::Busy));
    }
    assert_eq!(edge.sent(), (1, 0));
}
