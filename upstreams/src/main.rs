//! `spikegate-orders`: the order service's command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use clap::Parser;
use spikegate_orders::api::{self, Service};
use spikegate_orders::database::Database;
use spikegate_orders::edge::EdgeClient;
use spikegate_orders::payment::DemoProvider;
use spikegate_orders::settlement_worker::SettlementWorker;
use spikegate_orders::signature::SecretFile;
use spikegate_orders::{echo, health, page, sales_page, server};

/// Spikegate's order service. With a database it stores orders and takes payments. All other paths return a description
/// of the request, as the demo's backends do.
#[derive(Parser)]
#[command(name = "spikegate-orders", version)]
struct Arguments {
    /// Address to listen on. With port 0 the system chooses a free port; the first line of output shows it.
    #[arg(long, env = "ORDERS_LISTEN", default_value = "127.0.0.1:3001", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Check the service that listens on this address instead of starting one. The exit code is 0 if it is alive. Meant
    /// for container health checks.
    #[arg(long)]
    health: bool,
    /// Value of the X-Backend response header [default: the listen address].
    #[arg(long, env = "ORDERS_NAME")]
    name: Option<String>,
    /// Database for orders: sqlite:FILE, which processes on one machine can share, or postgres://... Without a database
    /// the service stores no orders.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// URL of the edge's control listener.
    #[arg(long, default_value = "http://127.0.0.1:9180", value_name = "URL", requires = "database")]
    control: String,
    /// File with the token of the control listener, if it requires one.
    #[arg(long, value_name = "FILE", requires = "database")]
    control_token_file: Option<PathBuf>,
    /// File with the secret that signs deliveries. The edge creates it. Until the file exists, deliveries get a 503 and
    /// the edge retries them.
    #[arg(long, default_value = "data/delivery.secret", value_name = "FILE", requires = "database")]
    secret_file: PathBuf,
    /// Payment provider: demo (the same as demo:approve), demo:decline, demo:slow=2s or demo:twice.
    #[arg(long, default_value = "demo", value_name = "PROVIDER", requires = "database")]
    payment: DemoProvider,
}

#[tokio::main]
async fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("spikegate-orders: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    if arguments.health {
        return health::ask(arguments.listen).map_err(|error| format!("{}: {error}", arguments.listen));
    }
    let listener = server::bind(arguments.listen).await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let name = arguments.name.clone().unwrap_or_else(|| address.to_string());
    let service = match &arguments.database {
        Some(url) => service(url, &arguments).await?,
        None => api::without_database(),
    };
    let start = arguments.database.is_some().then_some(sales_page::PATH);
    let routes = echo::routes(&name, start, service)?.merge(page::routes());
    server::serve(listener, routes).await.map_err(|error| error.to_string())
}

/// Opens the database, starts the settlement worker and returns the routes.
async fn service(database: &str, arguments: &Arguments) -> Result<Router, String> {
    let token = match &arguments.control_token_file {
        Some(file) => {
            let read = std::fs::read_to_string(file);
            Some(read.map_err(|error| format!("--control-token-file {}: {error}", file.display()))?)
        }
        None => None,
    };
    let edge = Arc::new(EdgeClient::new(&arguments.control, token.as_deref()).map_err(|error| error.to_string())?);
    let database = Database::open(database).await.map_err(|error| error.to_string())?;
    let worker = Arc::new(SettlementWorker::new(database.clone(), Arc::clone(&edge), Box::new(arguments.payment)));
    tokio::spawn(Arc::clone(&worker).work());
    let secret = SecretFile::new(arguments.secret_file.clone());
    let pages = sales_page::routes(Arc::clone(&edge));
    Ok(api::routes(Service { database, edge, worker, secret }).merge(pages))
}
