//! Requests that could not be served: whose fault it was, what the client is told, and what is logged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use crate::upstream::Upstream;

/// Why a request could not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection to a backend, or its answer was broken or broke off: 502.
    BadGateway,
    /// No backend of the group may be asked: 503.
    NoBackend,
    /// A backend took too long: 504.
    GatewayTimeout,
    /// A fault of the edge itself: 500.
    Internal,
    /// The client's request is malformed: 400.
    BadRequest,
    /// The client took too long to send its request: 408.
    RequestTimeout,
    /// The client left before it was answered. Nobody is told; the log calls it 499, as Nginx does.
    ClientGone,
}

impl Failure {
    /// What an error of Pingora's means.
    pub fn of(error: &Error) -> Self {
        use ErrorType::{
            ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError, ReadTimedout, WriteError, WriteTimedout,
        };
        match (error.esource(), error.etype()) {
            (_, HTTPStatus(503)) => Self::NoBackend,
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
            Self::NoBackend => 503,
            Self::GatewayTimeout => 504,
            Self::Internal => 500,
            Self::BadRequest => 400,
            Self::RequestTimeout => 408,
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
            Self::BadGateway | Self::NoBackend | Self::GatewayTimeout | Self::Internal => log::Level::Error,
            Self::BadRequest | Self::RequestTimeout | Self::ClientGone => log::Level::Debug,
        }
    }
}

/// The failures of one group: all are counted, and at most one of a kind is logged each second.
#[derive(Default)]
pub struct FailureLog {
    bad_gateway: Kind,
    no_backend: Kind,
    gateway_timeout: Kind,
    internal: Kind,
    by_client: Kind,
}

#[derive(Default)]
struct Kind {
    count: AtomicU64,
    /// When a line was last written, in seconds since 1970.
    logged_at: AtomicU64,
    /// The count at that time.
    logged: AtomicU64,
}

impl FailureLog {
    /// Counts a failure, and logs it unless another of its kind was logged within this second. The line has the path
    /// without its query, which may hold secrets, and where the request was: a group, and the backend if one was tried.
    pub fn record(&self, failure: Failure, error: &Error, session: &Session, way: Option<(&Upstream, Option<usize>)>) {
        let level = failure.level();
        let Some(unlogged) = self.kind(failure).count(log::log_enabled!(level)) else {
            return;
        };
        let request = session.req_header();
        let place = match way {
            Some((upstream, Some(backend))) => {
                format!("upstream {}, {}", upstream.settings().name, upstream.address(backend))
            }
            Some((upstream, None)) => format!("upstream {}, no backend", upstream.settings().name),
            None => "the edge itself".to_owned(),
        };
        let others = if unlogged > 1 { format!(" ({} more since the last line)", unlogged - 1) } else { String::new() };
        log::log!(
            level,
            "{} {} {}: {place}: {}{others}",
            failure.code(),
            request.method,
            request.uri.path(),
            error.etype().as_str(),
        );
    }

    fn kind(&self, failure: Failure) -> &Kind {
        match failure {
            Failure::BadGateway => &self.bad_gateway,
            Failure::NoBackend => &self.no_backend,
            Failure::GatewayTimeout => &self.gateway_timeout,
            Failure::Internal => &self.internal,
            Failure::BadRequest | Failure::RequestTimeout | Failure::ClientGone => &self.by_client,
        }
    }
}

impl Kind {
    /// One more. How many there were since the last line, this one included, if it is time for another line.
    fn count(&self, wanted: bool) -> Option<u64> {
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
        assert_eq!(failure(Internal, ErrorType::InternalError), Failure::Internal);
        assert_eq!(failure(Downstream, ErrorType::ReadTimedout), Failure::RequestTimeout);
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
