//! epoll, as thin as it can be.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// An epoll instance and room for its events.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    /// Room for `capacity` events at a time.
    ///
    /// # Errors
    ///
    /// The process has no file descriptor left.
    pub fn new(capacity: usize) -> Result<Self> {
        // SAFETY: takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just made and is nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; capacity] })
    }

    /// Tells of `source` by `token` whenever it can be read. Closing the source ends it.
    ///
    /// # Errors
    ///
    /// The kernel refuses the descriptor.
    pub fn add(&self, source: &impl AsRawFd, token: usize) -> Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token as u64 };
        // SAFETY: both descriptors are open, and the kernel copies the event.
        let added =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, source.as_raw_fd(), &raw mut event) };
        check(added).map(drop)
    }

    /// The tokens that can be read now, after waiting for at most `wait` (whole milliseconds), or for ever.
    ///
    /// # Errors
    ///
    /// Only what the kernel should never answer here.
    pub fn wait(&mut self, wait: Option<Duration>) -> Result<impl Iterator<Item = usize> + use<'_>> {
        let wait_ms = wait.map_or(-1, |wait| wait.as_millis() as i32);
        // SAFETY: the kernel writes at most as many events as the vector has.
        let ready = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), self.events.len() as i32, wait_ms)
        };
        let ready = match check(ready) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => 0,
            ready => ready?,
        };
        Ok(self.events[..ready as usize].iter().map(|event| event.u64 as usize))
    }
}

fn check(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}
