//! Invariants of every log in the file, whatever its records contain.

use super::*;
use crate::ledger::model::SaleModel;

/// Each line is a record. It is damage or an entry, which is written as it was read and can be applied. `each_entry`
/// gets every entry.
pub fn check(bytes: &[u8], each_entry: impl Fn(&LogEntry)) {
    let mut sale = SaleModel::new(1);
    for record in bytes.split(|byte| *byte == b'\n') {
        let Ok(text) = std::str::from_utf8(record) else { return };
        let seq = number(sale.version() + 1);
        let Ok(entry) = parse_entry(seq, text) else { return };
        let written = json(&entry).expect("what was read can be written");
        assert_eq!(parse_entry(seq, &written).as_ref().ok(), Some(&entry), "{written}");
        each_entry(&entry);
        sale.apply(&entry);
    }
}
