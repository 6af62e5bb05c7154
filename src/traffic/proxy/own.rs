//! Requests to the edge's own endpoints, read from Pingora's session.

use std::borrow::Cow;
use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;
use tokio::time::timeout;

use crate::http::answer::Answer;
use crate::http::client::Client;
use crate::http::head::Head;
use crate::sale::request::BODY_MAX;
use crate::sale::shop::Endpoint;

impl Head for RequestHeader {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn query(&self) -> Option<&[u8]> {
        let path = self.raw_path();
        path.iter().position(|byte| *byte == b'?').map(|at| &path[at + 1..])
    }

    fn headers<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a [u8])) {
        self.headers.get_all(name).iter().for_each(|value| each(value.as_bytes()));
    }
}

/// Answers a request of `client` for `endpoint`. The whole body must arrive within `most`.
///
/// # Errors
/// If the client left or its body did not arrive in time.
pub(super) async fn answer(
    session: &mut Session,
    endpoint: Endpoint<'_>,
    client: Client,
    most: Duration,
) -> Result<Cow<'static, Answer>> {
    let takes_body = endpoint.takes_body(session.req_header().method.as_str());
    let body = if takes_body {
        let body = timeout(most, read_body(session)).await;
        let late = || Error::explain(ErrorType::ReadTimedout, "the body of a purchase");
        body.unwrap_or_else(|_| Err(late())).map_err(Error::into_down)?
    } else {
        Vec::new()
    };
    Ok(endpoint.answer(client, session.req_header(), &body).await)
}

/// Reads a body up to one byte above the limit of a purchase, which is enough to detect a longer one. If the declared
/// length is above the limit, reads nothing and closes the connection after the answer.
async fn read_body(session: &mut Session) -> Result<Vec<u8>> {
    if session.is_body_empty() {
        return Ok(Vec::new());
    }
    let said: Option<usize> = header(session, "content-length").and_then(|length| length.parse().ok());
    if said.is_some_and(|length| length > BODY_MAX) {
        session.set_keepalive(None);
        return Ok(vec![0; BODY_MAX + 1]);
    }
    if header(session, "expect").is_some_and(|expects| expects.eq_ignore_ascii_case("100-continue")) {
        // Pingora would take the interim answer for a final answer to an unread request, and close the connection.
        let keepalive = session.get_keepalive();
        session.write_continue_response().await?;
        session.set_keepalive(keepalive);
    }
    let mut body = Vec::new();
    while body.len() <= BODY_MAX {
        match session.read_request_body().await? {
            Some(part) => body.extend_from_slice(&part),
            None => return Ok(body),
        }
    }
    body.truncate(BODY_MAX + 1);
    Ok(body)
}

fn header<'a>(session: &'a Session, name: &str) -> Option<&'a str> {
    session.req_header().headers.get(name)?.to_str().ok()
}
