//! What the edge is told while it runs, by signals and by the control listener.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::control::Errand;

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
pub enum Told {
    /// What is under way is finished.
    Finish,
    /// At once.
    Abort,
}

/// What comes next.
pub enum Event {
    /// The end.
    End(Told),
    /// Logs were moved away, and are to be opened again.
    Reopen,
    /// Something to do, and then to go on.
    Errand(Errand),
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
    pub async fn next(&mut self, errands: &mut mpsc::Receiver<Errand>) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::End(Told::Finish),
            _ = self.interrupt.recv() => Event::End(Told::Abort),
            _ = self.hangup.recv() => Event::Errand(Errand::Reload(None)),
            _ = self.user1.recv() => Event::Reopen,
            _ = self.upgrade.recv() => Event::Errand(Errand::Upgrade(None)),
            Some(errand) = errands.recv() => Event::Errand(errand),
        }
    }

    /// Waits for a signal that ends the edge.
    pub async fn end(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Finish,
            _ = self.interrupt.recv() => Told::Abort,
        }
    }

    /// Does something that may take its time, unless the edge is told to end meanwhile.
    ///
    /// # Errors
    /// How it is to end.
    pub async fn unless_told<T>(&mut self, something: impl Future<Output = T>) -> Result<T, Told> {
        tokio::select! {
            done = something => Ok(done),
            told = self.end() => Err(told),
        }
    }
}
