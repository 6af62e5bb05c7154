//! The scripts of `lua/`, and how a call of one is written.

use std::fmt::Display;
use std::sync::LazyLock;

use ::redis::aio::ConnectionLike;
use ::redis::{Cmd, RedisResult, Script, cmd};

use super::super::Terms;

/// Every script, each with the common head in front.
pub(super) struct Scripts {
    pub(super) open: Script,
    pub(super) reserve: Script,
    pub(super) sync: Script,
    pub(super) state: Script,
    pub(super) stock: Script,
    sources: [&'static str; 5],
}

macro_rules! with_head {
    ($file:literal) => {
        concat!(include_str!("../../../lua/sale.lua"), include_str!(concat!("../../../lua/", $file)))
    };
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let sources = [
        with_head!("open.lua"),
        with_head!("reserve.lua"),
        with_head!("sync.lua"),
        with_head!("state.lua"),
        with_head!("stock.lua"),
    ];
    let [open, reserve, sync, state, stock] = sources.map(Script::new);
    Scripts { open, reserve, sync, state, stock, sources }
});

/// Makes all scripts known to this Redis, in one round trip.
pub(super) async fn load_all<C: ConnectionLike + Send>(connection: &mut C) -> RedisResult<()> {
    let mut pipeline = ::redis::pipe();
    for source in SCRIPTS.sources {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(source).ignore();
    }
    pipeline.query_async(connection).await
}

/// One call of a script: keys first, then arguments.
pub(super) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    args: Vec<String>,
}

impl Call {
    pub(super) fn new(script: &'static Script) -> Self {
        Self { script, keys: Vec::new(), args: Vec::new() }
    }

    pub(super) fn keys<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.keys.extend(names.into_iter().map(str::to_owned));
        self
    }

    pub(super) fn arg(mut self, value: impl Display) -> Self {
        self.args.push(value.to_string());
        self
    }

    /// The edge's rules, as the head of every script reads them.
    pub(super) fn terms(self, terms: &Terms) -> Self {
        let time = |ms: Option<u64>| ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string());
        self.arg(terms.hold_ms).arg(terms.per_buyer).arg(time(terms.opens_at_ms)).arg(time(terms.closes_at_ms))
    }

    /// For scripts that no rule concerns.
    pub(super) fn no_terms(self) -> Self {
        self.terms(&Terms::default())
    }

    pub(super) fn command(&self) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(self.keys.len());
        for text in self.keys.iter().chain(&self.args) {
            command.arg(text.as_str());
        }
        command
    }
}
