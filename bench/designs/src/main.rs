//! Serves the designs: `designs --listen 127.0.0.1:0 --database postgres://...`.
//!
//! The first line of output shows the address.

use std::net::SocketAddr;
use std::process::ExitCode;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args().skip(1)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("designs: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let (mut listen, mut database) = (SocketAddr::from(([127, 0, 0, 1], 3001)), None);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--listen" => listen = value.parse().map_err(|error| format!("--listen {value}: {error}"))?,
            "--database" => database = Some(value),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    let database = database.ok_or("--database postgres://... is missing")?;
    let routes = designs::routes(&database).await.map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    println!("listening on {}", listener.local_addr().map_err(|error| error.to_string())?);
    let listener = listener.tap_io(|connection| {
        // An optimization: if it fails, the connection is served anyway.
        let _ = connection.set_nodelay(true);
    });
    axum::serve(listener, routes).await.map_err(|error| error.to_string())
}
