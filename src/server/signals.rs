//! Signals and commands to a running edge.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::control::ProcessCommand;

/// Caught from the very beginning: an edge that answers must also be one that can be stopped cleanly.
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
    /// What is under way is finished.
    Graceful,
    /// At once.
    Now,
}

/// What comes next.
pub enum Event {
    /// The end.
    End(StopMode),
    /// Logs were moved away, and are to be opened again.
    Reopen,
    /// Something to do, and then to go on.
    ProcessCommand(ProcessCommand),
}

impl Signals {
    /// Begins to catch them, on the present runtime.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            // As in Nginx.
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal, or for what somebody asks of the control listener.
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

    /// Waits for a signal that ends the edge.
    pub async fn end(&mut self) -> StopMode {
        tokio::select! {
            _ = self.terminate.recv() => StopMode::Graceful,
            _ = self.interrupt.recv() => StopMode::Now,
        }
    }

    /// Does something that may take its time, unless a signal stops the edge meanwhile.
    ///
    /// # Errors
    /// How it is to end.
    pub async fn unless_stopped<T>(&mut self, something: impl Future<Output = T>) -> Result<T, StopMode> {
        tokio::select! {
            done = something => Ok(done),
            mode = self.end() => Err(mode),
        }
    }
}
