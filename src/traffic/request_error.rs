//! Requests that could not be served: whose fault it was, what the client is told, and how often it is logged.

use http::StatusCode;

use crate::observe::error_log::throttle::Throttle;

/// Why a request could not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
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

impl RequestError {
    /// As a number, for the log and for metrics.
    #[must_use]
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
    #[must_use]
    pub fn status(self) -> Option<StatusCode> {
        (self != Self::ClientGone).then(|| StatusCode::from_u16(self.code()).ok()).flatten()
    }

    /// Whether it is ours to mend. What clients do wrong is only worth a line when looking for it.
    #[must_use]
    pub fn level(self) -> log::Level {
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
pub struct RequestErrorLog {
    bad_gateway: Throttle,
    no_backend: Throttle,
    backends_full: Throttle,
    gateway_timeout: Throttle,
    internal: Throttle,
    by_client: Throttle,
}

impl RequestErrorLog {
    /// One more. How many there were since the last line, this one included, if it is time for another line.
    #[must_use]
    pub fn count(&self, failure: RequestError, wanted: bool) -> Option<u64> {
        self.throttle(failure).count(wanted)
    }

    fn throttle(&self, failure: RequestError) -> &Throttle {
        match failure {
            RequestError::BadGateway => &self.bad_gateway,
            RequestError::NoBackend => &self.no_backend,
            RequestError::BackendsFull => &self.backends_full,
            RequestError::GatewayTimeout => &self.gateway_timeout,
            RequestError::Internal => &self.internal,
            RequestError::BadRequest
            | RequestError::RequestTimeout
            | RequestError::BodyTooLarge
            | RequestError::ClientGone => &self.by_client,
        }
    }
}
