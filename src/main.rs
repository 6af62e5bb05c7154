//! The command line. Exit codes: 0 for done, 1 for a configuration or a start that failed, 2 for wrong usage, 3 for
//! differences that `sale reconcile` leaves.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use spikegate::auth::admission::{Keys, Pass};
use spikegate::auth::secret::Secret;
use spikegate::config::{Config, Errors, Store};
use spikegate::control::client::{self, Wish};
use spikegate::ledger::OrderId;
use spikegate::observe::error_log;
use spikegate::server;

/// The exit code of a reconciliation that found more than it put right.
const DIFFERENCES_LEFT: u8 = 3;

/// How long the last lines of the error log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An edge proxy that sells tickets: exactly what there is, in front of weighted backends.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an edge until SIGTERM (which lets requests under way finish) or SIGINT. SIGHUP: reload; SIGUSR2: upgrade.
    Run(Run),
    /// Read a configuration file and say everything that is wrong with it.
    Check {
        /// The file.
        #[arg(long, short, default_value = "conf/spikegate.yaml")]
        config: PathBuf,
    },
    /// Have a running edge work by its configuration file as it is now, without losing a connection; prints what has changed and
    /// what needs a restart. If anything is wrong with the file, nothing changes.
    Reload {
        #[command(flatten)]
        place: Place,
    },
    /// Have a running edge start its program again, which may be another by now, and leave its sockets to it, without losing a
    /// connection; prints the number of the new process.
    Upgrade {
        #[command(flatten)]
        place: Place,
    },
    /// Manage the sales of a running edge.
    Sale {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        step: Step,
    },
    /// Make admission tokens for a sale, and look at them (docs/integrating/admission.md).
    Admission {
        #[command(subcommand)]
        step: Admission,
    },
    /// Ask a running edge whether it is alive; the exit code is 0 if it is. For the health checks of containers.
    Health {
        /// The control listener.
        #[arg(long, env = "SPIKEGATE_CONTROL", default_value = CONTROL)]
        control: String,
        /// Ask whether it is ready, too: whether it has lately heard of the ledger of every sale.
        #[arg(long)]
        ready: bool,
    },
    /// Print the completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages, one for each command.
    #[command(hide = true)]
    Man {
        /// An existing folder.
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Admission {
    /// Print a token.
    Sign {
        /// The sale's id.
        #[arg(long)]
        sale: String,
        /// The file with the key.
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
        /// The only buyer who may use it; left out, whoever has it may.
        #[arg(long)]
        buyer: Option<String>,
        /// From when on it admits, such as 2026-12-01T20:00:00+08:00; left out, from now on.
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// How long it admits, such as 10m or 2h.
        #[arg(long, value_name = "TIME", default_value = "10m")]
        valid: SignedDuration,
    },
    /// Say whether a token admits now; the exit code is 0 if it does.
    Verify {
        /// The sale's id.
        #[arg(long)]
        sale: String,
        /// The file with the key; may be given several times.
        #[arg(long, value_name = "FILE", required = true)]
        key_file: Vec<PathBuf>,
        /// Who buys.
        #[arg(long)]
        buyer: Option<String>,
        /// The token.
        token: String,
    },
}

/// Where the control listener is, unless somebody says otherwise.
const CONTROL: &str = "127.0.0.1:9180";

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
    #[arg(long, env = "SPIKEGATE_CONTROL", default_value = CONTROL, global = true)]
    control: String,
    /// Its token.
    #[arg(long, env = "SPIKEGATE_CONTROL_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
    /// A file with its token, if the token itself is not given.
    #[arg(long, env = "SPIKEGATE_CONTROL_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

impl Run {
    /// The command line has the last word, whenever the file is read.
    fn overrule(&self, config: &mut Config) {
        if !self.listen.is_empty() {
            config.listen = self.listen.iter().copied().map(Into::into).collect();
        }
        if let Some(address) = self.control {
            config.control.listen = address;
        }
        if let Some(url) = &self.redis {
            config.ledger.store = Store::redis(url.clone());
        }
    }
}

impl Place {
    fn token(&self) -> Result<Option<String>, String> {
        match (&self.token, &self.token_file) {
            (None, Some(file)) => {
                let read = std::fs::read_to_string(file);
                let token = read.map_err(|error| format!("--token-file {}: {error}", file.display()))?;
                Ok(Some(token.trim_end().to_owned()))
            }
            (token, _) => Ok(token.clone()),
        }
    }
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
    /// Compare what the ledger has of the sale with its log, with what this edge remembers and with the order service; exit
    /// code 3 if differences are left.
    Reconcile {
        /// The sale's id.
        sale: String,
        /// Put right what is found, and sell again; only of a sale that is fenced, paused or closed.
        #[arg(long)]
        apply: bool,
        /// Go on if the order service cannot be asked.
        #[arg(long)]
        without_order_service: bool,
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
    error_log::begin();
    let done = match Cli::parse().command {
        Command::Run(run) => run_edge(run).map(|()| ExitCode::SUCCESS),
        Command::Check { config } => check(&config).map(|()| ExitCode::SUCCESS),
        Command::Reload { place } => ask(&place, &Wish::Reload),
        Command::Upgrade { place } => ask(&place, &Wish::Upgrade),
        Command::Sale { place, step } => manage(&place, step),
        Command::Admission { step } => admission(step).map(|()| ExitCode::SUCCESS),
        Command::Health { control, ready } => health(&control, ready).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => completions(shell).map(|()| ExitCode::SUCCESS),
        Command::Man { folder } => man(&folder).map(|()| ExitCode::SUCCESS),
    };
    error_log::flush(LAST_LINES);
    match done {
        Ok(code) => code,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn admission(step: Admission) -> Result<(), String> {
    let key = |file: &PathBuf| match Secret::read(file) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(format!("--key-file {}: there is no such file", file.display())),
        Err(error) => Err(format!("--key-file {}: {error}", file.display())),
    };
    match step {
        Admission::Sign { sale, key_file, buyer, from, valid } => {
            let from_s =
                u64::try_from(from.unwrap_or_else(Timestamp::now).as_second()).map_err(|_| "--from: before 1970")?;
            let valid_s = u64::try_from(valid.as_secs()).ok().filter(|seconds| *seconds > 0);
            let valid_s = valid_s.ok_or("--valid: less than a second")?;
            let pass = Pass { sale: &sale, buyer: buyer.as_deref(), from_s, until_s: from_s.saturating_add(valid_s) };
            println!("{}", pass.sign(&key(&key_file)?));
        }
        Admission::Verify { sale, key_file, buyer, token } => {
            let keys = Keys(key_file.iter().map(key).collect::<Result<_, _>>()?);
            let now_s = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
            keys.check(Some(&token), &sale, buyer.as_deref(), now_s).map_err(|denied| denied.to_string())?;
            println!("it admits");
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<Config, String> {
    Config::load(path).map_err(|errors| format!("{errors}\n{}: nothing was started", path.display()))
}

fn run_edge(run: Run) -> Result<(), String> {
    let mut config = load(&run.config)?;
    run.overrule(&mut config);
    let with = "nothing was started, with what the command line says";
    config.check().map_err(|errors| format!("{errors}\n{}: {with}", run.config.display()))?;
    let again = move || {
        let read = || {
            let mut config = Config::load(&run.config)?;
            run.overrule(&mut config);
            config.check()?;
            Ok(config)
        };
        read().map_err(|errors: Errors| errors.to_string())
    };
    server::run(config, Arc::new(again)).map_err(|error| error.to_string())
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn ask(place: &Place, wish: &Wish) -> Result<ExitCode, String> {
    let document = client::ask(&place.control, place.token()?.as_deref(), wish).map_err(|error| error.to_string())?;
    println!("{document:#}");
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn check(path: &Path) -> Result<(), String> {
    let config = Config::load(path).map_err(|errors| errors.to_string())?;
    let certificates = config.listen.iter().filter_map(|listener| listener.tls.as_ref());
    let warnings = certificates.flat_map(|tls| tls.warnings(SystemTime::now()));
    warnings.for_each(|warning| println!("warning: {warning}"));
    println!("{}: ok", path.display());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn manage(place: &Place, step: Step) -> Result<ExitCode, String> {
    let wish = match step {
        Step::List => Wish::List,
        Step::Show { sale } => Wish::Show { sale },
        Step::Open { sale, total } => Wish::Open { sale, total },
        Step::Pause { sale } => Wish::Switch { sale, step: "pause" },
        Step::Resume { sale } => Wish::Switch { sale, step: "resume" },
        Step::Close { sale } => Wish::Switch { sale, step: "close" },
        Step::Reconcile { sale, apply, without_order_service } => {
            Wish::Reconcile { sale, apply, without_order_service }
        }
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
    let document = client::ask(&place.control, place.token()?.as_deref(), &wish).map_err(|error| match &wish {
        // Whoever lost the answer has to be able to ask for the same change again.
        Wish::Stock { change_id, .. } => format!("{error} (change id {change_id})"),
        _ => error.to_string(),
    })?;
    println!("{document:#}");
    let leaves = matches!(wish, Wish::Reconcile { .. }) && document["left"] != Value::Array(Vec::new());
    Ok(if leaves { ExitCode::from(DIFFERENCES_LEFT) } else { ExitCode::SUCCESS })
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn health(control: &str, ready: bool) -> Result<(), String> {
    let answer = client::health(control, ready).map_err(|error| error.to_string())?;
    print!("{answer}");
    Ok(())
}

fn completions(shell: Shell) -> Result<(), String> {
    // Gathered first, since the generator panics when a pipe is closed early.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "spikegate", &mut script);
    std::io::stdout().write_all(&script).map_err(|error| error.to_string())
}

fn man(folder: &Path) -> Result<(), String> {
    clap_mangen::generate_to(Cli::command(), folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn new_change_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
