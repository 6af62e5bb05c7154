//! One connection, from request to request.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::{sleep, timeout};

use super::Front;
use super::head::{self, HEAD_MAX, Parsed, Room};
use super::loaned_stream::LoanedStream;
use super::logged_request::{AnswerSummary, LoggedRequest, ParkedRequest};
use super::redirect;
use super::render::render;
use super::wait::Wait;
use super::wire::Wire;
use crate::config::Redirect;
use crate::http::answer::Answer;
use crate::limits::ConnectionGuard;
use crate::sale::shop::{Endpoint, Started};
use crate::traffic::door::Door;
use crate::traffic::proxy::{and_whether_asked, with_head_deadline};

/// How long the edge reads and discards the rest of a request that it refused before its end (nginx:
/// `lingering_timeout`).
const LINGER: Duration = Duration::from_secs(5);

thread_local! {
    /// Read buffer of each thread. A connection keeps only the bytes that are left when it has to wait.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; HEAD_MAX].into());
}

/// A connection while the front door holds it.
pub struct Connection {
    /// The first field, because fields are dropped in order: the edge exits once the last `front` is gone, and TLS must
    /// send its close_notify before that.
    wire: Wire,
    front: Arc<Front>,
    door: Arc<Door>,
    /// Where the client is.
    client: SocketAddr,
    /// Counts it.
    _admitted: ConnectionGuard,
    /// Bytes read but not yet parsed.
    ahead: Vec<u8>,
    /// How many bytes of `ahead` are known not to contain a complete head.
    looked_at: usize,
}

/// The next step that polling cannot do.
enum Continuation {
    /// The request waits for the ledger. The connection may be kept after the answer.
    Wait(Pin<Box<dyn Future<Output = Cow<'static, Answer>> + Send>>, Option<Box<ParkedRequest>>, bool),
    /// The client reads an answer slowly.
    Write(Vec<u8>, bool),
    /// The request is for Pingora: the bytes so far, and how many are still to come if that is known.
    Lend(BytesMut, Option<u64>),
    /// The request was answered before it was read to its end.
    Refuse(Box<Answer>, Option<Box<ParkedRequest>>),
    /// The connection is finished: the client closed it or timed out.
    Close,
}

impl Connection {
    pub(super) fn new(
        front: Arc<Front>,
        door: Arc<Door>,
        wire: Wire,
        client: SocketAddr,
        admitted: ConnectionGuard,
    ) -> Self {
        Self { front, door, wire, client, _admitted: admitted, ahead: Vec::new(), looked_at: 0 }
    }

