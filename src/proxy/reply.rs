//! Short answers of the proxy's own.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

/// How long the rest of a request's body is read and thrown away behind the answer: Nginx's `lingering_timeout`.
const LINGER: Duration = Duration::from_secs(5);

/// Answers with `status`, and with nothing but its name as the body.
///
/// The connection is kept if it was to be kept and the request was read to its end.
///
/// # Errors
///
/// If the client is gone.
pub async fn plain(session: &mut Session, status: StatusCode) -> Result<()> {
    let body = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut head = ResponseHeader::build_no_case(status, Some(5))?;
    head.insert_header(CONTENT_TYPE, "text/plain")?;
    head.insert_header(CONTENT_LENGTH, body.len())?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(Bytes::from(body)), true).await?;
    finish_request(session).await
}

/// Reads what is left of a request behind its answer.
///
/// # Errors
///
/// If the client is gone.
pub async fn finish_request(session: &mut Session) -> Result<()> {
    if !session.is_body_done() {
        // Closing while bytes wait to be read makes the kernel send a reset, and that may overtake the answer.
        session.set_total_drain_timeout(Some(LINGER));
        session.drain_request_body().await?;
    }
    Ok(())
}
