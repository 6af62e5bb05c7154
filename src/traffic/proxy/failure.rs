//! Requests that could not be served: whose fault it was, what the client is told, and what is logged.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use crate::http::request_id::RequestId;
use crate::upstream::{NoPick, Upstream};

const BACKENDS_FULL: ErrorType = ErrorType::CustomCode("all backends have max_conns requests", 503);

/// Why a request could not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection to a backend, or its answer was broken or broke off: 502.
    BadGateway,
    /// No backend of the group may be asked: 503.
    NoBackend,
    /// Every backend that may be asked has as many requests as it may have: 503.
    BackendsFull,
    /// A backend took too long: 504.
    GatewayTimeout,
    /// A fault of the edge itself: 500.
    Internal,
    /// The client's request is malformed: 400.
    BadRequest,
    /// The client took too long to send its request: 408.
    RequestTimeout,
    /// The client's body is longer than it may be: 413.
    BodyTooLarge,
    /// The client left before it was answered. Nobody is told; the log calls it 499, as Nginx does.
    ClientGone,
}

impl Failure {
    /// As an error of Pingora's, which [`Failure::of`] understands.
    pub fn error(none: NoPick) -> Box<Error> {
        Error::explain(
            match none {
                NoPick::Nobody => ErrorType::HTTPStatus(503),
                NoPick::Full => BACKENDS_FULL,
            },
            "no backend can be asked",
        )
    }

    /// What an error of Pingora's means.
    pub fn of(error: &Error) -> Self {
        use ErrorType::{
            ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError, ReadTimedout, WriteError, WriteTimedout,
        };
        match (error.esource(), error.etype()) {
            (_, HTTPStatus(503)) => Self::NoBackend,
            (_, full) if *full == BACKENDS_FULL => Self::BackendsFull,
            (_, HTTPStatus(413)) => Self::BodyTooLarge,
            (ErrorSource::Upstream, ConnectTimedout | ReadTimedout | WriteTimedout) => Self::GatewayTimeout,
            (ErrorSource::Upstream, _) => Self::BadGateway,
            (ErrorSource::Downstream, ReadTimedout) => Self::RequestTimeout,
            (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed | WriteTimedout) => Self::ClientGone,
            (ErrorSource::Downstream, _) => Self::BadRequest,
            (ErrorSource::Internal | ErrorSource::Unset, _) => Self::Internal,
        }
    }

    /// As a number, for the log and for metrics.
    pub fn code(self) -> u16 {
        match self {
            Self::BadGateway => 502,
            Self::NoBackend | Self::BackendsFull => 503,
            Self::GatewayTimeout => 504,
            Self::Internal => 500,
            Self::BadRequest => 400,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::ClientGone => 499,
        }
    }

    /// What the client is told; nothing if it is gone.
    pub fn status(self) -> Option<StatusCode> {
        (self != Self::ClientGone).then(|| StatusCode::from_u16(self.code()).ok()).flatten()
    }

    /// Whether it is ours to mend. What clients do wrong is only worth a line when looking for it.
    fn level(self) -> log::Level {
        match self {
            Self::BadGateway | Self::NoBackend | Self::BackendsFull | Self::GatewayTimeout | Self::Internal => {
                log::Level::Error
            }
            Self::BadRequest | Self::RequestTimeout | Self::BodyTooLarge | Self::ClientGone => log::Level::Debug,
        }
    }
}

/// The failures of one group: all are counted, and at most one of a kind is logged each second.
#[derive(Default)]
pub struct FailureLog {
    bad_gateway: Kind,
    no_backend: Kind,
    backends_full: Kind,
    gateway_timeout: Kind,
    internal: Kind,
    by_client: Kind,
}

/// What happens again and again: counted, and worth a line a second at most.
#[derive(Default)]
pub struct Kind {
    count: AtomicU64,
    /// When a line was last written, in seconds since 1970.
    logged_at: AtomicU64,
    /// The count at that time.
    logged: AtomicU64,
}

