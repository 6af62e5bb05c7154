//! Sends the edge's own answers through Pingora.

use std::sync::LazyLock;
use std::time::Duration;

use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;
use serde_json::Value;

use super::forward;
use crate::config::HeaderRules;
use crate::http::answer::Answer;
use crate::sale::reply::{RETRY_SPREAD_S, in_turn, spread};

/// How long the rest of a request's body is read and discarded after the answer (nginx: `lingering_timeout`).
const LINGER: Duration = Duration::from_secs(5);

static BUSY: LazyLock<[Answer; RETRY_SPREAD_S as usize]> = LazyLock::new(|| {
    let detail = "Every backend has as many requests as it may have. Ask again.";
    spread(&Answer::problem(503, "backends-busy", "Backends busy", detail, Value::Null))
});

/// The answer if every backend is at its limit of concurrent requests.
pub fn busy() -> &'static Answer {
    in_turn(&*BUSY)
}

/// Sends an answer. Keeps the connection if that was intended and the request was read to its end.
///
/// # Errors
///
/// If the client is gone.
pub async fn send(session: &mut Session, answer: &Answer) -> Result<()> {
    send_by(session, answer, &HeaderRules::default()).await
}

/// Sends an answer with the header changes of a route.
///
/// # Errors
///
/// If the client is gone.
pub async fn send_by(session: &mut Session, answer: &Answer, rules: &HeaderRules) -> Result<()> {
    let mut head = ResponseHeader::build(answer.status, Some(8))?;
    let mut fields = Ok(());
    answer.fields(|name, value| {
        // One field after the other, up to the first that cannot be sent.
        if fields.is_ok() {
            fields = head.insert_header(name, value.to_string());
        }
    });
    fields.map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "an answer of our own", error))?;
    forward::apply_to_answer(rules, &mut head)?;
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(answer.body.clone()), true).await?;
    finish_request(session).await
}

/// Reads and discards the rest of a request after its answer.
///
/// # Errors
///
/// If the client is gone.
pub async fn finish_request(session: &mut Session) -> Result<()> {
    if !session.is_body_done() {
        // If unread bytes remain, closing sends a reset, which may overtake the answer.
        session.set_total_drain_timeout(Some(LINGER));
        session.drain_request_body().await?;
    }
    Ok(())
}
