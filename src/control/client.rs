//! The client of the control listener, for `spikegate sale ...`, `health`, `reload` and `upgrade`.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

use crate::ledger::OrderId;

/// How long one call may take; the edge itself answers within its ledger's limits.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call may take that asks whether the edge is alive; shorter than any supervisor waits.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reload or an upgrade may take: names are looked up, requests under way are finished, a long log is read.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a reconciliation may take: it reads every order.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
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

/// What an operator asks of a sale, or of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Work by the configuration as it is now.
    Reload,
    /// Be followed by the program as it is now.
    Upgrade,
    /// All sales.
    List,
    /// One sale's counters.
    Show {
        /// Its id.
        sale: String,
    },
    /// Make it or open it.
    Open {
        /// Its id.
        sale: String,
        /// With so many tickets, if it is made.
        total: Option<u64>,
    },
    /// `pause`, `resume`, `close` or `sweep`.
    Switch {
        /// Its id.
        sale: String,
        /// Which.
        step: &'static str,
    },
    /// Add tickets or take unsold ones away.
    Stock {
        /// Its id.
        sale: String,
        /// Applied once for each id.
        change_id: String,
        /// How many.
        delta: i64,
    },
    /// Compare a sale's books with all that is known of it, and put them right if wanted.
    Reconcile {
        /// The sale's id.
        sale: String,
        /// Whether to put right what is found.
        apply: bool,
        /// Go on if the order service cannot be asked.
        without_order_service: bool,
    },
    /// How a sale's delivery stands.
    Delivery {
        /// The sale's id.
        sale: String,
    },
    /// Deliver what is set aside.
    Redeliver {
        /// The sale's id.
        sale: String,
    },
    /// One order.
    Order {
        /// The sale's id.
        sale: String,
        /// The order's id.
        order: OrderId,
    },
    /// Take a payment for an order.
    Confirm {
        /// The sale's id.
        sale: String,
        /// The order's id.
        order: OrderId,
        /// The payment's id.
        payment: String,
    },
    /// Release an order that is not paid.
    Cancel {
        /// The sale's id.
        sale: String,
        /// The order's id.
        order: OrderId,
    },
}

/// Asks the control listener at `address` whether the edge is alive or, if `ready`, has heard of the ledger of every sale,
/// and gives its words. Neither needs a token.
///
/// # Errors
/// See [`ClientError`].
pub fn health(address: &str, ready: bool) -> Result<String, ClientError> {
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

/// Asks the control listener at `address` and gives the JSON that it answers.
///
/// # Errors
/// See [`ClientError`].
pub fn ask(address: &str, token: Option<&str>, wish: &Wish) -> Result<Value, ClientError> {
    let agent = agent(match wish {
        Wish::Reconcile { .. } => RECONCILE_TIMEOUT,
        Wish::Reload | Wish::Upgrade => PROCESS_TIMEOUT,
        _ => TIMEOUT,
    });
    let root = if matches!(wish, Wish::Reload | Wish::Upgrade) { "" } else { "/sales" };
    let url = |path: &str| format!("http://{address}{root}{path}");
    let bearer = token.map(|token| format!("Bearer {token}"));
    let read = |path: &str| {
        let request = agent.get(url(path));
        match &bearer {
            Some(bearer) => request.header("Authorization", bearer).call(),
            None => request.call(),
        }
    };
    let write = |path: String, body: &Value| {
        let request = agent.post(url(&path));
        match &bearer {
            Some(bearer) => request.header("Authorization", bearer).send_json(body),
            None => request.send_json(body),
        }
    };
    let answer = match wish {
        Wish::Reload => write("/reload".to_owned(), &json!({})),
        Wish::Upgrade => write("/upgrade".to_owned(), &json!({})),
        Wish::List => read(""),
        Wish::Show { sale } => read(&format!("/{sale}")),
        Wish::Open { sale, total: Some(total) } => write(format!("/{sale}/open"), &json!({ "total": total })),
        Wish::Open { sale, total: None } => write(format!("/{sale}/open"), &json!({})),
        Wish::Switch { sale, step } => write(format!("/{sale}/{step}"), &json!({})),
        Wish::Stock { sale, change_id, delta } => {
            write(format!("/{sale}/stock"), &json!({ "change_id": change_id, "delta": delta }))
        }
        Wish::Reconcile { sale, apply, without_order_service } => {
            let body = json!({ "apply": apply, "without_order_service": without_order_service });
            write(format!("/{sale}/reconcile"), &body)
        }
        Wish::Delivery { sale } => read(&format!("/{sale}/delivery")),
        Wish::Redeliver { sale } => write(format!("/{sale}/delivery/retry"), &json!({})),
        Wish::Order { sale, order } => read(&format!("/{sale}/orders/{order}")),
        Wish::Confirm { sale, order, payment } => {
            write(format!("/{sale}/orders/{order}/confirm"), &json!({ "payment": payment }))
        }
        Wish::Cancel { sale, order } => write(format!("/{sale}/orders/{order}/cancel"), &json!({})),
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
