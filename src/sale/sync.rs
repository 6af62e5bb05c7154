//! Keeps the gates true: reads every sale's counters and log from the ledger, all in one round trip, again and again.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Sale, Shared};
use crate::ledger::{LedgerError, SYNC_ENTRIES_MAX, SyncAsk, Synced};

/// The longest that one round trip may take before the gates drop what they know. The Redis connection has a shorter
/// limit of its own; this one is for a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads on for as long as the process lives: every `interval`, at once when asked to, and at once when a log has more.
pub async fn run(sales: Vec<Arc<Sale>>, shared: Arc<Shared>, interval: Duration) {
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
                // One line an outage, not ten a second.
                if reachable {
                    log::error!("{error}; purchases are answered with 503 until it is back");
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

/// Reads all there is, so that an edge knows its sales before its first client comes.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn catch_up(sales: &[Arc<Sale>], shared: &Shared) -> Result<(), LedgerError> {
    while round(sales, shared).await? {}
    Ok(())
}

/// One round trip for all sales that were opened, one more for each that was not; says whether a log has more to read.
async fn round(sales: &[Arc<Sale>], shared: &Shared) -> Result<bool, LedgerError> {
    let mut open = Vec::with_capacity(sales.len());
    let mut asks = Vec::with_capacity(sales.len());
    for sale in sales {
        match sale.identity.load().as_ref() {
            Some(identity) => {
                open.push(sale);
                asks.push(SyncAsk {
                    sale: sale.settings.key.as_str().into(),
                    epoch: identity.epoch,
                    terms: sale.terms,
                    read_to: sale.gate.read_to(),
                });
            }
            // It may have been made since; then the next round reads it.
            None => patiently(sale.open(None)).await?,
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
            sale.gate.learn_sync(asked_from, &synced, under_way);
            Ok(synced.entries.len() >= SYNC_ENTRIES_MAX)
        }
        Err(LedgerError::Changed) => {
            log::warn!("sale {}: the ledger has a new sale of this name", sale.id());
            patiently(sale.open(None)).await?;
            Ok(true)
        }
        Err(LedgerError::Missing) => {
            if !sale.gate.is_missing() {
                log::error!("sale {}: the ledger has no {}; nothing is sold", sale.id(), sale.settings.key);
            }
            sale.identity.store(None);
            sale.gate.learn_missing();
            Ok(false)
        }
        Err(error) => {
            if sale.gate.hears() {
                log::error!("sale {}: {error}", sale.id());
            }
            sale.gate.forget();
            Ok(false)
        }
    }
}

async fn patiently<T>(step: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    timeout(PATIENCE, step).await.unwrap_or_else(|_| Err(LedgerError::Unavailable("it does not answer".into())))
}
