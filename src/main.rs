//! The command line. Exit codes: 0 for done, 1 for a configuration or a start that failed, 2 for wrong usage.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use spikegate::config::{Config, Store};
use spikegate::control::client::{self, Wish};
use spikegate::ledger::OrderId;
use spikegate::server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is logged unless RUST_LOG says otherwise. Failed requests are logged by the proxy, once and not in floods;
/// pingora_proxy's own lines say no more of them, and any client could make as many as it likes.
const LOG: &str = "info,pingora_core=warn,pingora_proxy=off";

/// An edge proxy that sells tickets: exactly what there is, in front of weighted backends.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an edge until SIGTERM (which lets requests under way finish) or SIGINT.
    Run(Run),
    /// Read a configuration file and say everything that is wrong with it.
    Check {
        /// The file.
        #[arg(long, short, default_value = "conf/spikegate.yaml")]
        config: PathBuf,
    },
    /// Manage the sales of a running edge.
    Sale {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        step: Step,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// The file.
    #[arg(long, short, default_value = "conf/spikegate.yaml")]
    config: PathBuf,
    /// Listen here instead of where the file says; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<SocketAddr>,
    /// The control listener's address instead of the file's; off loopback, the file has to set a token.
    #[arg(long, value_name = "ADDRESS")]
    control: Option<SocketAddr>,
    /// Sell from this Redis instead of the file's ledger.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

#[derive(Debug, Args)]
struct Place {
    /// The control listener.
    #[arg(long, default_value = "127.0.0.1:9180", global = true)]
    control: String,
    /// Its token.
    #[arg(long, env = "SPIKEGATE_CONTROL_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Every sale's counters.
    List,
    /// One sale's counters.
    Show {
        /// The sale's id.
        sale: String,
    },
    /// Make a sale that the ledger does not have, or open one that is paused or closed.
    Open {
        /// The sale's id.
        sale: String,
        /// Its tickets, if it is made; else what the configuration says.
        #[arg(long)]
        total: Option<u64>,
    },
    /// Sell nothing until it is resumed.
    Pause {
        /// The sale's id.
        sale: String,
    },
    /// Sell again.
    Resume {
        /// The sale's id.
        sale: String,
    },
    /// End the sale.
    Close {
        /// The sale's id.
        sale: String,
    },
    /// Add tickets, or take unsold ones away with a negative number.
    AddStock {
        /// The sale's id.
        sale: String,
        /// How many.
        #[arg(allow_negative_numbers = true)]
        delta: i64,
        /// A change with the same id is made once, however often it is asked for.
        #[arg(long)]
        change_id: Option<String>,
    },
    /// Show how far the sale's log was delivered to the order service, by which edge, and what is set aside.
    Delivery {
        /// The sale's id.
        sale: String,
    },
    /// Deliver the events that the order service refused, after all.
    Redeliver {
        /// The sale's id.
        sale: String,
    },
    /// Show one order.
    Order {
        /// The sale's id.
        sale: String,
        /// The order's id.
        order: OrderId,
    },
    /// Take a payment for an order; the same payment may be told again.
    Confirm {
        /// The sale's id.
        sale: String,
        /// The order's id.
        order: OrderId,
        /// The payment's id: 1 to 64 of A-Z, a-z, 0-9, ".", "_", ":" and "-".
        #[arg(long)]
        payment: String,
    },
    /// Release an order that is not paid; an id without an order is given up, so that none can be made under it.
    Cancel {
        /// The sale's id.
        sale: String,
        /// The order's id.
        order: OrderId,
    },
    /// Release at once what was not paid in time; the edges do so by themselves.
    Sweep {
        /// The sale's id.
        sale: String,
    },
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(LOG)).format_target(false).init();
    let done = match Cli::parse().command {
        Command::Run(run) => run_edge(run),
        Command::Check { config } => check(&config),
        Command::Sale { place, step } => manage(&place, step),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> Result<Config, String> {
    Config::load(path).map_err(|errors| format!("{errors}\n{}: nothing was started", path.display()))
}

fn run_edge(run: Run) -> Result<(), String> {
    let mut config = load(&run.config)?;
    if !run.listen.is_empty() {
        config.listen = run.listen;
    }
    if let Some(address) = run.control {
        config.control.listen = address;
    }
    if let Some(url) = run.redis {
        config.ledger.store = Store::redis(url);
    }
    let with = "nothing was started, with what the command line says";
    config.check().map_err(|errors| format!("{errors}\n{}: {with}", run.config.display()))?;
    server::run(config).map_err(|error| error.to_string())
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn check(path: &Path) -> Result<(), String> {
    Config::load(path).map_err(|errors| errors.to_string())?;
    println!("{}: ok", path.display());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn manage(place: &Place, step: Step) -> Result<(), String> {
    let wish = match step {
        Step::List => Wish::List,
        Step::Show { sale } => Wish::Show { sale },
        Step::Open { sale, total } => Wish::Open { sale, total },
        Step::Pause { sale } => Wish::Switch { sale, step: "pause" },
        Step::Resume { sale } => Wish::Switch { sale, step: "resume" },
        Step::Close { sale } => Wish::Switch { sale, step: "close" },
        Step::Delivery { sale } => Wish::Delivery { sale },
        Step::Redeliver { sale } => Wish::Redeliver { sale },
        Step::Order { sale, order } => Wish::Order { sale, order },
        Step::Confirm { sale, order, payment } => Wish::Confirm { sale, order, payment },
        Step::Cancel { sale, order } => Wish::Cancel { sale, order },
        Step::Sweep { sale } => Wish::Switch { sale, step: "sweep" },
        Step::AddStock { sale, delta, change_id } => {
            Wish::Stock { sale, change_id: change_id.unwrap_or_else(new_change_id), delta }
        }
    };
    let document = client::ask(&place.control, place.token.as_deref(), &wish).map_err(|error| match &wish {
        // Whoever lost the answer has to be able to ask for the same change again.
        Wish::Stock { change_id, .. } => format!("{error} (change id {change_id})"),
        _ => error.to_string(),
    })?;
    println!("{document:#}");
    Ok(())
}

fn new_change_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
