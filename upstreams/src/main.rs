//! `orders`: the order service's command line.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use upstreams::{echo, page, server};

/// The order service; for now it answers every path with what arrived, as the demo's backends do.
#[derive(Parser)]
#[command(name = "orders", version)]
struct Arguments {
    /// Where to listen; with port 0 the system chooses one, and the first line of output says which.
    #[arg(long, default_value = "127.0.0.1:3001", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What every answer's X-Backend says; by default the address.
    #[arg(long)]
    name: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("orders: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let listener = server::bind(arguments.listen).await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let name = arguments.name.unwrap_or_else(|| address.to_string());
    server::serve(listener, echo::routes(&name)?.merge(page::routes())).await.map_err(|error| error.to_string())
}
