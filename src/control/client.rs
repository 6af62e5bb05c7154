//! The client of the control listener, for `spikegate sale ...`.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

use crate::ledger::OrderId;

/// How long one call may take; the edge itself answers within its ledger's limits.
const TIMEOUT: Duration = Duration::from_secs(10);

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

/// What an operator asks of a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
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

/// Asks the control listener at `address` and gives the JSON that it answers.
///
/// # Errors
/// See [`ClientError`].
pub fn ask(address: &str, token: Option<&str>, wish: &Wish) -> Result<Value, ClientError> {
    let agent: Agent = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build().into();
    let url = |path: &str| format!("http://{address}/sales{path}");
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
        Wish::List => read(""),
        Wish::Show { sale } => read(&format!("/{sale}")),
        Wish::Open { sale, total: Some(total) } => write(format!("/{sale}/open"), &json!({ "total": total })),
        Wish::Open { sale, total: None } => write(format!("/{sale}/open"), &json!({})),
        Wish::Switch { sale, step } => write(format!("/{sale}/{step}"), &json!({})),
        Wish::Stock { sale, change_id, delta } => {
            write(format!("/{sale}/stock"), &json!({ "change_id": change_id, "delta": delta }))
        }
        Wish::Delivery { sale } => read(&format!("/{sale}/delivery")),
        Wish::Redeliver { sale } => write(format!("/{sale}/delivery/retry"), &json!({})),
        Wish::Order { sale, order } => read(&format!("/{sale}/orders/{order}")),
        Wish::Confirm { sale, order, payment } => {
            write(format!("/{sale}/orders/{order}/confirm"), &json!({ "payment": payment }))
        }
        Wish::Cancel { sale, order } => write(format!("/{sale}/orders/{order}/cancel"), &json!({})),
    };
    let unreachable = |source| ClientError::Unreachable { address: address.to_owned(), source: Box::new(source) };
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
