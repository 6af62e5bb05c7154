//! One POST to a backend of the order service, selected by the upstream's balancing and health.
//!
//! Every POST has its own connection. There are only a few per second, and a kept connection might be closed by the
//! other end at the moment it is used. Pingora's connector makes the connection, as it does for the proxy.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::time::{Instant, timeout, timeout_at};

use super::signature;
use crate::auth::secret::Secret;
use crate::ledger::{WHY_MAX, brief};
use crate::upstream::{Pick, Upstream};

/// A fixed client address, so that `ip_hash` sends the deliveries of all edges to one backend.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How long to wait for the body of a refusal after its status.
const REASON_WAIT: Duration = Duration::from_millis(250);

/// The result of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostOutcome {
    /// 2xx: the receiver accepted every event.
    Kept,
    /// The receiver refuses these events for good; the reason.
    Refused(String),
    /// The answer says nothing about the events, or there is none; the reason.
    Failed(String),
}

/// The result of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueryOutcome {
    /// 2xx, with this body.
    Answered(Vec<u8>),
    /// The receiver does not support the query; the reason.
    Refused(String),
    /// The receiver did not answer; the reason.
    Failed(String),
}

enum Exchanged {
    Kept(Vec<u8>),
    Refused(String),
    Failed(String),
}

/// The longest answer to a question, in bytes.
const ANSWER_MAX: usize = 2 * 1024 * 1024;

/// Posts to one order service.
pub struct Poster {
    upstream: Arc<Upstream>,
    path: String,
    secret: Secret,
    timeout: Duration,
    clock: fn() -> u64,
    connector: Connector,
}

/// A backend did not answer.
struct AttemptError {
    error: Box<Error>,
    /// No connection was made, so another backend may be tried.
    unreached: bool,
}

