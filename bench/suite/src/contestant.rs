//! The servers that are compared.

use std::fmt::{Display, Formatter, Result};

/// One way to do the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// Spikegate, its ledger in Redis.
    Redis,
    /// The same, with a Redis that syncs to disk before every answer.
    RedisSynced,
    /// Spikegate, its ledger embedded.
    Embedded,
    /// nginx that always returns "sold out".
    Return,
    /// nginx that sells through Redis in Lua.
    Lua,
    /// nginx in front of backends.
    Proxy,
    /// The bare epoll loop.
    Floor,
    /// The bare epoll loop, a connection for each answer.
    FloorClosing,
}

impl Contestant {
    pub fn is_spikegate(self) -> bool {
        matches!(self, Self::Redis | Self::RedisSynced | Self::Embedded)
    }

    pub fn is_nginx(self) -> bool {
        matches!(self, Self::Return | Self::Lua | Self::Proxy)
    }

    pub fn has_redis(self) -> bool {
        matches!(self, Self::Redis | Self::RedisSynced | Self::Lua)
    }

    /// Whether it counts tickets at all.
    pub fn sells(self) -> bool {
        self.is_spikegate() || self == Self::Lua
    }

    pub fn proxies(self) -> bool {
        self.is_spikegate() || self == Self::Proxy
    }

    /// Its file in bench/conf.
    pub fn configuration(self) -> &'static str {
        match self {
            Self::Redis | Self::RedisSynced => "spikegate-redis.yaml",
            Self::Embedded => "spikegate-embedded.yaml",
            Self::Return => "nginx-return.conf",
            Self::Lua => "nginx-lua.conf",
            Self::Proxy => "nginx-proxy.conf",
            Self::Floor | Self::FloorClosing => "",
        }
    }
}

impl Display for Contestant {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str(match self {
            Self::Redis => "Spikegate, Redis",
            Self::RedisSynced => "Spikegate, Redis, fsync before every answer",
            Self::Embedded => "Spikegate, embedded",
            Self::Return => "nginx `return`",
            Self::Lua => "nginx + Lua, Redis",
            Self::Proxy => "nginx, upstream keepalive",
            Self::Floor | Self::FloorClosing => "bare epoll loop",
        })
    }
}
