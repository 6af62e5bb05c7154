//! `spikegate sale`: each subcommand, and the call of the control API that it makes.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::ControlTarget;
use super::client::Call;
use crate::ledger::OrderId;

/// The exit code of a reconciliation that leaves differences.
const DIFFERENCES_LEFT: u8 = 3;

/// How long a reconciliation may take: it reads every order.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Debug, Subcommand)]
pub(super) enum SaleCommand {
    /// Show the counters of every sale.
    List,
    /// Show the counters of one sale.
    Show {
        /// Id of the sale.
        sale: String,
    },
    /// Create a sale that the ledger does not have, or open one that is paused or closed.
    Open {
        /// Id of the sale.
        sale: String,
        /// Number of tickets if the sale is created; default: `total` of the configuration.
        #[arg(long)]
        total: Option<u64>,
    },
    /// Sell nothing until `resume`.
    Pause {
        /// Id of the sale.
        sale: String,
    },
    /// Sell again after `pause`.
    Resume {
        /// Id of the sale.
        sale: String,
    },
    /// End the sale.
    Close {
        /// Id of the sale.
        sale: String,
    },
    /// Add tickets; a negative number takes unsold tickets away.
    AddStock {
        /// Id of the sale.
        sale: String,
        /// Number of tickets.
        #[arg(allow_negative_numbers = true)]
        delta: i64,
        /// Id of the change; the ledger applies a change with the same id only once. Default: random.
        #[arg(long)]
        change_id: Option<String>,
    },
    /// Compare the sale's records in the ledger with its log, with what this edge remembers and with the order service;
    /// exit code 3 if differences are left.
    Reconcile {
        /// Id of the sale.
        sale: String,
        /// Repair what is found, then lift the fence; the sale must be fenced, paused or closed.
        #[arg(long)]
        apply: bool,
        /// Continue if the order service does not answer.
        #[arg(long)]
        without_order_service: bool,
    },
    /// Show how much of the sale's log was delivered to the order service, by which edge, and which events are set
    /// aside.
    Delivery {
        /// Id of the sale.
        sale: String,
    },
    /// Deliver the events that were set aside.
    Redeliver {
        /// Id of the sale.
        sale: String,
    },
    /// Show one order.
    Order {
        /// Id of the sale.
        sale: String,
        /// Id of the order.
        order: OrderId,
    },
    /// Confirm the payment of an order; repeating it with the same payment is harmless.
    Confirm {
        /// Id of the sale.
        sale: String,
        /// Id of the order.
        order: OrderId,
        /// Id of the payment: 1 to 64 characters of A-Z, a-z, 0-9, ".", "_", ":" and "-".
        #[arg(long)]
        payment: String,
    },
    /// Release an unpaid order. An id without an order is given up, so that no order can be made under it.
    Cancel {
        /// Id of the sale.
        sale: String,
        /// Id of the order.
        order: OrderId,
    },
    /// Release unpaid orders whose hold has ended, at once; edges also do this by themselves.
    Sweep {
        /// Id of the sale.
        sale: String,
    },
}

impl SaleCommand {
    fn call(&self) -> Call {
        match self {
            Self::List => Call::get("/sales"),
            Self::Show { sale } => Call::get(format!("/sales/{sale}")),
            Self::Open { sale, total } => {
                let body = total.map_or(json!({}), |total| json!({ "total": total }));
                Call::post(format!("/sales/{sale}/open"), body)
            }
            Self::Pause { sale } => Call::post(format!("/sales/{sale}/pause"), json!({})),
            Self::Resume { sale } => Call::post(format!("/sales/{sale}/resume"), json!({})),
            Self::Close { sale } => Call::post(format!("/sales/{sale}/close"), json!({})),
            Self::AddStock { sale, delta, change_id } => {
                Call::post(format!("/sales/{sale}/stock"), json!({ "change_id": change_id, "delta": delta }))
            }
            Self::Reconcile { sale, apply, without_order_service } => {
                let body = json!({ "apply": apply, "without_order_service": without_order_service });
                Call { timeout: RECONCILE_TIMEOUT, ..Call::post(format!("/sales/{sale}/reconcile"), body) }
            }
            Self::Delivery { sale } => Call::get(format!("/sales/{sale}/delivery")),
            Self::Redeliver { sale } => Call::post(format!("/sales/{sale}/delivery/retry"), json!({})),
            Self::Order { sale, order } => Call::get(format!("/sales/{sale}/orders/{order}")),
            Self::Confirm { sale, order, payment } => {
                Call::post(format!("/sales/{sale}/orders/{order}/confirm"), json!({ "payment": payment }))
            }
            Self::Cancel { sale, order } => Call::post(format!("/sales/{sale}/orders/{order}/cancel"), json!({})),
            Self::Sweep { sale } => Call::post(format!("/sales/{sale}/sweep"), json!({})),
        }
    }
}

pub(super) fn run(target: &ControlTarget, mut command: SaleCommand) -> Result<ExitCode, String> {
    if let SaleCommand::AddStock { change_id, .. } = &mut command {
        change_id.get_or_insert_with(|| format!("{:032x}", rand::random::<u128>()));
    }
    let answer = target.call(&command.call()).map_err(|error| match &command {
        // An operator who did not get the answer must be able to ask for the same change again.
        SaleCommand::AddStock { change_id: Some(id), .. } => format!("{error} (change id {id})"),
        _ => error,
    })?;
    let leaves = matches!(command, SaleCommand::Reconcile { .. }) && answer["left"] != Value::Array(Vec::new());
    Ok(if leaves { ExitCode::from(DIFFERENCES_LEFT) } else { ExitCode::SUCCESS })
}
