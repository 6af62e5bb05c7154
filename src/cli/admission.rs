//! `spikegate admission`: creates and checks admission tokens, without an edge.

use std::path::PathBuf;

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};

use crate::auth::admission::{Keys, Pass};
use crate::auth::secret::Secret;

#[derive(Debug, Subcommand)]
pub(super) enum AdmissionCommand {
    /// Print a new token.
    Sign {
        /// Id of the sale.
        #[arg(long)]
        sale: String,
        /// File that contains the key.
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
        /// The only buyer who may use the token; without it, anyone may.
        #[arg(long)]
        buyer: Option<String>,
        /// Start of the token's validity, such as 2026-12-01T20:00:00+08:00; default: now.
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// Length of the token's validity, such as 10m or 2h.
        #[arg(long, value_name = "TIME", default_value = "10m")]
        valid: SignedDuration,
    },
    /// Check whether a token is valid now; exit code 0 if it is.
    Verify {
        /// Id of the sale.
        #[arg(long)]
        sale: String,
        /// File that contains a key; may be given several times.
        #[arg(long, value_name = "FILE", required = true)]
        key_file: Vec<PathBuf>,
        /// Id of the buyer.
        #[arg(long)]
        buyer: Option<String>,
        /// The token.
        token: String,
    },
}

pub(super) fn run(command: AdmissionCommand) -> Result<(), String> {
    let key = |file: &PathBuf| match Secret::read(file) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(format!("--key-file {}: there is no such file", file.display())),
        Err(error) => Err(format!("--key-file {}: {error}", file.display())),
    };
    match command {
        AdmissionCommand::Sign { sale, key_file, buyer, from, valid } => {
            let from_s =
                u64::try_from(from.unwrap_or_else(Timestamp::now).as_second()).map_err(|_| "--from: before 1970")?;
            let valid_s = u64::try_from(valid.as_secs()).ok().filter(|seconds| *seconds > 0);
            let valid_s = valid_s.ok_or("--valid: less than a second")?;
            let pass = Pass { sale: &sale, buyer: buyer.as_deref(), from_s, until_s: from_s.saturating_add(valid_s) };
            super::print(&format!("{}\n", pass.sign(&key(&key_file)?)))
        }
        AdmissionCommand::Verify { sale, key_file, buyer, token } => {
            let keys = Keys(key_file.iter().map(key).collect::<Result<_, _>>()?);
            let now_s = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
            keys.check(Some(&token), &sale, buyer.as_deref(), now_s).map_err(|denied| denied.to_string())?;
            super::print("the token is valid\n")
        }
    }
}
