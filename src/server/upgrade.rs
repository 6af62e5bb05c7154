//! Replaces a running edge without closing a connection: hands over the listening sockets, and an embedded ledger as
//! well.
//!
//! The old process starts its own program file, which may be a new version, with the same arguments. The standard input
//! of the new process is a socket between the two. It carries the listening sockets (`SCM_RIGHTS`) and then messages,
//! one per line:
//!
//! ```text
//! new: checked   the configuration is valid and everything but the ledger is ready
//! old: go        the ledger is closed (a shared ledger needs no closing)
//! new: ready     connections are accepted
//! ```
//! From then on the old process accepts no connections. Every wait for a message is bounded. A new process that fails
//! is ended, and the old one continues.
//! one that fails is ended, and forgotten.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::StartError;

/// Environment variable that marks the new process.
const FOLLOWS: &str = "SPIKEGATE_FOLLOWS";

/// How long to wait for the next message: a long log has to be read, and a busy machine may be slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the old process may take to close the ledger: the longest grace, and more.
const TURN_PATIENCE: Duration = Duration::from_secs(120);

/// The most sockets that one message carries (Linux: `SCM_MAX_FD`).
const SOCKETS_MAX: usize = 253;

const CHECKED: &str = "checked";
const GO: &str = "go";
const READY: &str = "ready";

/// The longest message, with its line end.
const WORD_MAX: usize = 16;

/// The new process. Dropping it ends the process, unless it was released.
pub struct Successor {
    child: Option<Child>,
    link: UnixStream,
}

impl Successor {
    /// Starts this program again, on the present runtime, and hands over the sockets.
    ///
    /// # Errors
    /// If the program file is gone or the system refuses.
    pub fn start(sockets: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (own, its) = StdStream::pair()?;
        send(&own, sockets)?;
        own.set_nonblocking(true)?;
        let link = UnixStream::from_std(own)?;
        // The path as it was called, not as it was resolved: it may lead to a new version now, which is the purpose.
        let mut words = std::env::args_os();
        let program = words.next().unwrap_or_else(|| OsString::from("spikegate"));
        let child = Command::new(program).args(words).env(FOLLOWS, "1").stdin(OwnedFd::from(its)).spawn()?;
        Ok(Self { child: Some(child), link })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Waits until it has checked everything but the ledger.
    ///
    /// # Errors
    /// Why it did not get that far.
    pub async fn checked(&mut self) -> Result<(), String> {
        self.says(CHECKED).await
    }

    /// Lets it open the ledger, and waits until it accepts connections.
    ///
    /// # Errors
    /// Why it did not get that far.
    pub async fn go(&mut self) -> Result<(), String> {
        // If the process is gone, there will be no next message either.
        let _ = self.link.write_all(format!("{GO}\n").as_bytes()).await;
        self.says(READY).await
    }

    /// Releases it: it no longer ends with this value.
    pub fn let_go(mut self) {
        self.child = None;
    }

    async fn says(&mut self, word: &str) -> Result<(), String> {
        let id = self.id();
        match timeout(PATIENCE, hear(&mut self.link)).await {
            Ok(Ok(said)) if said == word => Ok(()),
            Ok(Ok(said)) => Err(format!("process {id} said {said:?} instead of {word:?}")),
            Ok(Err(_)) => Err(format!("process {id} ended before it was {word}; why, it has logged itself")),
            Err(_) => Err(format!("process {id} was not {word} within {PATIENCE:?}")),
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The process has ended or ends now; waiting for it takes no time.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The old process.
pub struct Predecessor(StdStream);

impl Predecessor {
    /// Takes over the sockets of the process that started this one for an upgrade; `None` otherwise.
    ///
    /// # Errors
    /// If the environment does not match the inherited sockets.
    pub fn meet() -> io::Result<Option<(Self, Vec<TcpListener>)>> {
        if std::env::var_os(FOLLOWS).is_none() {
            return Ok(None);
        }
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::net::getsockname(&input)
            .map_err(|error| io::Error::other(format!("{FOLLOWS} is set, but standard input is no socket: {error}")))?;
        let link = StdStream::from(input);
        link.set_read_timeout(Some(PATIENCE))?;
        let sockets = receive(&link)?;
        link.set_nonblocking(true)?;
        Ok(Some((Self(link), sockets)))
    }

    /// Reports that everything but the ledger is ready, and waits until the ledger is free. Call [`Turn::ready`]
    /// afterwards.
    ///
    /// # Errors
    /// If the old process is gone or has cancelled the upgrade.
    pub async fn turn(self) -> Result<Turn, StartError> {
        let lost = |error: io::Error| StartError::Follow(error.to_string());
        let mut link = UnixStream::from_std(self.0).map_err(lost)?;
        link.write_all(format!("{CHECKED}\n").as_bytes()).await.map_err(lost)?;
        match timeout(TURN_PATIENCE, hear(&mut link)).await {
            Ok(Ok(said)) if said == GO => Ok(Turn(link)),
            Ok(Ok(said)) => Err(StartError::Follow(format!("it said {said:?}"))),
            Ok(Err(error)) => Err(lost(error)),
            Err(_) => Err(StartError::Follow(format!("it said nothing for {TURN_PATIENCE:?}"))),
        }
    }
}

/// The right to open the ledger.
pub struct Turn(UnixStream);

impl Turn {
    /// Reports that connections are accepted.
    pub async fn ready(mut self) {
        // If the old process is gone, this one continues alone.
        let _ = self.0.write_all(format!("{READY}\n").as_bytes()).await;
    }
}

/// The next message. A stream that ends has none.
async fn hear(link: &mut UnixStream) -> io::Result<String> {
    let mut word = String::new();
    while word.len() < WORD_MAX {
        match link.read_u8().await? {
            b'\n' => return Ok(word),
            byte => word.push(char::from(byte)),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Sends one byte, with the sockets attached.
fn send(link: &StdStream, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    if sockets.len() > SOCKETS_MAX {
        return Err(io::Error::other(format!("more than {SOCKETS_MAX} listeners cannot be handed over")));
    }
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut message = SendAncillaryBuffer::new(&mut room);
    // There is room for the largest number of sockets.
    let _ = message.push(SendAncillaryMessage::ScmRights(sockets));
    sendmsg(link, &[IoSlice::new(b"\n")], &mut message, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(link: &StdStream) -> io::Result<Vec<TcpListener>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut message = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let received = recvmsg(link, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            sockets.extend(descriptors.map(TcpListener::from));
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_handed_over_as_they_are() {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let (own, its) = StdStream::pair().expect("a pair");
        send(&own, &listeners.each_ref().map(AsFd::as_fd)).expect("sent");
        let received = receive(&its).expect("received");
        let address = |listener: &TcpListener| listener.local_addr().expect("an address");
        assert_eq!(received.iter().map(address).collect::<Vec<_>>(), listeners.each_ref().map(address));
        drop(own);
        assert!(receive(&its).is_err(), "nobody is there");
    }

    #[tokio::test]
    async fn words_are_bounded_and_end_with_the_stream() {
        let (mut own, mut its) = UnixStream::pair().expect("a pair");
        own.write_all(b"ready\nno end of a word here").await.expect("written");
        assert_eq!(hear(&mut its).await.expect("a word"), "ready");
        assert!(hear(&mut its).await.is_err());
        drop(own);
        assert!(hear(&mut its).await.is_err());
    }
}
