//! What holds of every reply of Redis, whatever its bytes.

use super::super::{books, outbox};
use super::*;

/// A reply is read or is damage. What is read of orders is what we would write of them. `each_entry` gets every log
/// entry that is read.
pub fn check(bytes: &[u8], each_entry: impl Fn(&LogEntry)) {
    let Ok(value) = ::redis::parse_redis_value(bytes) else { return };
    let purchase = |id: u8| Purchase { id: OrderId([id; 16]), buyer: None, quantity: u32::from(id) };
    for batch in [&[][..], &[purchase(1)], &[purchase(1), purchase(2), purchase(3)]] {
        if let Ok(reserved) = reserved(&value, batch) {
            assert_eq!(reserved.decisions.len(), batch.len(), "{value:?}");
        }
    }
    if let Ok(identity) = identity(&value)
        && let Value::Array(parts) = &value
    {
        assert_eq!(hex(&identity.secret), text(&parts[1]).expect("it was read").to_ascii_lowercase());
    }
    if let Ok(order) = order(&value) {
        is_written_as_it_was_read(&order);
    }
    if let Ok(orders) = orders(&value) {
        orders.iter().flatten().for_each(is_written_as_it_was_read);
    }
    for entries in [entries(&value), synced(&value).map(|synced| synced.entries)].into_iter().flatten() {
        entries.iter().for_each(&each_entry);
    }
    let _ = (confirmed(&value), cancelled(&value), swept(&value), authorized(&value), holdings(&value));
    let _ = (entry_made(&value), outbox::taken(&value), outbox::status(&value));
}

fn is_written_as_it_was_read(read: &Order) {
    let record = books::record(read);
    assert_eq!(order(&Value::BulkString(record.clone().into_bytes())).as_ref(), Ok(read), "{record}");
}
