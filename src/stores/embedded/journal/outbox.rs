//! The delivery tables of the file.

use rusqlite::{Row, params};

use super::{Journal, JournalError, Result, number};
use crate::ledger::{EventId, Record, Recorded, RefusedEvent, SET_ASIDE_MAX, SetAside, brief};

impl Journal {
    /// The entry up to which a sale's log was delivered.
    pub(in super::super) fn delivered(&self, sale: i64) -> Result<u64> {
        let mut query =
            self.store.prepare_cached("SELECT COALESCE((SELECT delivered FROM delivery WHERE sale = ?1), 0)")?;
        natural(query.query_row([sale], |row| row.get(0))?)
    }

    /// Number of events that are set aside.
    pub(in super::super) fn set_aside_count(&self, sale: i64) -> Result<u64> {
        let mut query = self.store.prepare_cached("SELECT COUNT(*) FROM set_aside WHERE sale = ?1")?;
        natural(query.query_row([sale], |row| row.get(0))?)
    }

    /// The events that are set aside, in the order of the log.
    pub(in super::super) fn set_aside(&self, sale: i64) -> Result<Vec<SetAside>> {
        let mut query = self.store.prepare_cached(
            "SELECT seq, part, order_id, why, at_ms, again FROM set_aside WHERE sale = ?1 ORDER BY seq, part",
        )?;
        let mut rows = query.query([sale])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(set_aside(row)?);
        }
        Ok(all)
    }

    /// Records the result of posted events.
    pub(in super::super) fn record(&mut self, sale: i64, record: &Record, now_ms: u64) -> Result<Recorded> {
        // A cursor that a power cut undoes only means a repeated delivery. It is therefore not synced, and purchases do
        // not wait for it.
        let is_cursor_alone = record.refused.is_none() && record.settled.is_empty();
        if !is_cursor_alone {
            return self.write_record(sale, record, now_ms);
        }
        self.store.pragma_update(None, "synchronous", "NORMAL")?;
        let recorded = self.write_record(sale, record, now_ms);
        self.store.pragma_update(None, "synchronous", "FULL")?;
        recorded
    }

    fn write_record(&mut self, sale: i64, record: &Record, now_ms: u64) -> Result<Recorded> {
        let transaction = self.store.transaction()?;
        if let Some(RefusedEvent { event, order, why }) = &record.refused {
            transaction
                .prepare_cached(
                    "INSERT INTO set_aside (sale, seq, part, again, at_ms, order_id, why)
                     VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET again = 0, at_ms = excluded.at_ms, why = excluded.why",
                )?
                .execute(params![
                    sale,
                    number(event.seq),
                    event.part,
                    number(now_ms),
                    order.map(|order| order.to_string()),
                    brief(why)
                ])?;
            let count: i64 = transaction
                .prepare_cached("SELECT COUNT(*) FROM set_aside WHERE sale = ?1")?
                .query_row([sale], |row| row.get(0))?;
            if natural(count)? > SET_ASIDE_MAX as u64 {
                // What is dropped is undone.
                return Ok(Recorded::Full);
            }
        }
        for event in &record.settled {
            transaction
                .prepare_cached("DELETE FROM set_aside WHERE sale = ?1 AND seq = ?2 AND part = ?3 AND again")?
                .execute(params![sale, number(event.seq), event.part])?;
        }
        transaction
            .prepare_cached(
                "INSERT INTO delivery (sale, delivered) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET delivered = MAX(delivered, excluded.delivered)",
            )?
            .execute(params![sale, number(record.delivered)])?;
        transaction.commit()?;
        Ok(Recorded::Done)
    }

    /// Marks all set-aside events for a retry; returns their number.
    pub(in super::super) fn retry(&mut self, sale: i64) -> Result<u64> {
        let count = self.store.execute("UPDATE set_aside SET again = 1 WHERE sale = ?1", [sale])?;
        Ok(count as u64)
    }
}

fn set_aside(row: &Row<'_>) -> Result<SetAside> {
    let event = EventId { seq: natural(row.get(0)?)?, part: row.get(1)? };
    let damaged = || JournalError::Damaged(format!("event {}/{} is set aside for no order", event.seq, event.part));
    let order = match row.get::<_, Option<String>>(2)? {
        Some(text) => Some(text.parse().map_err(|_| damaged())?),
        None => None,
    };
    Ok(SetAside {
        refused: RefusedEvent { event, order, why: row.get(3)? },
        at_ms: natural(row.get(4)?)?,
        again: row.get(5)?,
    })
}

fn natural(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| JournalError::Damaged("a number of the delivery is below 0".into()))
}
