//! The names of a sale's keys. All of one sale live in one slot of a Redis Cluster.

/// The keys of one sale, named after its stock hash.
pub(super) struct Keys<'a> {
    hash: &'a str,
    /// The stock hash's name with a hash tag in it.
    tagged: String,
}

impl<'a> Keys<'a> {
    /// `hash` is the stock hash's name. If it has a hash tag, the other keys use it; otherwise the whole name becomes
    /// their hash tag.
    pub(super) fn of(hash: &'a str) -> Self {
        let tagged = if has_hash_tag(hash) { hash.to_owned() } else { format!("{{{hash}}}") };
        Self { hash, tagged }
    }

    pub(super) fn hash(&self) -> &str {
        self.hash
    }

    /// Order id -> its record; described in `lua/sale.lua` like all of these.
    pub(super) fn orders(&self) -> String {
        self.named("orders")
    }

    /// The orders of each step, scored by the end of their hold in ms.
    pub(super) fn due(&self) -> String {
        self.named("due")
    }

    /// Buyer -> tickets and unpaid orders.
    pub(super) fn buyers(&self) -> String {
        self.named("buyers")
    }

    /// One entry per change, numbered 1-0, 2-0, 3-0, ...
    pub(super) fn log(&self) -> String {
        self.named("log")
    }

    /// Change id -> delta.
    pub(super) fn changes(&self) -> String {
        self.named("changes")
    }

    /// Keys of the outbox: the lease, the events set aside, and those of them to retry. Each sale of a name has its own
    /// keys, so that nothing of an earlier sale is lost or mixed up.
    pub(super) fn outbox(&self, epoch: u64) -> [String; 3] {
        ["", ":aside", ":again"].map(|part| self.named(&format!("delivery:{epoch:016x}{part}")))
    }

    /// New names for what an earlier sale left in `orders`, `due`, `buyers`, `log` and `changes`, in this order.
    /// `epoch` is that of the new sale, so the names never collide.
    pub(super) fn put_away(&self, epoch: u64) -> [String; 5] {
        [self.orders(), self.due(), self.buyers(), self.log(), self.changes()]
            .map(|key| format!("{key}:before:{epoch:016x}"))
    }

    fn named(&self, part: &str) -> String {
        format!("{}:{part}", self.tagged)
    }
}

/// Whether Redis Cluster hashes only a part of the name (cluster specification, "Hash tags"): the part between the
/// first `{` and the next `}`, if it is not empty.
fn has_hash_tag(name: &str) -> bool {
    name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).is_some_and(|(tag, _)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn the_other_keys_share_the_slot_of_the_stock_hash() {
        assert_eq!(Keys::of("ticket_hash_key").orders(), "{ticket_hash_key}:orders");
        assert_eq!(Keys::of("{event}:ticket").orders(), "{event}:ticket:orders");
        // An empty hash tag is none: Redis hashes the whole name.
        assert_eq!(Keys::of("plain").put_away(10)[3], "{plain}:log:before:000000000000000a");
    }
}
