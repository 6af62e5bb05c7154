//! The command line. Exit codes: 0 for success, 1 for a configuration or a start that failed, 2 for wrong usage, 3 for
//! differences that `sale reconcile` leaves.

mod admission;
mod client;
mod run;
mod sale;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde_json::Value;

use self::admission::AdmissionCommand;
use self::client::Call;
use self::run::Run;
use self::sale::SaleCommand;
use crate::observe::error_log;

/// How long the last lines of the error log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long a reload or an upgrade may take: names are looked up, requests under way finish, a long log is read.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(300);

/// The address of the control listener, unless an option or the environment gives another.
const CONTROL: &str = "127.0.0.1:9180";

/// An edge proxy that sells tickets: exactly the stock there is, in front of weighted backends.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an edge. SIGTERM: finish requests under way, then exit; SIGINT: exit now; SIGHUP: reload the configuration;
    /// SIGUSR1: reopen the logs; SIGUSR2: upgrade to the program file as it is now.
    Run(Run),
    /// Check a configuration file and print everything that is wrong with it. Needs no network.
    Check {
        /// Path of the configuration file.
        #[arg(long, short, default_value = "conf/spikegate.yaml")]
        config: PathBuf,
        /// Also look up the names of backends, as a start does.
        #[arg(long)]
        resolve: bool,
    },
    /// Make a running edge reload its configuration file without closing a connection; print the settings that changed
    /// and those that need a restart. If the file has an error, nothing changes.
    Reload {
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Replace a running edge by a new process of its program file, which may be a new version, without closing a
    /// connection; print the new process id.
    Upgrade {
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Manage the sales of a running edge.
    Sale {
        #[command(flatten)]
        target: ControlTarget,
        #[command(subcommand)]
        command: SaleCommand,
    },
    /// Create and check admission tokens for a sale.
    Admission {
        #[command(subcommand)]
        command: AdmissionCommand,
    },
    /// Check whether a running edge is alive; exit code 0 if it is. For container health checks.
    Health {
        /// Address of the control listener.
        #[arg(long, env = "SPIKEGATE_CONTROL", default_value = CONTROL)]
        control: String,
        /// Check readiness instead: whether every sale has recent data from its ledger.
        #[arg(long)]
        ready: bool,
    },
    /// Print the completion script for a shell.
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

/// The running edge that a command talks to.
#[derive(Debug, Args)]
struct ControlTarget {
    /// Address of the control listener.
    #[arg(long, env = "SPIKEGATE_CONTROL", default_value = CONTROL, global = true)]
    control: String,
    /// Token of the control listener.
    #[arg(long, env = "SPIKEGATE_CONTROL_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
    /// File that contains the token; used only without --token.
    #[arg(long, env = "SPIKEGATE_CONTROL_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

impl ControlTarget {
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

    /// Makes the call, prints its answer and gives it.
    fn call(&self, call: &Call) -> Result<Value, String> {
        let answer = client::call(&self.control, self.token()?.as_deref(), call).map_err(|error| error.to_string())?;
        print(&format!("{answer:#}\n"))?;
        Ok(answer)
    }
}

/// Runs the command that the arguments of the process name.
#[must_use]
pub fn main() -> ExitCode {
    error_log::begin();
    let result = match Cli::parse().command {
        Command::Run(run) => run::run(run).map(|()| ExitCode::SUCCESS),
        Command::Check { config, resolve } => run::check(&config, resolve).map(|()| ExitCode::SUCCESS),
        Command::Reload { target } => process_command(&target, "/reload"),
        Command::Upgrade { target } => process_command(&target, "/upgrade"),
        Command::Sale { target, command } => sale::run(&target, command),
        Command::Admission { command } => admission::run(command).map(|()| ExitCode::SUCCESS),
        Command::Health { control, ready } => health(&control, ready).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => completions(shell).map(|()| ExitCode::SUCCESS),
        Command::Man { folder } => man(&folder).map(|()| ExitCode::SUCCESS),
    };
    error_log::flush(LAST_LINES);
    match result {
        Ok(code) => code,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the result of a command. A reader that has seen enough (`| head -1`) is no error.
fn print(text: &str) -> Result<(), String> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

fn process_command(target: &ControlTarget, path: &str) -> Result<ExitCode, String> {
    let call = Call { timeout: PROCESS_TIMEOUT, ..Call::post(path, Value::Object(serde_json::Map::new())) };
    target.call(&call).map(|_| ExitCode::SUCCESS)
}

fn health(control: &str, ready: bool) -> Result<(), String> {
    let answer = client::health(control, ready).map_err(|error| error.to_string())?;
    print(&answer)
}

fn completions(shell: Shell) -> Result<(), String> {
    // Collected first, since the generator panics when a pipe is closed early.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "spikegate", &mut script);
    print(&String::from_utf8_lossy(&script))
}

fn man(folder: &Path) -> Result<(), String> {
    clap_mangen::generate_to(Cli::command(), folder).map_err(|error| format!("{}: {error}", folder.display()))
}
