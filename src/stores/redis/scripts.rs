//! The scripts of `lua/` and how to call them.

use std::sync::LazyLock;

use ::redis::aio::ConnectionLike;
use ::redis::{Cmd, RedisResult, Script, ToSingleRedisArg, cmd};

use crate::ledger::Terms;

/// Every script, with the common head.
pub(super) struct Scripts {
    pub(super) open: Script,
    pub(super) reserve: Script,
    pub(super) sync: Script,
    pub(super) state: Script,
    pub(super) stock: Script,
    pub(super) confirm: Script,
    pub(super) cancel: Script,
    pub(super) sweep: Script,
    pub(super) authorize: Script,
    pub(super) fence: Script,
    pub(super) restore: Script,
    pub(super) recount: Script,
    pub(super) lift: Script,
    pub(super) outbox_take: Script,
    pub(super) outbox_record: Script,
    pub(super) outbox_release: Script,
    pub(super) outbox_retry: Script,
    pub(super) outbox_status: Script,
    sources: [&'static str; 18],
}

macro_rules! with_head {
    ($file:literal) => {
        concat!(include_str!("../../../lua/sale.lua"), include_str!(concat!("../../../lua/", $file)))
    };
}

macro_rules! with_heads {
    ($file:literal) => {
        concat!(
            include_str!("../../../lua/sale.lua"),
            include_str!("../../../lua/outbox.lua"),
            include_str!(concat!("../../../lua/", $file))
        )
    };
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let sources = [
        with_head!("open.lua"),
        with_head!("reserve.lua"),
        with_head!("sync.lua"),
        with_head!("state.lua"),
        with_head!("stock.lua"),
        with_head!("confirm.lua"),
        with_head!("cancel.lua"),
        with_head!("sweep.lua"),
        with_head!("authorize.lua"),
        with_head!("fence.lua"),
        with_head!("restore.lua"),
        with_head!("recount.lua"),
        with_head!("lift.lua"),
        with_heads!("outbox_take.lua"),
        with_heads!("outbox_record.lua"),
        with_heads!("outbox_release.lua"),
        with_heads!("outbox_retry.lua"),
        with_heads!("outbox_status.lua"),
    ];
    let [
        open,
        reserve,
        sync,
        state,
        stock,
        confirm,
        cancel,
        sweep,
        authorize,
        fence,
        restore,
        recount,
        lift,
        outbox_take,
        outbox_record,
        outbox_release,
        outbox_retry,
        outbox_status,
    ] = sources.map(Script::new);
    Scripts {
        open,
        reserve,
        sync,
        state,
        stock,
        confirm,
        cancel,
        sweep,
        authorize,
        fence,
        restore,
        recount,
        lift,
        outbox_take,
        outbox_record,
        outbox_release,
        outbox_retry,
        outbox_status,
        sources,
    }
});

/// Loads all scripts into this Redis, in one round trip.
pub(super) async fn load_all<C: ConnectionLike + Send>(connection: &mut C) -> RedisResult<()> {
    let mut pipeline = ::redis::pipe();
    for source in SCRIPTS.sources {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(source).ignore();
    }
    pipeline.query_async(connection).await
}

/// A call of a script, serialized as it is sent: keys first, then arguments.
pub(super) struct Call {
    command: Cmd,
}

impl Call {
    pub(super) fn new(script: &Script, keys: &[&str]) -> Self {
        let mut command = cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len()).arg(keys);
        Self { command }
    }

    pub(super) fn arg(mut self, value: impl ToSingleRedisArg) -> Self {
        self.command.arg(value);
        self
    }

    /// The edge's rules, in the order in which the head of every script reads them.
    pub(super) fn terms(self, terms: &Terms) -> Self {
        let time = |ms: Option<u64>| ms.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
        self.arg(terms.hold_ms)
            .arg(terms.per_buyer)
            .arg(terms.unpaid_per_buyer)
            .arg(time(terms.opens_at_ms))
            .arg(time(terms.closes_at_ms))
    }

    pub(super) fn command(self) -> Cmd {
        self.command
    }
}
