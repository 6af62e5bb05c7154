//! One connection, from request to request.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Front;
use super::head::{self, HEAD_MAX, Parsed, Room};
use super::lent::Lent;
use super::render::render;
use super::wait::{Ended, Wait};
use crate::answer::Answer;
use crate::shop::Begun;

/// How long the rest of a request that is refused half-read is read and thrown away: Nginx's `lingering_timeout`.
const LINGER: Duration = Duration::from_secs(5);

thread_local! {
    /// What a thread reads into. Only what is left of it when there is nothing more to do is kept by the connection.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; HEAD_MAX].into());
}

/// A connection while it is here.
pub struct Connection {
    front: Arc<Front>,
    stream: TcpStream,
    peer: SocketAddr,
    /// Read and not yet understood.
    ahead: Vec<u8>,
    /// How much of `ahead` is known not to be a whole head.
    looked_at: usize,
}

/// What comes next that is not done while polling.
enum Step {
    /// The ledger has the word. What was asked may be answered on a kept connection.
    Wait(Pin<Box<dyn Future<Output = Cow<'static, Answer>> + Send>>, bool),
    /// The client takes an answer slowly.
    Write(Vec<u8>, bool),
    /// Not for us. The bytes so far, and how many are still to come if that is known.
    Lend(BytesMut, Option<u64>),
    /// Refused before it was read to its end.
    Refuse(StatusCode),
    /// Nothing comes any more, or nothing that is waited for.
    Close,
}

impl Connection {
    pub(super) fn new(front: Arc<Front>, stream: TcpStream, peer: SocketAddr) -> Self {
        Self { front, stream, peer, ahead: Vec::new(), looked_at: 0 }
    }

