//! `spikegate run` and `spikegate check`: from the configuration file and the command line to settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;

use crate::config::{Config, Errors, Store};
use crate::server;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Path of the configuration file.
    #[arg(long, short, default_value = "conf/spikegate.yaml")]
    config: PathBuf,
    /// Listen on this address instead of those in the file; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<SocketAddr>,
    /// Address of the control listener instead of the one in the file; off loopback, the file must set a token.
    #[arg(long, value_name = "ADDRESS")]
    control: Option<SocketAddr>,
    /// Use this Redis as the ledger instead of the one in the file.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

impl Run {
    /// The settings, each time that the file is read: options of the command line replace those in the file.
    fn settings(&self) -> Result<Config, Errors> {
        let mut config = Config::load(&self.config)?;
        if !self.listen.is_empty() {
            config.listen = self.listen.iter().copied().map(Into::into).collect();
        }
        if let Some(address) = self.control {
            config.control.listen = address;
        }
        if let Some(url) = &self.redis {
            config.ledger.store = Store::redis(url.clone());
        }
        config.check()?;
        config.resolve()?;
        Ok(config)
    }
}

pub(super) fn run(run: Run) -> Result<(), String> {
    let config = run.settings().map_err(|errors| format!("{errors}\n{}: not started", run.config.display()))?;
    let read_again = move || run.settings().map_err(|errors| errors.to_string());
    server::run(config, Arc::new(read_again)).map_err(|error| error.to_string())
}

pub(super) fn check(path: &Path, resolve: bool) -> Result<(), String> {
    let mut config = Config::load(path).map_err(|errors| errors.to_string())?;
    if resolve {
        config.resolve().map_err(|errors| errors.to_string())?;
    }
    let certificates = config.listen.iter().filter_map(|listener| listener.tls.as_ref());
    let warnings = certificates.flat_map(|tls| tls.warnings(SystemTime::now()));
    let warnings: String = warnings.map(|warning| format!("warning: {warning}\n")).collect();
    super::print(&format!("{warnings}{}: ok\n", path.display()))
}
