//! Signals and commands to a running edge.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::control::ProcessCommand;

/// Signals are caught from the very beginning: an edge that answers must be able to stop cleanly.
pub struct Signals {
    pub terminate: Signal,
    pub interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    upgrade: Signal,
}

/// How an edge ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Finish requests under way.
    Graceful,
    /// Stop at once.
    Now,
}

/// The next event.
pub enum Event {
    /// Stop.
    End(StopMode),
    /// Reopen the logs after rotation.
    Reopen,
    /// Perform a command, then continue.
    ProcessCommand(ProcessCommand),
}

impl Signals {
    /// Starts to catch signals, on the present runtime.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            // As in nginx.
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal or a command from the control listener.
    pub async fn next(&mut self, process_commands: &mut mpsc::Receiver<ProcessCommand>) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::End(StopMode::Graceful),
            _ = self.interrupt.recv() => Event::End(StopMode::Now),
            _ = self.hangup.recv() => Event::ProcessCommand(ProcessCommand::Reload(None)),
            _ = self.user1.recv() => Event::Reopen,
            _ = self.upgrade.recv() => Event::ProcessCommand(ProcessCommand::Upgrade(None)),
            Some(command) = process_commands.recv() => Event::ProcessCommand(command),
        }
    }

    /// Waits for a signal that stops the edge.
    pub async fn end(&mut self) -> StopMode {
        tokio::select! {
            _ = self.terminate.recv() => StopMode::Graceful,
            _ = self.interrupt.recv() => StopMode::Now,
        }
    }

    /// Runs something that may take long, unless a signal stops the edge meanwhile.
    ///
    /// # Errors
    /// The stop mode.
    pub async fn unless_stopped<T>(&mut self, something: impl Future<Output = T>) -> Result<T, StopMode> {
        tokio::select! {
            done = something => Ok(done),
            mode = self.end() => Err(mode),
        }
    }
}
