//! The command line. Exit codes: 0 for done, 1 for a configuration or a start that failed, 2 for wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use spikegate::config::Config;
use spikegate::server;

/// What is logged unless RUST_LOG says otherwise. Failed requests are logged by the proxy, once and not in floods;
/// pingora_proxy's own lines say no more of them, and any client could make as many as it likes.
const LOG: &str = "info,pingora_core=warn,pingora_proxy=off";

/// An edge proxy that sells tickets: exactly what there is, in front of weighted backends.
#[derive(Parser)]
#[command(name = "spikegate", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an edge, until SIGTERM (finishes requests under way) or SIGINT (at once)
    Run(File),
    /// Say whether the settings are right, or everything that is wrong with them
    Check(File),
}

#[derive(Args)]
struct File {
    /// The settings
    #[arg(long, value_name = "FILE", default_value = "conf/spikegate.yaml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(LOG)).init();
    let done = match CommandLine::parse().command {
        Command::Run(file) => load(&file).and_then(|config| server::run(config).map_err(|error| error.to_string())),
        Command::Check(file) => load(&file).map(|_| eprintln!("{}: right", file.config.display())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}", why.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn load(file: &File) -> Result<Config, String> {
    Config::load(&file.config).map_err(|errors| format!("{}:\n{errors}", file.config.display()))
}
