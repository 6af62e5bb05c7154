//! Who of those in the line goes to the ledger, who stays, and who is answered on the way.

use super::*;

/// Asserts who of the line goes and who stays, by their place in the line, and what the others hear.
#[track_caller]
fn check(edge: &Edge, line: Vec<Pending>, goes: &[usize], stays: &[usize]) {
    let ids: Vec<_> = line.iter().map(|pending| pending.purchase.id).collect();
    let mut line = PendingPurchases { next: line.into(), behind: VecDeque::new() };
    let batch = line.gather(&edge.sale, Instant::now());
    let places = |pending: &Pending| ids.iter().position(|id| *id == pending.purchase.id).expect("it was in the line");
    assert_eq!(batch.iter().map(places).collect::<Vec<_>>(), goes, "go");
    let stay = line.behind.iter().chain(&line.next);
    assert_eq!(stay.map(places).collect::<Vec<_>>(), stays, "stay");
}

#[tokio::test]
async fn the_gone_the_expired_and_those_of_another_sale_do_not_go() {
    let ledger = Arc::default();
    let edge = Edge::prepare(&ledger, 10, |_| {}).await.0;
    let (fine, _hears) = waiting(&edge, one());
    let (gone, hears) = waiting(&edge, keyed("gone"));
    drop(hears);
    let (mut expired, mut late) = waiting(&edge, one());
    expired.deadline = Instant::now();
    let (mut other, mut estranged) = waiting(&edge, one());
    other.epoch ^= 1;
    let (also_fine, _hears_too) = waiting(&edge, keyed("k"));
    check(&edge, vec![gone, expired, fine, other, also_fine], &[2, 4], &[]);
    assert_eq!(late.try_recv(), Ok(refused(Refusal::Busy)));
    assert_eq!(estranged.try_recv(), Ok(refused(Refusal::Unavailable)));

    // Nobody is asked for a sale that is not there any more.
    let (orphan, mut hears) = waiting(&edge, one());
    edge.sale.identity.store(None);
    check(&edge, vec![orphan], &[], &[]);
    assert_eq!(hears.try_recv(), Ok(refused(Refusal::Unavailable)));
}

#[tokio::test]
async fn the_local_stock_counts_tickets_and_keeps_the_line_in_order() {
    let ledger = Arc::default();
    let edge = Edge::prepare(&ledger, 100, |settings| settings.local_stock = 5).await.0;
    let rows: [(&[u32], &[usize], &[usize]); 6] = [
        (&[], &[], &[]),
        (&[1, 1, 1, 1, 1, 1, 1], &[0, 1, 2, 3, 4], &[5, 6]),
        (&[2, 2, 2, 1], &[0, 1], &[2, 3]),
        (&[5, 1], &[0], &[1]),
        (&[6, 1], &[0], &[1]),
        (&[1, 6, 1], &[0], &[1, 2]),
    ];
    for (quantities, goes, stays) in rows {
        let (line, _hear): (Vec<_>, Vec<_>) =
            quantities.iter().map(|quantity| waiting(&edge, tickets(*quantity))).unzip();
        check(&edge, line, goes, stays);
    }
}

#[tokio::test]
async fn those_who_wait_for_the_log_keep_their_place_and_stop_nobody() {
    let ledger: Arc<InMemoryLedger> = Arc::default();
    let edge = Edge::prepare(&ledger, 10, |settings| settings.local_stock = 2).await.0;
    ledger.hang_syncs(true);
    // Another edge sells, and then a step here leaves a gap in the log and two tickets.
    ledger.sell_elsewhere(&[7].map(|quantity| Purchase { id: OrderId([7; 16]), buyer: None, quantity }));
    decide(&edge.sale, vec![waiting(&edge, one()).0]).await;
    let asks = [3, 1, 4, 2, 3].map(|quantity| Ask { quantity, ..keyed(&format!("{quantity} tickets")) });
    let (mut line, mut hear): (Vec<_>, Vec<_>) = asks.into_iter().map(|ask| waiting(&edge, ask)).unzip();
    let (hopeless, hears) = waiting(&edge, tickets(3));
    line.insert(1, hopeless);
    hear.insert(1, hears);
    line[5].purchase.id = OrderId([5; 16]);
    // The fifth is one ticket too many for this batch, and still stands behind those who wait.
    check(&edge, line, &[2], &[0, 3, 4, 5]);
    assert_eq!(hear[1].try_recv(), Ok(refused(Refusal::NotEnough { left: 2 })));
}
