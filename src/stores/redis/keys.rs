//! The names of a sale's keys. All of one sale live in one slot of a Redis Cluster.

/// The keys of one sale, named after its stock hash.
pub(super) struct Keys<'a> {
    hash: &'a str,
    /// The stock hash's name with a hash tag in it.
    tagged: String,
}

impl<'a> Keys<'a> {
    /// `hash` is the stock hash's name. If it has a hash tag of its own, the other keys keep it; else it becomes
    /// theirs.
    pub(super) fn of(hash: &'a str) -> Self {
        let tagged = if has_hash_tag(hash) { hash.to_owned() } else { format!("{{{hash}}}") };
        Self { hash, tagged }
    }

    pub(super) fn hash(&self) -> &str {
        self.hash
    }

    /// Order id -> its record; like all of these, described in `lua/sale.lua`.
    pub(super) fn orders(&self) -> String {
        self.named("orders")
    }

    /// The orders of each step, scored by the end of their hold in ms.
    pub(super) fn due(&self) -> String {
        self.named("due")
    }

    /// Buyer -> what the buyer has.
    pub(super) fn buyers(&self) -> String {
        self.named("buyers")
    }

    /// One entry a change, numbered 1-0, 2-0, 3-0, ...
    pub(super) fn log(&self) -> String {
        self.named("log")
    }

    /// Change id -> delta.
    pub(super) fn changes(&self) -> String {
        self.named("changes")
    }

    /// The outbox's own: who delivers, what is set aside, what of it is to be tried again. Each sale of the name has
    /// keys of its own, so that nothing of an earlier one is lost or taken for its own.
    pub(super) fn outbox(&self, epoch: u64) -> [String; 3] {
        ["", ":aside", ":again"].map(|part| self.named(&format!("delivery:{epoch:016x}{part}")))
    }

    /// Names for what an earlier sale left in `orders`, `due`, `buyers`, `log` and `changes`, in this order.
    /// `epoch` is that of the sale that takes their place, so that no two ever collide.
    pub(super) fn put_away(&self, epoch: u64) -> [String; 5] {
        [self.orders(), self.due(), self.buyers(), self.log(), self.changes()]
            .map(|key| format!("{key}:before:{epoch:016x}"))
    }

    fn named(&self, part: &str) -> String {
        format!("{}:{part}", self.tagged)
    }
}

/// Whether Redis Cluster hashes only a part of the name (cluster specification, "Hash tags"): what stands between the
/// first `{` and the first `}` behind it, if that is not empty.
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
        // An empty tag is none: Redis hashes the whole name, and `{}` inside ours would not help.
        assert_eq!(Keys::of("plain").put_away(10)[3], "{plain}:log:before:000000000000000a");
    }
}
