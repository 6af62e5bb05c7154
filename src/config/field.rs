//! What can be written down of a request, under the names that the configuration knows.

/// A member of a JSON line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// When it was answered: RFC 3339 in UTC, with milliseconds.
    Time,
    /// Who asked: the address that `trusted_proxies` tell, or the connection's.
    Client,
    /// The other end of the connection, as a PROXY header says it.
    Peer,
    /// As sent.
    Method,
    /// The target without its query.
    Path,
    /// What stands behind the `?`, as sent. It may hold secrets.
    Query,
    /// Path and query.
    Target,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    Protocol,
    /// As sent.
    Host,
    /// As sent.
    Referer,
    /// As sent.
    UserAgent,
    /// The version of TLS.
    Tls,
    /// 499 if the client left before it was answered, as in Nginx.
    Status,
    /// Of the answer's body, as the client took it.
    Bytes,
    /// From its whole head to the end of its answer, in seconds. A refusal from memory whose time was not taken has 0.
    Duration,
    /// Its id, if `request_id` gives it one.
    RequestId,
    /// The path prefix of its route.
    Route,
    /// The group of backends.
    Upstream,
    /// The backend that answered, or the last one that was tried.
    Backend,
    /// How long that one took, to the end of its answer, in seconds.
    BackendDuration,
    /// How many backends were tried.
    Tries,
    /// The sale's id, of a purchase and of whatever asks about a sale.
    Sale,
    /// How a purchase ended: a label of `spikegate_purchases_total`. `limited` and `denied` of any request.
    Outcome,
    /// The order that was made, or may have been.
    OrderId,
}

impl Field {
    /// All of them, as documents list them.
    pub const ALL: [Self; 24] = [
        Self::Time,
        Self::Client,
        Self::Peer,
        Self::Method,
        Self::Path,
        Self::Query,
        Self::Target,
        Self::Protocol,
        Self::Host,
        Self::Referer,
        Self::UserAgent,
        Self::Tls,
        Self::Status,
        Self::Bytes,
        Self::Duration,
        Self::RequestId,
        Self::Route,
        Self::Upstream,
        Self::Backend,
        Self::BackendDuration,
        Self::Tries,
        Self::Sale,
        Self::Outcome,
        Self::OrderId,
    ];

    /// Those that are written unless the configuration names others: none that may hold a secret.
    pub const USUAL: [Self; 13] = [
        Self::Time,
        Self::Client,
        Self::Method,
        Self::Path,
        Self::Status,
        Self::Bytes,
        Self::Duration,
        Self::RequestId,
        Self::Upstream,
        Self::Backend,
        Self::Sale,
        Self::Outcome,
        Self::OrderId,
    ];

    /// In the configuration, and in a line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Method => "method",
            Self::Path => "path",
            Self::Query => "query",
            Self::Target => "target",
            Self::Protocol => "protocol",
            Self::Host => "host",
            Self::Referer => "referer",
            Self::UserAgent => "user_agent",
            Self::Tls => "tls",
            Self::Status => "status",
            Self::Bytes => "bytes",
            Self::Duration => "duration",
            Self::RequestId => "request_id",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Backend => "backend",
            Self::BackendDuration => "backend_duration",
            Self::Tries => "tries",
            Self::Sale => "sale",
            Self::Outcome => "outcome",
            Self::OrderId => "order_id",
        }
    }
}