    /// Serves it until it ends.
    pub(super) async fn run(mut self) {
        let front = Arc::clone(&self.front);
        let stop = pin!(front.stop.notified());
        let alarm = pin!(sleep(front.rules.load().client.read));
        let mut wait = Wait::new(stop, alarm);
        loop {
            let continuation =
                poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| self.poll_step(scratch, &mut wait, cx))).await;
            // Rare or large states are boxed because they would enlarge every connection.
            let is_kept = match continuation {
                Continuation::Wait(answer, parked, keep_alive) => {
                    let answer = answer.await;
                    // The write nearly always completes at once.
                    match self.answer_now(answer, parked, keep_alive) {
                        None => true,
                        Some(Continuation::Write(unsent, keep_alive)) => {
                            Box::pin(self.write(&unsent)).await && keep_alive
                        }
                        Some(_) => false,
                    }
                }
                Continuation::Write(bytes, keep_alive) => Box::pin(self.write(&bytes)).await && keep_alive,
                Continuation::Lend(bytes, owed) => match Box::pin(self.lend(bytes, owed)).await {
                    Some(connection) => {
                        self = connection;
                        true
                    }
                    None => return,
                },
                Continuation::Refuse(answer, parked) => return Box::pin(self.refuse(*answer, parked)).await,
                Continuation::Close => return,
            };
            if !is_kept {
                return;
            }
            wait.restart();
        }
    }

    /// Reads and answers while there is data to read and answers are available in memory.
    fn poll_step(&mut self, scratch: &mut [u8], wait: &mut Wait<'_, '_>, cx: &mut Context<'_>) -> Poll<Continuation> {
        let mut filled = self.ahead.len();
        scratch[..filled].copy_from_slice(&self.ahead);
        loop {
            let mut begin = 0;
            // A head ends with a line, so parsing can wait for the next end of line.
            while begin < filled && (self.looked_at == 0 || scratch[self.looked_at..filled].contains(&b'\n')) {
                self.looked_at = 0;
                let (step, read) = self.take(&scratch[begin..filled], cx);
                begin += read;
                match step {
                    Some(Continuation::Close) => return Poll::Ready(Continuation::Close),
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
                return Poll::Ready(refusal(
                    &self.front,
                    self.client,
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    scratch,
                ));
            }
            let mut room = ReadBuf::new(&mut scratch[filled..]);
            match Pin::new(&mut self.wire).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => filled += room.filled().len(),
                Poll::Ready(_) => return Poll::Ready(Continuation::Close),
                Poll::Pending => {
                    self.ahead = scratch[..filled].to_vec();
                    return self.poll_wait(wait, cx);
                }
            }
        }
    }

    /// Parses the request at the start of `bytes` and answers it if that is possible at once. Returns the number of
    /// bytes consumed, 0 if the head is incomplete.
    fn take(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> (Option<Continuation>, usize) {
        let mut room = Room::default();
        let request = match head::parse(bytes, &mut room) {
            Parsed::Partial => return (None, 0),
            parsed if let Some(redirect) = self.door.redirect => return self.redirect(redirect, parsed, bytes, cx),
            Parsed::Doubtful => return (Some(Continuation::Lend(bytes.into(), None)), bytes.len()),
            Parsed::Clear(request) => request,
        };
        let Self { front, wire, client: peer, .. } = self;
        let endpoint = if request.is_plain { front.shop.find(request.path) } else { None };
        let (entrance, rules) = (&front.entrance, front.rules.load());
        let client = rules.clients.of(peer.ip(), &request);
        let logged = |sale, may_be_refused| {
            LoggedRequest::new(front, &rules, *peer, client.address, &request, sale, may_be_refused)
        };
        let Some(endpoint) = endpoint else {
            // The proxy decides again and counts the request, because some requests reach it without passing here.
            // Refusing here is cheaper.
            if request.is_plain
                && let Err(answer) = entrance.would_enter(&rules, client.address, request.method)
            {
                let (answer, logged) = (Cow::Borrowed(answer), Some(logged(None, true)));
                return (answer_at_once(front, wire, *peer, answer, logged, request.keep_alive, cx), request.len);
            }
            let whole = request.body_len.saturating_add(request.len as u64);
            let here = usize::try_from(whole).unwrap_or(usize::MAX).min(bytes.len());
            return (Some(Continuation::Lend(bytes[..here].into(), Some(whole - here as u64))), here);
        };
        let logged = logged(Some(endpoint.sale()), matches!(endpoint, Endpoint::Purchase(_)));
        let started = match entrance.enter(&rules, client.address, request.method, Some(endpoint)) {
            Ok(()) => endpoint.start(client, &request, b""),
            Err(answer) => Started::Ready(Cow::Borrowed(answer)),
        };
        let continuation = match started {
            Started::Waiting(answer) => {
                let parked = logged.park(front, Some(&request), bytes);
                Some(Continuation::Wait(answer, parked, request.keep_alive))
            }
            Started::Ready(answer) => answer_at_once(front, wire, *peer, answer, Some(logged), request.keep_alive, cx),
        };
        (continuation, request.len)
    }

    /// Redirects the request at the start of `bytes` to HTTPS. If the request has a body or its end is unknown, the
    /// connection closes afterwards.
    fn redirect(
        &mut self,
        redirect: Redirect,
        parsed: Parsed<'_, '_>,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> (Option<Continuation>, usize) {
        let Self { front, wire, client: peer, .. } = self;
        let rules = front.rules.load();
        // The headers of an ambiguous request cannot be trusted, so the peer address identifies the client.
        let (client, method) = match &parsed {
            Parsed::Clear(request) => (rules.clients.of(peer.ip(), request), request.method),
            _ => (rules.clients.of(peer.ip(), &()), ""),
        };
        let answer = match front.entrance.enter(&rules, client.address, method, None) {
            Ok(()) => redirect::answer(redirect, bytes),
            Err(answer) => answer.clone(),
        };
        let Parsed::Clear(request) = &parsed else {
            let parked = LoggedRequest::malformed(front, &rules, *peer, bytes).park(front, None, bytes);
            return (Some(Continuation::Refuse(Box::new(answer), parked)), bytes.len());
        };
        let logged = LoggedRequest::new(front, &rules, *peer, client.address, request, None, false);
        if request.body_len > 0 {
            let parked = logged.park(front, Some(request), bytes);
            return (Some(Continuation::Refuse(Box::new(answer), parked)), bytes.len());
        }
        let answer = Cow::Owned(answer);
        (answer_at_once(front, wire, *peer, answer, Some(logged), request.keep_alive, cx), request.len)
    }

    /// The same while nobody polls: whoever goes on writing will be woken.
    fn answer_now(
        &mut self,
        answer: Cow<'static, Answer>,
        parked: Option<Box<ParkedRequest>>,
        keep_alive: bool,
    ) -> Option<Continuation> {
        let mut cx = Context::from_waker(Waker::noop());
        let Self { front, wire, client, .. } = self;
        match parked {
            Some(parked) => {
                parked.with(|logged| answer_at_once(front, wire, *client, answer, Some(logged), keep_alive, &mut cx))
            }
            None => answer_at_once(front, wire, *client, answer, None, keep_alive, &mut cx),
        }
    }

    /// The deadline for the next bytes.
    fn poll_wait(&mut self, wait: &mut Wait<'_, '_>, cx: &mut Context<'_>) -> Poll<Continuation> {
        let is_idle = self.ahead.is_empty();
        ready!(wait.poll(is_idle, &self.front.rules.load(), || self.front.is_stopping(), cx));
        Poll::Ready(match is_idle {
            true => Continuation::Close,
            false => refusal(&self.front, self.client, StatusCode::REQUEST_TIMEOUT, &self.ahead),
        })
    }

    /// Writes all of `bytes`. Returns whether that succeeded.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        let writing = async {
            self.wire.write_all(bytes).await?;
            self.wire.flush().await
        };
        matches!(timeout(self.front.rules.load().client.send, writing).await, Ok(Ok(())))
    }

    /// Lends the connection to Pingora for the request at the start of `bytes`; `owed` bytes of it are still to come.
    /// Pingora returns the connection for the next request, or keeps it if the end of this request is unknown.
    async fn lend(mut self, bytes: BytesMut, owed: Option<u64>) -> Option<Self> {
        if owed.is_none() {
            debug_assert!(self.ahead.is_empty(), "all that was read is Pingora's");
        }
        let doubtful = match owed {
            None => LoggedRequest::malformed(&self.front, &self.front.rules.load(), self.client, &bytes).park(
                &self.front,
                None,
                &bytes,
            ),
            Some(_) => None,
        };
        let mut session = ServerSession::new_http1(Box::new(LoanedStream::new(self.wire, self.client, owed)));
        session.set_keepalive(Some(self.front.rules.load().client.read.as_secs().max(1)));
        session.set_pipelined_prefix(bytes);
        let (proxy, shutdown) = (&self.front.proxy, &self.front.shutdown);
        let (served, was_asked) = and_whether_asked(proxy.process_new_http(session, shutdown)).await;
        if !was_asked {
            self.front.entrance.answered(Some(400));
            if let Some(doubtful) = doubtful {
                // The connection is Pingora's.
                doubtful.with(|logged| logged.write_down(&self.front, self.client, None, AnswerSummary::MALFORMED));
            }
        }
        let (mut stream, mut settings) = served?.consume();
        if owed.is_some() {
            let lent = stream.into_any().downcast::<LoanedStream>().ok()?;
            let (wire, behind) = lent.take_back()?;
            self.wire = wire;
            self.ahead.extend_from_slice(&behind);
            self.looked_at = 0;
            return Some(self);
        }
        loop {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            let served =
                with_head_deadline(self.front.next_head_is_late(), proxy.process_new_http(session, shutdown)).await;
            (stream, settings) = served.flatten()?.consume();
        }
    }

    /// Answers a request that was not read to its end, and lingers until the client can have read the answer.
    async fn refuse(mut self, answer: Answer, parked: Option<Box<ParkedRequest>>) {
        self.front.entrance.answered(Some(answer.status));
        let summary = AnswerSummary::of(&answer);
        let render = |answer, logged: Option<&LoggedRequest<'_>>| {
            if let Some(logged) = logged {
                logged.write_down(&self.front, self.client, Some(&self.wire), summary);
            }
            render(Cow::Owned(answer), self.front.id_of(logged), false, <[u8]>::to_vec)
        };
        let bytes = match parked {
            Some(parked) => parked.with(|logged| render(answer, Some(&logged))),
            None => render(answer, None),
        };
        if self.write(&bytes).await && self.wire.shutdown().await.is_ok() {
            // If unread bytes remain, closing sends a reset, which may overtake the answer.
            let _ = timeout(LINGER, async { while self.wire.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} })
                .await;
        }
    }
}