/// Where a request was that failed.
pub struct Place<'a> {
    /// The path prefix of its route, if it had one.
    pub route: Option<&'a str>,
    /// The group of its backends, if there was one.
    pub upstream: Option<&'a Upstream>,
    /// The backend, if one was tried.
    pub backend: Option<SocketAddr>,
    /// Its id, if it had one.
    pub id: Option<&'a RequestId>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.upstream, self.backend) {
            (Some(upstream), Some(backend)) => write!(f, "upstream {}, {backend}", upstream.settings().name),
            (Some(upstream), None) => write!(f, "upstream {}, no backend", upstream.settings().name),
            (None, _) => f.write_str("the edge itself"),
        }?;
        self.route.map_or(Ok(()), |route| write!(f, ", route {route}"))?;
        self.id.map_or(Ok(()), |id| write!(f, ", request {id}"))
    }
}

impl FailureLog {
    /// Counts a failure, and logs it unless another of its kind was logged within this second. The line has the path
    /// without its query, which may hold secrets, and where the request was.
    pub fn record(&self, failure: Failure, error: &Error, session: &Session, place: Place<'_>) {
        let level = failure.level();
        let Some(unlogged) = self.kind(failure).count(log::log_enabled!(level)) else {
            return;
        };
        let request = session.req_header();
        let others = if unlogged > 1 { format!(" ({} more since the last line)", unlogged - 1) } else { String::new() };
        log::log!(
            level,
            "{} {} {}: {place}: {}{others}",
            failure.code(),
            request.method,
            request.uri.path().escape_debug(),
            error.etype().as_str(),
        );
    }

    fn kind(&self, failure: Failure) -> &Kind {
        match failure {
            Failure::BadGateway => &self.bad_gateway,
            Failure::NoBackend => &self.no_backend,
            Failure::BackendsFull => &self.backends_full,
            Failure::GatewayTimeout => &self.gateway_timeout,
            Failure::Internal => &self.internal,
            Failure::BadRequest | Failure::RequestTimeout | Failure::BodyTooLarge | Failure::ClientGone => {
                &self.by_client
            }
        }
    }
}

impl Kind {
    /// One more. How many there were since the last line, this one included, if it is time for another line.
    pub fn count(&self, wanted: bool) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if !wanted {
            return None;
        }
        // A clock before 1970 only costs lines.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let logged_at = self.logged_at.load(Ordering::Relaxed);
        if now == logged_at {
            return None;
        }
        self.logged_at.compare_exchange(logged_at, now, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(count.saturating_sub(self.logged.swap(count, Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(source: ErrorSource, kind: ErrorType) -> Failure {
        let mut error = Error::new(kind);
        error.esource = source;
        Failure::of(&error)
    }

    #[test]
    fn faults_are_told_apart() {
        use ErrorSource::{Downstream, Internal, Upstream};
        assert_eq!(failure(Upstream, ErrorType::ConnectRefused), Failure::BadGateway);
        assert_eq!(failure(Upstream, ErrorType::ConnectionClosed), Failure::BadGateway);
        assert_eq!(failure(Upstream, ErrorType::InvalidHTTPHeader), Failure::BadGateway);
        assert_eq!(failure(Upstream, ErrorType::ConnectTimedout), Failure::GatewayTimeout);
        assert_eq!(failure(Upstream, ErrorType::ReadTimedout), Failure::GatewayTimeout);
        assert_eq!(failure(Upstream, ErrorType::WriteTimedout), Failure::GatewayTimeout);
        assert_eq!(failure(Internal, ErrorType::HTTPStatus(503)), Failure::NoBackend);
        assert_eq!(Failure::of(&Failure::error(NoPick::Nobody)), Failure::NoBackend);
        assert_eq!(Failure::of(&Failure::error(NoPick::Full)), Failure::BackendsFull);
        assert_eq!(failure(Internal, ErrorType::InternalError), Failure::Internal);
        assert_eq!(failure(Downstream, ErrorType::ReadTimedout), Failure::RequestTimeout);
        assert_eq!(failure(Downstream, ErrorType::HTTPStatus(413)), Failure::BodyTooLarge);
        assert_eq!(failure(Downstream, ErrorType::ConnectionClosed), Failure::ClientGone);
        assert_eq!(failure(Downstream, ErrorType::WriteTimedout), Failure::ClientGone);
        assert_eq!(failure(Downstream, ErrorType::InvalidHTTPHeader), Failure::BadRequest);
    }

    #[test]
    fn one_line_a_second_tells_of_all() {
        let kind = Kind::default();
        assert_eq!(kind.count(false), None);
        assert_eq!(kind.count(true), Some(2));
        let lines: Vec<u64> = (0..1_000).filter_map(|_| kind.count(true)).collect();
        assert!(lines.len() <= 1, "{lines:?}");
    }
}