    /// Serves it until it ends.
    pub(super) async fn run(mut self) {
        let front = Arc::clone(&self.front);
        let stop = pin!(front.stop.notified());
        let alarm = pin!(sleep(front.client.read));
        let mut wait = Wait::new(stop, alarm);
        loop {
            let step = poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| self.poll_step(scratch, &mut wait, cx))).await;
            // What is rare or large is boxed, so that it is not a part of every connection.
            let kept = match step {
                Step::Wait(answer, keep_alive) => {
                    let answer = answer.await;
                    let keep_alive = keep_alive && !front.is_stopping();
                    // Nearly always it goes out at once.
                    let unsent = render(answer, keep_alive, |bytes| match self.stream.try_write(bytes) {
                        Ok(written) => bytes[written..].to_vec(),
                        Err(_) => bytes.to_vec(),
                    });
                    (unsent.is_empty() || Box::pin(self.write(&unsent)).await) && keep_alive
                }
                Step::Write(bytes, keep_alive) => Box::pin(self.write(&bytes)).await && keep_alive,
                Step::Lend(bytes, owed) => match Box::pin(self.lend(bytes, owed)).await {
                    Some(connection) => {
                        self = connection;
                        true
                    }
                    None => return,
                },
                Step::Refuse(status) => return Box::pin(self.refuse(status)).await,
                Step::Close => return,
            };
            if !kept {
                return;
            }
            wait.restart();
        }
    }

    /// Reads and answers for as long as there is something to read and the answers are in memory.
    fn poll_step(&mut self, scratch: &mut [u8], wait: &mut Wait<'_, '_>, cx: &mut Context<'_>) -> Poll<Step> {
        let mut filled = self.ahead.len();
        scratch[..filled].copy_from_slice(&self.ahead);
        loop {
            let mut begin = 0;
            // A head ends with a line, so nothing new is to be understood before one has ended.
            while begin < filled && (self.looked_at == 0 || scratch[self.looked_at..filled].contains(&b'\n')) {
                self.looked_at = 0;
                let (step, read) = self.take(&scratch[begin..filled], cx);
                begin += read;
                match step {
                    Some(Step::Close) => return Poll::Ready(Step::Close),
                    Some(step) => {
                        self.ahead = scratch[begin..filled].to_vec();
                        return Poll::Ready(step);
                    }
                    None if read == 0 => break,
                    None => wait.restart(),
                }
            }
            scratch.copy_within(begin..filled, 0);
            filled -= begin;
            self.looked_at = filled;
            if filled == scratch.len() {
                return Poll::Ready(Step::Refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
            let mut room = ReadBuf::new(&mut scratch[filled..]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => filled += room.filled().len(),
                Poll::Ready(_) => return Poll::Ready(Step::Close),
                Poll::Pending => {
                    self.ahead = scratch[..filled].to_vec();
                    return self.poll_wait(wait, cx);
                }
            }
        }
    }

    /// Understands the request that `bytes` begin with, and answers it if that can be done at once. Says how many bytes
    /// it took; none if they are not a whole head.
    fn take(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> (Option<Step>, usize) {
        let mut room = Room::default();
        let request = match head::parse(bytes, &mut room) {
            Parsed::Partial => return (None, 0),
            Parsed::Doubtful => return (Some(Step::Lend(bytes.into(), None)), bytes.len()),
            Parsed::Clear(request) => request,
        };
        let place = if request.is_plain { self.front.shop.find(request.path) } else { None };
        let Some(place) = place else {
            let whole = request.body_len.saturating_add(request.len as u64);
            let here = usize::try_from(whole).unwrap_or(usize::MAX).min(bytes.len());
            return (Some(Step::Lend(bytes[..here].into(), Some(whole - here as u64))), here);
        };
        let step = match place.begin(&request, b"") {
            Begun::Waits(answer) => Some(Step::Wait(answer, request.keep_alive)),
            Begun::Answered(answer) => {
                let keep_alive = request.keep_alive && !self.front.is_stopping();
                render(answer, keep_alive, |bytes| match Pin::new(&mut self.stream).poll_write(cx, bytes) {
                    Poll::Ready(Err(_)) => Some(Step::Close),
                    Poll::Ready(Ok(written)) if written == bytes.len() => (!keep_alive).then_some(Step::Close),
                    Poll::Ready(Ok(written)) => Some(Step::Write(bytes[written..].to_vec(), keep_alive)),
                    Poll::Pending => Some(Step::Write(bytes.to_vec(), keep_alive)),
                })
            }
        };
        (step, request.len)
    }

    /// Nothing to read: until when?
    fn poll_wait(&mut self, wait: &mut Wait<'_, '_>, cx: &mut Context<'_>) -> Poll<Step> {
        let (is_idle, client) = (self.ahead.is_empty(), &self.front.client);
        let ended = ready!(wait.poll(is_idle, client, || self.front.is_stopping(), cx));
        Poll::Ready(match ended {
            Ended::Late if !is_idle => Step::Refuse(StatusCode::REQUEST_TIMEOUT),
            Ended::Late | Ended::Stopped => Step::Close,
        })
    }

    /// Writes all of `bytes`; whether that succeeded.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(self.front.client.send, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Lends the connection to Pingora for the request that `bytes` begin, of which `owed` bytes are to come. It comes
    /// back for the next request, unless it is not known where this one ends: then Pingora keeps it.
    async fn lend(mut self, bytes: BytesMut, owed: Option<u64>) -> Option<Self> {
        if owed.is_none() {
            debug_assert!(self.ahead.is_empty(), "all that was read is Pingora's");
        }
        let mut session = ServerSession::new_http1(Box::new(Lent::new(self.stream, self.peer, owed)));
        session.set_keepalive(Some(self.front.client.read.as_secs().max(1)));
        session.set_pipelined_prefix(bytes);
        let (proxy, told) = (&self.front.proxy, &self.front.told);
        let (mut stream, mut settings) = proxy.process_new_http(session, told).await?.consume();
        if owed.is_some() {
            let lent = stream.into_any().downcast::<Lent>().ok()?;
            let (stream, behind) = lent.take_back()?;
            self.stream = stream;
            self.ahead.extend_from_slice(&behind);
            self.looked_at = 0;
            return Some(self);
        }
        loop {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            (stream, settings) = proxy.process_new_http(session, told).await?.consume();
        }
    }

    /// Refuses a request that was not read to its end, and waits for the client to see that.
    async fn refuse(mut self, status: StatusCode) {
        let bytes = render(Cow::Owned(Answer::bare(status)), false, <[u8]>::to_vec);
        if self.write(&bytes).await && self.stream.shutdown().await.is_ok() {
            // Closing while bytes wait to be read makes the kernel send a reset, and that may overtake the answer.
            let _ =
                timeout(LINGER, async { while self.stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} })
                    .await;
        }
    }
}
