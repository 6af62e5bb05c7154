//! Listens, serves and shuts down gracefully.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long requests in progress may take to finish after a stop signal.
pub const GRACE: Duration = Duration::from_secs(5);

/// Binds the address.
///
/// # Errors
///
/// The address cannot be bound; the message names it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Serves until SIGTERM or SIGINT, then waits at most [`GRACE`] for requests in progress.
///
/// When it is ready it writes `listening on ADDRESS` to standard output, with the actual port.
///
/// # Errors
///
/// A signal handler cannot be installed, or standard output is closed.
pub async fn serve(listener: TcpListener, routes: Router) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopping) = oneshot::channel::<()>();

    let mut output = io::stdout();
    writeln!(output, "listening on {}", listener.local_addr()?)?;
    output.flush()?;

    let listener = listener.tap_io(|connection| {
        // An optimization: if it fails, the connection is served anyway.
        let _ = connection.set_nodelay(true);
    });
    let server = axum::serve(listener, routes).with_graceful_shutdown(async move {
        // A dropped sender also means stop.
        let _ = stopping.await;
    });
    let mut server = std::pin::pin!(server.into_future());

    tokio::select! {
        ended = &mut server => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(stop);
    match tokio::time::timeout(GRACE, server).await {
        Ok(ended) => ended,
        Err(_) => {
            log::warn!("aborted requests that were still in progress {GRACE:?} after the stop signal");
            Ok(())
        }
    }
}