/// Writes the answer as far as the client accepts it without blocking, and logs the request.
fn answer_at_once(
    front: &Front,
    wire: &mut Wire,
    peer: SocketAddr,
    answer: Cow<'static, Answer>,
    logged: Option<LoggedRequest<'_>>,
    keep_alive: bool,
    cx: &mut Context<'_>,
) -> Option<Continuation> {
    let keep_alive = keep_alive && !front.is_stopping();
    let summary = AnswerSummary::of(&answer);
    front.entrance.answered(Some(answer.status));
    let continuation = render(answer, front.id_of(logged.as_ref()), keep_alive, |bytes| match wire.send(cx, bytes) {
        Err(_) => Some(Continuation::Close),
        Ok(None) => (!keep_alive).then_some(Continuation::Close),
        Ok(Some(unsent)) => Some(Continuation::Write(unsent.to_vec(), keep_alive)),
    });
    if let Some(logged) = logged {
        logged.write_down(front, peer, Some(wire), summary);
    }
    continuation
}

impl Front {
    /// Waits for as long as the next head may take on a connection that is Pingora's.
    async fn next_head_is_late(&self) {
        let client = self.rules.load().client.clone();
        let farewell = async {
            self.stopped().await;
            sleep(self.rules.load().farewell).await;
        };
        tokio::select! {
            () = sleep(client.keepalive.saturating_add(client.read)) => {}
            () = farewell => {}
        }
    }
}

/// Answers with a status. Reads nothing after `bytes`.
fn refusal(front: &Front, peer: SocketAddr, status: StatusCode, bytes: &[u8]) -> Continuation {
    let logged = LoggedRequest::malformed(front, &front.rules.load(), peer, bytes);
    Continuation::Refuse(Box::new(Answer::bare(status)), logged.park(front, None, bytes))
}
