//! `spikegate-orders`: the order service's command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use clap::Parser;
use spikegate_orders::api::{self, Service};
use spikegate_orders::cashier::Cashier;
use spikegate_orders::database::Database;
use spikegate_orders::edge::Edge;
use spikegate_orders::payment::Demo;
use spikegate_orders::signature::SecretFile;
use spikegate_orders::{designs, echo, health, page, sales_page, server};

/// The order service. With a database it keeps orders and takes payments; every other path is answered with what
/// arrived, as the demo's backends do.
#[derive(Parser)]
#[command(name = "spikegate-orders", version)]
struct Arguments {
    /// Where to listen; with port 0 the system chooses one, and the first line of output says which.
    #[arg(long, env = "ORDERS_LISTEN", default_value = "127.0.0.1:3001", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Serve nothing, but ask the service that listens there whether it is alive; the exit code is 0 if it is. For the
    /// health checks of containers.
    #[arg(long)]
    health: bool,
    /// What every answer's X-Backend says; by default the address.
    #[arg(long, env = "ORDERS_NAME")]
    name: Option<String>,
    /// Where orders are kept: sqlite:FILE, which processes of one machine may share, or postgres://... Without it there
    /// are no orders.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The edge's control listener.
    #[arg(long, default_value = "http://127.0.0.1:9180", value_name = "URL", requires = "database")]
    control: String,
    /// A file with the token that the control listener demands, if it does.
    #[arg(long, value_name = "FILE", requires = "database")]
    control_token_file: Option<PathBuf>,
    /// The file with the secret that deliveries are signed with. The edge makes it; until then, deliveries are put off.
    #[arg(long, default_value = "data/delivery.secret", value_name = "FILE", requires = "database")]
    secret_file: PathBuf,
    /// Who takes the money: demo, demo:approve, demo:decline, demo:slow=2s or demo:twice.
    #[arg(long, default_value = "demo", value_name = "PROVIDER", requires = "database")]
    payment: Demo,
    /// Also the two designs that Spikegate is compared with (docs/internals/designs.md), at /designs/. For measuring
    /// only; needs PostgreSQL.
    #[arg(long, requires = "database")]
    designs: bool,
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

/// The order service proper, its worker going.
async fn service(database: &str, arguments: &Arguments) -> Result<Router, String> {
    let token = match &arguments.control_token_file {
        Some(file) => {
            let read = std::fs::read_to_string(file);
            Some(read.map_err(|error| format!("--control-token-file {}: {error}", file.display()))?)
        }
        None => None,
    };
    let edge = Arc::new(Edge::new(&arguments.control, token.as_deref()).map_err(|error| error.to_string())?);
    let designs = if arguments.designs {
        designs::routes(database).await.map_err(|error| error.to_string())?
    } else {
        Router::new()
    };
    let database = Database::open(database).await.map_err(|error| error.to_string())?;
    let cashier = Arc::new(Cashier::new(database.clone(), Arc::clone(&edge), Box::new(arguments.payment)));
    tokio::spawn(Arc::clone(&cashier).work());
    let secret = SecretFile::new(arguments.secret_file.clone());
    let pages = sales_page::routes(Arc::clone(&edge));
    Ok(api::routes(Service { database, edge, cashier, secret }).merge(pages).merge(designs))
}
