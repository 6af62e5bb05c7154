//! Listens, says so, serves, and ends when it is told to.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long requests under way may take to end once the process was told to.
pub const GRACE: Duration = Duration::from_secs(5);

/// Takes the address.
///
/// # Errors
///
/// It cannot be had; the message names it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Serves until SIGTERM or SIGINT, then lets requests under way end, for as long as [`GRACE`].
///
/// Once it is ready, it writes `listening on ADDRESS` to standard output, with the port that it really has.
///
/// # Errors
///
/// No signal handler could be set up, or standard output is closed.
pub async fn serve(listener: TcpListener, routes: Router) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopping) = oneshot::channel::<()>();

    let mut output = io::stdout();
    writeln!(output, "listening on {}", listener.local_addr()?)?;
    output.flush()?;

    let listener = listener.tap_io(|connection| {
        // Only a hint: a connection on which it fails is served all the same.
        let _ = connection.set_nodelay(true);
    });
    let server = axum::serve(listener, routes).with_graceful_shutdown(async move {
        // Whether the sender spoke or went away, it is the end.
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
            log::warn!("requests still under way after {GRACE:?} are given up");
            Ok(())
        }
    }
}