impl Poster {
    /// Posts to `path` at the backends of `upstream`, within `timeout`. `clock` gives milliseconds since 1970.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, path: String, secret: Secret, timeout: Duration, clock: fn() -> u64) -> Self {
        Self { upstream, path, secret, timeout, clock, connector: Connector::new(None) }
    }

    /// The time limit of a POST.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Posts this body. If a backend refuses the connection, others are tried, as for a proxied request; failures count
    /// for passive health in the same way.
    pub async fn post(&self, body: &str) -> PostOutcome {
        match self.exchange(&self.path, body, None).await {
            Exchanged::Kept(_) => PostOutcome::Kept,
            Exchanged::Refused(why) => PostOutcome::Refused(why),
            Exchanged::Failed(why) => PostOutcome::Failed(why),
        }
    }

    /// Posts a query to a path below, signed in the same way.
    pub(super) async fn ask(&self, below: &str, body: &str) -> QueryOutcome {
        let path = format!("{}{below}", self.path.trim_end_matches('/'));
        match self.exchange(&path, body, Some(ANSWER_MAX)).await {
            Exchanged::Kept(answer) => QueryOutcome::Answered(answer),
            Exchanged::Refused(why) => QueryOutcome::Refused(why),
            Exchanged::Failed(why) => QueryOutcome::Failed(why),
        }
    }

    async fn exchange(&self, path: &str, body: &str, read_max: Option<usize>) -> Exchanged {
        let deadline = Instant::now() + self.timeout;
        let mut tried = Vec::new();
        let mut why = "no backend is up".to_owned();
        while tried.len() < self.upstream.settings().tries
            && let Ok(pick) = self.upstream.pick(CLIENT, |_| None, &tried)
        {
            let address = pick.address();
            match timeout_at(deadline, self.attempt(&pick, path, body, read_max)).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(AttemptError { error, unreached })) => {
                    // Pingora reports a lack of sockets or ports on our side as an internal error.
                    if *error.etype() != ErrorType::InternalError {
                        self.upstream.failed(&pick, error.etype().as_str());
                    }
                    why = format!("{address}: {}", error.etype().as_str());
                    if !unreached {
                        break;
                    }
                    tried.push(pick.id());
                }
                Err(_elapsed) => {
                    self.upstream.failed(&pick, "no answer in time");
                    why = format!("{address}: no answer within {:?}", self.timeout);
                    break;
                }
            }
        }
        Exchanged::Failed(why)
    }

    async fn attempt(
        &self,
        pick: &Pick,
        path: &str,
        body: &str,
        read_max: Option<usize>,
    ) -> Result<Exchanged, AttemptError> {
        let mut peer = HttpPeer::new(pick.address(), false, String::new());
        let connect = self.upstream.settings().timeouts.connect.min(self.timeout);
        peer.options.connection_timeout = Some(connect);
        peer.options.total_connection_timeout = Some(connect);
        let connected = self.connector.get_http_session(&peer).await;
        let (mut session, _) = connected.map_err(|error| AttemptError { error, unreached: true })?;

        let answer = self.converse(&mut session, path, body, read_max).await;
        let answer = answer.map_err(|error| AttemptError { error, unreached: false })?;
        if pick.is_trial() {
            self.upstream.succeeded(pick);
        }
        Ok(answer)
    }

    async fn converse(
        &self,
        session: &mut HttpSession,
        path: &str,
        body: &str,
        read_max: Option<usize>,
    ) -> pingora::Result<Exchanged> {
        let written = self.write(session, path, body).await;
        // A receiver may answer before it has read the whole body.
        session.read_response().await.map_err(|error| written.err().unwrap_or(error))?;
        while session.get_status().is_some_and(|status| status.is_informational()) {
            session.read_response().await?;
        }
        let status = session.get_status().map_or(0, |status| status.as_u16());
        Ok(match status {
            200..=299 => {
                let mut answer = Vec::new();
                while let Some(most) = read_max
                    && let Some(bytes) = session.read_body_bytes().await?
                {
                    answer.extend_from_slice(&bytes);
                    if answer.len() > most {
                        return Ok(Exchanged::Failed(format!("its answer has more than {most} bytes")));
                    }
                }
                Exchanged::Kept(answer)
            }
            400 | 404 | 413 | 422 => {
                // The status is known, so the reason is not awaited for long.
                let reason = timeout(REASON_WAIT, beginning(session)).await.unwrap_or_default();
                Exchanged::Refused(brief(&format!("{status} {reason}")))
            }
            // Servers without this path answer that it does not exist or does not take POST.
            405 | 501 if read_max.is_some() => Exchanged::Refused(format!("{status}")),
            _ => Exchanged::Failed(format!("{status}")),
        })
    }

    async fn write(&self, session: &mut HttpSession, path: &str, body: &str) -> pingora::Result<()> {
        let mut head = RequestHeader::build("POST", path.as_bytes(), Some(6))?;
        head.insert_header(HOST, self.upstream.settings().default_host())?;
        head.insert_header(USER_AGENT, concat!("spikegate/", env!("CARGO_PKG_VERSION")))?;
        head.insert_header(CONTENT_TYPE, "application/json")?;
        head.insert_header(CONTENT_LENGTH, body.len())?;
        head.insert_header(signature::HEADER, signature::sign(&self.secret, (self.clock)() / 1_000, body.as_bytes()))?;
        head.insert_header(CONNECTION, "close")?;
        session.write_request_header(Box::new(head)).await?;
        session.write_body(body.as_bytes()).await?;
        session.finish_body().await?;
        Ok(())
    }
}

/// The beginning of an answer's body, at most the length of a reason.
async fn beginning(session: &mut HttpSession) -> String {
    let mut text = Vec::new();
    while text.len() < WHY_MAX
        && let Ok(Some(bytes)) = session.read_body_bytes().await
    {
        text.extend_from_slice(&bytes[..bytes.len().min(WHY_MAX)]);
    }
    String::from_utf8_lossy(&text).into_owned()
}
