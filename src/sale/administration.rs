//! Operations on a sale and its orders other than purchases: by operators, by the order service and by clients that
//! read an order.

use super::Sale;
use crate::ledger::{Cancelled, Confirmed, LedgerError, LogEntry, Order, OrderId, PaymentId, SaleState, Swept, View};

/// Maximum concurrent reads of single orders per sale. The edge refuses more: reads must not delay purchases.
pub(super) const ORDER_READS_MAX: usize = 256;

impl Sale {
    /// Reads an order for a public client; `None` at [`ORDER_READS_MAX`].
    pub async fn order_for_anyone(&self, id: OrderId) -> Option<Result<Option<Order>, LedgerError>> {
        let _turn = self.order_reads.try_acquire().ok()?;
        Some(self.order(id).await)
    }

    /// Reads one log entry; `None` if the log has no entry with this number.
    ///
    /// # Errors
    /// Those of [`Ledger::log`](crate::ledger::Ledger::log).
    pub async fn log_entry(&self, seq: u64) -> Result<Option<LogEntry>, LedgerError> {
        let entries = self.shared.ledger.log(&self.key, seq.saturating_sub(1), 1).await?;
        Ok(entries.into_iter().next().filter(|entry| entry.seq == seq))
    }

    /// See [`Ledger::order`](crate::ledger::Ledger::order).
    ///
    /// # Errors
    /// Those of [`Ledger::order`](crate::ledger::Ledger::order).
    pub async fn order(&self, id: OrderId) -> Result<Option<Order>, LedgerError> {
        self.shared.ledger.order(&self.key, id).await
    }

    /// See [`Ledger::snapshot`](crate::ledger::Ledger::snapshot).
    ///
    /// # Errors
    /// Those of [`Ledger::snapshot`](crate::ledger::Ledger::snapshot).
    pub async fn snapshot(&self) -> Result<View, LedgerError> {
        self.shared.ledger.snapshot(&self.key, &self.terms()).await
    }

    /// See [`Ledger::confirm`](crate::ledger::Ledger::confirm).
    ///
    /// # Errors
    /// Those of [`Ledger::confirm`](crate::ledger::Ledger::confirm).
    pub async fn confirm(&self, order: OrderId, payment: &PaymentId) -> Result<Confirmed, LedgerError> {
        let confirmed = self.shared.ledger.confirm(&self.key, &self.terms(), order, payment).await;
        self.shared.sync_now.notify_one();
        confirmed
    }

    /// See [`Ledger::cancel`](crate::ledger::Ledger::cancel).
    ///
    /// # Errors
    /// Those of [`Ledger::cancel`](crate::ledger::Ledger::cancel).
    pub async fn cancel(&self, order: OrderId) -> Result<Cancelled, LedgerError> {
        let cancelled = self.shared.ledger.cancel(&self.key, order).await;
        // Sell the released tickets immediately, not after the next scheduled sync.
        self.shared.sync_now.notify_one();
        cancelled
    }

    /// Releases orders whose hold has ended, as many as one step may; see
    /// [`Ledger::sweep`](crate::ledger::Ledger::sweep).
    ///
    /// # Errors
    /// Those of [`Ledger::sweep`](crate::ledger::Ledger::sweep), and [`LedgerError::Missing`] until the sale is opened.
    pub async fn sweep(&self) -> Result<Swept, LedgerError> {
        let Some(identity) = self.identity.load_full() else { return Err(LedgerError::Missing) };
        let swept = self.shared.ledger.sweep(&self.key, identity.epoch).await?;
        self.metrics.expired.add(swept.released as u64);
        Ok(swept)
    }

    /// Opens, pauses or closes the sale.
    ///
    /// # Errors
    /// Those of [`Ledger::set_state`](crate::ledger::Ledger::set_state).
    pub async fn set_state(&self, state: SaleState) -> Result<View, LedgerError> {
        self.shared.ledger.set_state(&self.key, state).await?;
        self.after_change().await
    }

    /// Adds tickets, or removes unsold ones.
    ///
    /// # Errors
    /// Those of [`Ledger::add_stock`](crate::ledger::Ledger::add_stock).
    pub async fn add_stock(&self, change_id: &str, delta: i64) -> Result<View, LedgerError> {
        self.shared.ledger.add_stock(&self.key, change_id, delta).await?;
        self.after_change().await
    }

    /// Syncs immediately: the gate needs the change before the next scheduled sync.
    async fn after_change(&self) -> Result<View, LedgerError> {
        self.shared.sync_now.notify_one();
        // The change was made. Any other error would make the operator repeat it.
        self.snapshot().await.map_err(|error| LedgerError::Unknown(format!("the change was made, but: {error}")))
    }
}
