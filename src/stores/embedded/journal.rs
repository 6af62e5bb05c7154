//! The log of every sale in one SQLite file, and how far it was delivered. The state of a sale follows from its log.
//!
//! SQLite was chosen by measurement (`bench/stores`): it is fast enough at every batch size, opens at once after a
//! kill, uses the least memory and survives a full disk. `synchronous=FULL` in WAL mode costs one sync per commit.

mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod outbox;

use std::path::Path;

use rusqlite::{Connection, ErrorCode, params};

use crate::ledger::{Identity, LogEntry};

/// Faults of the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("{0} is in use by another edge")]
    InUse(String),
    #[error(transparent)]
    Store(#[from] rusqlite::Error),
    #[error("{0}")]
    Damaged(String),
}

type Result<T> = std::result::Result<T, JournalError>;

pub(super) struct Journal {
    store: Connection,
}

impl Journal {
    /// Opens the file, or creates it, for this process alone.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::open_store(path).map_err(|error| match error {
            JournalError::Store(rusqlite::Error::SqliteFailure(cause, _)) if cause.code == ErrorCode::DatabaseBusy => {
                JournalError::InUse(path.display().to_string())
            }
            other => other,
        })
    }

    fn open_store(path: &Path) -> Result<Self> {
        let mut store = Connection::open(path)?;
        store.busy_timeout(std::time::Duration::ZERO)?;
        // Two edges on one folder would each sell all of it, so the file stays locked.
        store.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        store.pragma_update(None, "journal_mode", "WAL")?;
        store.pragma_update(None, "synchronous", "FULL")?;
        let setup = store.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
        format::set_up(&setup).map_err(|error| match error {
            JournalError::Damaged(why) => JournalError::Damaged(format!("{}: {why}", path.display())),
            other => other,
        })?;
        setup.commit()?;
        Ok(Self { store })
    }

    /// Every sale: number, name and identity.
    pub(super) fn sales(&self) -> Result<Vec<(i64, String, Identity)>> {
        let mut query = self.store.prepare("SELECT number, name, identity FROM sale ORDER BY number")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
        rows.map(|row| {
            let (number, name, identity) = row?;
            let identity = serde_json::from_str(&identity)
                .map_err(|error| JournalError::Damaged(format!("the identity of sale {name}: {error}")))?;
            Ok((number, name, identity))
        })
        .collect()
    }

    /// Adds a sale with its first entry, durably; returns its number.
    pub(super) fn begin(&mut self, name: &str, identity: &Identity, opened: &LogEntry) -> Result<i64> {
        let transaction = self.store.transaction()?;
        transaction.execute("INSERT INTO sale (name, identity) VALUES (?1, ?2)", params![name, json(identity)?])?;
        let number = transaction.last_insert_rowid();
        insert(&transaction, number, opened)?;
        transaction.commit()?;
        Ok(number)
    }

    /// Adds an entry, durably. After an error its outcome is unknown.
    pub(super) fn append(&mut self, sale: i64, entry: &LogEntry) -> Result<()> {
        insert(&self.store, sale, entry)
    }

    /// The number of a sale's newest entry; 0 if it has none.
    pub(super) fn last(&self, sale: i64) -> Result<u64> {
        let last: i64 =
            self.store.query_row("SELECT COALESCE(MAX(seq), 0) FROM log WHERE sale = ?1", [sale], |row| row.get(0))?;
        u64::try_from(last).map_err(|_| JournalError::Damaged("a log entry has a number below 0".into()))
    }

    /// Passes on every entry of a sale, oldest first, and checks that none is missing.
    pub(super) fn replay(&self, sale: i64, mut each: impl FnMut(LogEntry)) -> Result<()> {
        let mut query = self.store.prepare("SELECT seq, entry FROM log WHERE sale = ?1 ORDER BY seq")?;
        let mut rows = query.query([sale])?;
        let mut expected = 1;
        while let Some(row) = rows.next()? {
            let entry = parse(row)?;
            if entry.seq != expected {
                return Err(JournalError::Damaged(format!("log entry {expected} of sale number {sale} is missing")));
            }
            expected += 1;
            each(entry);
        }
        Ok(())
    }

    /// Passes on entries after `after`, oldest first, up to `entries_max` entries or `lines_max` lines together.
    pub(super) fn read(&self, sale: i64, after: u64, entries_max: usize, lines_max: usize) -> Result<Vec<LogEntry>> {
        let mut query = self
            .store
            .prepare_cached("SELECT seq, entry FROM log WHERE sale = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")?;
        let mut rows = query.query(params![sale, number(after), number(entries_max as u64)])?;
        let (mut entries, mut lines) = (Vec::new(), 0);
        while lines < lines_max
            && let Some(row) = rows.next()?
        {
            let entry = parse(row)?;
            lines += entry.lines();
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn insert(store: &Connection, sale: i64, entry: &LogEntry) -> Result<()> {
    let mut insert = store.prepare_cached("INSERT INTO log (sale, seq, entry) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![sale, number(entry.seq), json(entry)?])?;
    Ok(())
}

fn parse(row: &rusqlite::Row) -> Result<LogEntry> {
    let seq: i64 = row.get(0)?;
    let text = row.get_ref(1)?.as_str().map_err(|error| JournalError::Damaged(error.to_string()))?;
    parse_entry(seq, text)
}

/// The entry of this number, from its record.
fn parse_entry(seq: i64, text: &str) -> Result<LogEntry> {
    let entry: LogEntry =
        serde_json::from_str(text).map_err(|error| JournalError::Damaged(format!("log entry {seq}: {error}")))?;
    if number(entry.seq) != seq {
        return Err(JournalError::Damaged(format!("log entry {seq} says that it is {}", entry.seq)));
    }
    Ok(entry)
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| JournalError::Damaged(error.to_string()))
}

/// SQLite counts with a sign; no log comes near 2^63 entries.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
