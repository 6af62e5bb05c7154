//! Failures as Pingora reports them, and the line that the log gets.

use std::fmt;
use std::net::SocketAddr;

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use crate::http::request_id::RequestId;
use crate::traffic::request_error::{RequestError, RequestErrorLog};
use crate::upstream::{PickError, Upstream};

const BACKENDS_FULL: ErrorType = ErrorType::CustomCode("all backends have max_conns requests", 503);

/// A chunked body that is none, as Pingora names it.
const INVALID_CHUNK: ErrorType = ErrorType::new("InvalidChunk");
const INVALID_TRAILER_END: ErrorType = ErrorType::new("InvalidTrailerEnd");

/// As an error of Pingora's, which [`of`] understands.
pub fn error(none: PickError) -> Box<Error> {
    Error::explain(
        match none {
            PickError::Nobody => ErrorType::HTTPStatus(503),
            PickError::Full => BACKENDS_FULL,
        },
        "no backend can be asked",
    )
}

/// What an error of Pingora's means.
pub fn of(error: &Error) -> RequestError {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, H2Error, HTTPStatus, ReadError, ReadTimedout, WriteError, WriteTimedout,
    };
    let kind = error.etype();
    let source = match error.esource() {
        // Pingora marks all failures of a backend, but not all of a client: those of a request that the edge answers
        // itself have no source.
        ErrorSource::Unset if is_of_connection(kind) => &ErrorSource::Downstream,
        source => source,
    };
    match (source, kind) {
        (_, HTTPStatus(503)) => RequestError::NoBackend,
        (_, full) if *full == BACKENDS_FULL => RequestError::BackendsFull,
        (_, HTTPStatus(413)) => RequestError::BodyTooLarge,
        (ErrorSource::Upstream, ConnectTimedout | ReadTimedout | WriteTimedout) => RequestError::GatewayTimeout,
        (ErrorSource::Upstream, _) => RequestError::BadGateway,
        (ErrorSource::Downstream, ReadTimedout) => RequestError::RequestTimeout,
        (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed | WriteTimedout | H2Error) => {
            RequestError::ClientGone
        }
        (ErrorSource::Downstream, _) => RequestError::BadRequest,
        (ErrorSource::Internal | ErrorSource::Unset, _) => RequestError::Internal,
    }
}

/// Whether an error is one of a connection, or of what came over it.
fn is_of_connection(kind: &ErrorType) -> bool {
    use ErrorType::{ConnectionClosed, H2Error, ReadError, ReadTimedout, WriteError, WriteTimedout};
    matches!(kind, ReadError | ReadTimedout | WriteError | WriteTimedout | ConnectionClosed | H2Error)
        || [INVALID_CHUNK, INVALID_TRAILER_END].contains(kind)
}

/// Where a request was that failed.
pub struct ErrorSite<'a> {
    /// The path prefix of its route, if it had one.
    pub route: Option<&'a str>,
    /// The group of its backends, if there was one.
    pub upstream: Option<&'a Upstream>,
    /// The backend, if one was tried.
    pub backend: Option<SocketAddr>,
    /// Its id, if it had one.
    pub id: Option<&'a RequestId>,
}

impl fmt::Display for ErrorSite<'_> {
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

/// Counts a failure, and logs it unless another of its kind was logged within this second. The line has the path
/// without its query, which may hold secrets, and where the request was.
pub fn record(log: &RequestErrorLog, failure: RequestError, error: &Error, session: &Session, place: ErrorSite<'_>) {
    let level = failure.level();
    let Some(unlogged) = log.count(failure, log::log_enabled!(level)) else {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(source: ErrorSource, kind: ErrorType) -> RequestError {
        let mut error = Error::new(kind);
        error.esource = source;
        of(&error)
    }

    #[test]
    fn faults_are_told_apart() {
        use ErrorSource::{Downstream, Internal, Unset, Upstream};
        assert_eq!(failure(Upstream, ErrorType::ConnectRefused), RequestError::BadGateway);
        assert_eq!(failure(Upstream, ErrorType::ConnectionClosed), RequestError::BadGateway);
        assert_eq!(failure(Upstream, ErrorType::InvalidHTTPHeader), RequestError::BadGateway);
        assert_eq!(failure(Upstream, ErrorType::ConnectTimedout), RequestError::GatewayTimeout);
        assert_eq!(failure(Upstream, ErrorType::ReadTimedout), RequestError::GatewayTimeout);
        assert_eq!(failure(Upstream, ErrorType::WriteTimedout), RequestError::GatewayTimeout);
        assert_eq!(failure(Internal, ErrorType::HTTPStatus(503)), RequestError::NoBackend);
        assert_eq!(of(&error(PickError::Nobody)), RequestError::NoBackend);
        assert_eq!(of(&error(PickError::Full)), RequestError::BackendsFull);
        assert_eq!(failure(Internal, ErrorType::InternalError), RequestError::Internal);
        assert_eq!(failure(Downstream, ErrorType::ReadTimedout), RequestError::RequestTimeout);
        assert_eq!(failure(Downstream, ErrorType::HTTPStatus(413)), RequestError::BodyTooLarge);
        assert_eq!(failure(Downstream, ErrorType::ConnectionClosed), RequestError::ClientGone);
        assert_eq!(failure(Downstream, ErrorType::WriteTimedout), RequestError::ClientGone);
        assert_eq!(failure(Downstream, ErrorType::InvalidHTTPHeader), RequestError::BadRequest);
        assert_eq!(failure(Downstream, ErrorType::H2Error), RequestError::ClientGone);
        assert_eq!(failure(Unset, ErrorType::ReadError), RequestError::ClientGone);
        assert_eq!(failure(Unset, ErrorType::ReadTimedout), RequestError::RequestTimeout);
        assert_eq!(failure(Unset, INVALID_CHUNK), RequestError::BadRequest);
        assert_eq!(failure(Unset, ErrorType::InternalError), RequestError::Internal);
    }
}
