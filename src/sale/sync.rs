//! Keeps the gates up to date: reads every sale's counters and log from the ledger, all in one round trip per interval.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Sale, SaleContext};
use crate::ledger::{LedgerError, SyncAsk, Synced};

/// Timeout of one round trip; after it the gates drop their counters. The Redis connection has a shorter timeout of its
/// own; this one covers a disk that hangs.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Syncs until the process exits: every `interval`, and immediately on request or when a log has more entries.
pub async fn run(sales: Vec<Arc<Sale>>, shared: Arc<SaleContext>, interval: Duration) {
    let mut reachable = true;
    loop {
        let more = match round(&sales, &shared).await {
            Ok(more) => {
                if !reachable {
                    log::info!("the ledger is reachable again");
                    reachable = true;
                }
                more
            }
            Err(error) => {
                // One line per outage, not one per sync.
                if reachable {
                    log::error!("{error}; purchases get 503 until the ledger answers");
                    reachable = false;
                }
                sales.iter().for_each(|sale| sale.gate.forget());
                false
            }
        };
        shared.synced.notify_waiters();
        if !more {
            let _ = timeout(interval, shared.sync_now.notified()).await;
        }
    }
}

/// Reads all logs to their end, before the edge accepts its first client.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn catch_up(sales: &[Arc<Sale>], shared: &SaleContext) -> Result<(), LedgerError> {
    while round(sales, shared).await? {}
    Ok(())
}

/// One round trip for all opened sales, and one more for each sale that is not opened. Returns whether a log has more.
async fn round(sales: &[Arc<Sale>], shared: &SaleContext) -> Result<bool, LedgerError> {
    let mut open = Vec::with_capacity(sales.len());
    let mut asks = Vec::with_capacity(sales.len());
    for sale in sales {
        match sale.identity.load().as_ref() {
            Some(identity) => {
                open.push(sale);
                asks.push(SyncAsk {
                    sale: sale.key.as_str().into(),
                    epoch: identity.epoch,
                    terms: sale.terms(),
                    read_to: sale.gate.read_to(),
                });
            }
            // The sale may exist by now; then the next round reads it.
            None => drop(open_again(sale).await?),
        }
    }
    if asks.is_empty() {
        return Ok(false);
    }
    let asked_at = Instant::now();
    let answers = patiently(shared.ledger.sync(&asks)).await?;
    let mut more = false;
    let under_way = asked_at..Instant::now();
    for ((sale, ask), answer) in open.into_iter().zip(&asks).zip(answers) {
        more |= learn(sale, ask.read_to, answer, under_way.clone()).await?;
    }
    Ok(more)
}

async fn learn(
    sale: &Sale,
    asked_from: u64,
    answer: Result<Synced, LedgerError>,
    under_way: Range<Instant>,
) -> Result<bool, LedgerError> {
    match answer {
        Ok(synced) => {
            if sale.gate.fence().is_some() {
                log::warn!("sale {}: the ledger was reconciled; sales resume", sale.id());
            }
            let more = sale.gate.learn_sync(asked_from, &synced, under_way);
            let is_due = synced.next_due_ms.is_some_and(|due_ms| due_ms <= synced.view.now_ms);
            Ok(more | (is_due && sweep(sale).await?))
        }
        Err(LedgerError::Changed) => {
            log::warn!("sale {}: the ledger has a new sale under this key", sale.id());
            open_again(sale).await
        }
        Err(LedgerError::Missing) => {
            if !sale.gate.is_missing() {
                log::error!("sale {}: the ledger has no {}; nothing is sold", sale.id(), sale.key);
            }
            sale.identity.store(None);
            sale.gate.learn_missing();
            Ok(false)
        }
        Err(LedgerError::Fenced(why)) => {
            if sale.gate.fence().is_none() {
                log::error!(
                    "sale {}: the ledger lost changes: {why}; nothing is sold until `spikegate sale reconcile --apply`",
                    sale.id()
                );
            }
            sale.gate.learn_fence(&why);
            Ok(false)
        }
        Err(error) => {
            set_aside(sale, &error);
            Ok(false)
        }
    }
}

/// Releases orders that were not paid in time. Every edge sweeps, because any edge may be the only one that runs;
/// concurrent sweeps are safe. Returns whether a hold ended: then the log has more to read, and more may be due.
async fn sweep(sale: &Sale) -> Result<bool, LedgerError> {
    match patiently(sale.sweep()).await {
        Ok(swept) => Ok(swept.ended > 0),
        Err(error @ (LedgerError::Unavailable(_) | LedgerError::Unknown(_))) => Err(error),
        // The next sync reports the fence.
        Err(LedgerError::Fenced(_)) => Ok(false),
        // Purchases do not depend on the sweep, and the next sync shows the state of the sale.
        Err(error) => {
            log::error!("sale {}: cannot release unpaid orders: {error}", sale.id());
            Ok(false)
        }
    }
}

/// Opens a sale that was created or recreated; returns whether its epoch changed. An error of one sale does not affect
/// the others.
async fn open_again(sale: &Sale) -> Result<bool, LedgerError> {
    let epoch = || sale.identity.load().as_ref().map(|identity| identity.epoch);
    let before = epoch();
    match patiently(sale.open(None)).await {
        Ok(()) => Ok(epoch() != before),
        Err(error @ (LedgerError::Unavailable(_) | LedgerError::Unknown(_))) => Err(error),
        Err(error) => {
            set_aside(sale, &error);
            Ok(false)
        }
    }
}

/// Drops a sale's counters until its data is valid again. Logs one line.
fn set_aside(sale: &Sale, error: &LedgerError) {
    if sale.gate.hears() {
        log::error!("sale {}: {error}", sale.id());
    }
    sale.gate.distrust();
}

async fn patiently<T>(step: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    timeout(PATIENCE, step)
        .await
        .unwrap_or_else(|_| Err(LedgerError::Unavailable(format!("no answer within {PATIENCE:?}"))))
}
