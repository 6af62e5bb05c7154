//! The HTTP client of the control listener.

use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

/// How long one call may take; the edge itself answers within its ledger's limits.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call may take that asks whether the edge is alive; shorter than any supervisor waits.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The listener could not be asked.
    #[error("http://{address}: {source}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// The edge refused; its own words.
    #[error("{status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The problem's detail, or the whole answer.
        detail: String,
    },
}

/// One call of the control API.
pub(super) struct Call {
    /// The path, with its leading `/`.
    pub path: String,
    /// What is posted; none for a GET.
    pub body: Option<Value>,
    /// How long the call may take.
    pub timeout: Duration,
}

impl Call {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { path: path.into(), body: None, timeout: TIMEOUT }
    }

    pub(super) fn post(path: impl Into<String>, body: Value) -> Self {
        Self { path: path.into(), body: Some(body), timeout: TIMEOUT }
    }
}

/// Asks the control listener at `address` whether the edge is alive or, with `ready`, whether it is ready, and gives
/// the text of the answer. Neither needs a token.
///
/// # Errors
/// See [`ClientError`].
pub(super) fn health(address: &str, ready: bool) -> Result<String, ClientError> {
    let path = if ready { "readyz" } else { "healthz" };
    let unreachable = |source| unreachable(address, source);
    let mut answer = agent(HEALTH_TIMEOUT).get(format!("http://{address}/{path}")).call().map_err(unreachable)?;
    let text = answer.body_mut().read_to_string().map_err(unreachable)?;
    match answer.status().as_u16() {
        200 => Ok(text),
        status => Err(ClientError::Refused { status, detail: text.trim_end().to_owned() }),
    }
}

fn agent(timeout: Duration) -> Agent {
    Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).build().into()
}

fn unreachable(address: &str, source: ureq::Error) -> ClientError {
    ClientError::Unreachable { address: address.to_owned(), source: Box::new(source) }
}

/// Makes a call of the control listener at `address`, and gives the JSON of its answer.
///
/// # Errors
/// See [`ClientError`].
pub(super) fn call(address: &str, token: Option<&str>, call: &Call) -> Result<Value, ClientError> {
    let agent = agent(call.timeout);
    let url = format!("http://{address}{}", call.path);
    let bearer = token.map(|token| format!("Bearer {token}"));
    let answer = match (&call.body, &bearer) {
        (None, None) => agent.get(url).call(),
        (None, Some(bearer)) => agent.get(url).header("Authorization", bearer).call(),
        (Some(body), None) => agent.post(url).send_json(body),
        (Some(body), Some(bearer)) => agent.post(url).header("Authorization", bearer).send_json(body),
    };
    let unreachable = |source| unreachable(address, source);
    let mut answer: Response<ureq::Body> = answer.map_err(unreachable)?;
    let text = answer.body_mut().read_to_string().map_err(unreachable)?;
    let status = answer.status().as_u16();
    match serde_json::from_str::<Value>(&text) {
        Ok(document) if status == 200 => Ok(document),
        Ok(document) => {
            let detail = document["detail"].as_str().map_or(text.clone(), str::to_owned);
            Err(ClientError::Refused { status, detail })
        }
        Err(_) => Err(ClientError::Refused { status, detail: text }),
    }
}
