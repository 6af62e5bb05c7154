//! The tables of the file, and the migration of older formats.

use rusqlite::{OptionalExtension, Transaction};

use super::{JournalError, Result};

/// The format number in SQLite's `user_version`; a file with a later one is not touched.
const FORMAT: i64 = 3;

const LOG: &str = "
    CREATE TABLE sale (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, identity TEXT NOT NULL);
    CREATE TABLE log (sale INTEGER NOT NULL, seq INTEGER NOT NULL, entry TEXT NOT NULL,
                      PRIMARY KEY (sale, seq)) WITHOUT ROWID;";

/// `delivered` is the entry up to which a sale's log was delivered; `order_id` is null if an event is of no order.
const OUTBOX: &str = "
    CREATE TABLE delivery (sale INTEGER PRIMARY KEY, delivered INTEGER NOT NULL);
    CREATE TABLE set_aside (sale INTEGER NOT NULL, seq INTEGER NOT NULL, part INTEGER NOT NULL, again INTEGER NOT NULL,
                            at_ms INTEGER NOT NULL, order_id TEXT, why TEXT NOT NULL,
                            PRIMARY KEY (sale, seq, part)) WITHOUT ROWID;";

/// Format 1 had an entry for each order that was made; since then an entry lists all orders of one step.
const HELD_AS_LISTS: &str = "
    UPDATE log SET entry = json_object(
        'seq', entry ->> '$.seq', 'at_ms', entry ->> '$.at_ms', 'kind', 'held',
        'expires_at_ms', entry ->> '$.expires_at_ms',
        'orders', json_array(json_remove(entry, '$.seq', '$.at_ms', '$.kind', '$.expires_at_ms')))
    WHERE entry ->> '$.kind' = 'held';";

/// Creates the tables of a new file or migrates an older one, completely or not at all.
pub(super) fn set_up(setup: &Transaction<'_>) -> Result<()> {
    let format = setup.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    match format {
        0 => {
            refuse_strange_file(setup)?;
            setup.execute_batch(LOG)?;
            setup.execute_batch(OUTBOX)?;
        }
        1 => {
            setup.execute_batch(HELD_AS_LISTS)?;
            setup.execute_batch(OUTBOX)?;
        }
        2 => setup.execute_batch(OUTBOX)?,
        FORMAT => return Ok(()),
        later => return Err(JournalError::Damaged(format!("the file has format {later}, later than {FORMAT}"))),
    }
    setup.pragma_update(None, "user_version", FORMAT)?;
    Ok(())
}

fn refuse_strange_file(setup: &Transaction<'_>) -> Result<()> {
    let strange: Option<String> =
        setup.query_row("SELECT name FROM sqlite_master LIMIT 1", [], |row| row.get(0)).optional()?;
    match strange {
        Some(table) => Err(JournalError::Damaged(format!("the file is somebody else's: it has a table {table}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::Journal;
    use super::*;
    use crate::ledger::{Change, LogEntry, OrderId, OrderLine};

    /// Every kind of entry that format 1 had.
    const FORMAT_1: &str = r#"
        INSERT INTO sale VALUES (1, 'ticket', '{"epoch":7,"secret":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}');
        INSERT INTO log VALUES (1, 1, '{"seq":1,"at_ms":10,"kind":"opened","total":5,"sold":0}');
        INSERT INTO log VALUES (1, 2, '{"seq":2,"at_ms":20,"kind":"held","order":"01010101010101010101010101010101","quantity":2,"buyer":"ann \"a\"","expires_at_ms":99}');
        INSERT INTO log VALUES (1, 3, '{"seq":3,"at_ms":30,"kind":"held","order":"02020202020202020202020202020202","quantity":1,"expires_at_ms":98}');
        INSERT INTO log VALUES (1, 4, '{"seq":4,"at_ms":40,"kind":"state","state":"paused"}');
        PRAGMA user_version = 1;"#;

    #[test]
    fn a_file_of_format_1_keeps_its_sales() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.db");
        let old = Connection::open(&path).expect("a new file");
        old.execute_batch(LOG).expect("the tables of format 1");
        old.execute_batch(FORMAT_1).expect("its rows");
        drop(old);
        for _ in 0..2 {
            let journal = Journal::open(&path).expect("it is brought up to date, once");
            let (number, name, identity) = journal.sales().expect("readable").remove(0);
            assert_eq!((number, name.as_str(), identity.epoch), (1, "ticket", 7));
            let mut entries: Vec<LogEntry> = Vec::new();
            journal.replay(1, |entry| entries.push(entry)).expect("no entry is missing");
            let line = |id, quantity, buyer: Option<&str>| OrderLine {
                order: OrderId([id; 16]),
                quantity,
                buyer: buyer.map(Into::into),
            };
            assert_eq!(entries.len(), 4);
            assert_eq!((entries[1].seq, entries[1].at_ms), (2, 20));
            let first = Change::Held { expires_at_ms: 99, orders: vec![line(1, 2, Some("ann \"a\""))] };
            assert_eq!(entries[1].change, first);
            assert_eq!(entries[2].change, Change::Held { expires_at_ms: 98, orders: vec![line(2, 1, None)] });
            assert_eq!(journal.delivered(1).expect("readable"), 0, "nothing of it was delivered");
        }
    }

    #[test]
    fn a_file_of_a_later_format_or_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, setup, expected) in [
            ("later", "PRAGMA user_version = 4", "the file has format 4, later than 3"),
            ("strange", "CREATE TABLE notes (text)", "the file is somebody else's: it has a table notes"),
        ] {
            let path = folder.path().join(name);
            Connection::open(&path).expect("a new file").execute_batch(setup).expect("it is made");
            let error = Journal::open(&path).map(drop).expect_err("it is refused").to_string();
            assert_eq!(error, format!("{}: {expected}", path.display()));
        }
    }
}
