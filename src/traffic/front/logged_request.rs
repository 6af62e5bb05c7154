//! A request at the front door, as far as it is written down, and the id that it is answered with.

use std::net::SocketAddr;
use std::time::Instant;

use super::Front;
use super::head::{self, Parsed, Request, Room};
use super::wire::Wire;
use crate::http::answer::{Answer, PurchaseLabel};
use crate::http::head::Head;
use crate::http::request_id::RequestId;
use crate::observe::access_log::{Record, Target};
use crate::traffic::rules::Rules;

/// What is kept of bytes that are no whole request.
const LINE_MAX: usize = 1024;

/// A request that is answered here.
pub struct LoggedRequest<'r> {
    /// What was asked for; none if its bytes are not clear.
    request: Option<&'r Request<'r, 'r>>,
    /// Its first bytes, if they are all that there is.
    raw: &'r [u8],
    /// If its time is taken.
    began: Option<Instant>,
    /// If requests have ids.
    pub id: Option<RequestId>,
}

/// What of an answer is written down.
#[derive(Debug, Clone, Copy)]
pub struct AnswerSummary {
    status: u16,
    bytes: u64,
    label: PurchaseLabel,
}

impl AnswerSummary {
    /// Of an answer that will be sent.
    pub fn of(answer: &Answer) -> Self {
        Self { status: answer.status, bytes: answer.body.len() as u64, label: answer.label }
    }

    /// Pingora's own, to what is no request.
    pub const MALFORMED: Self = Self { status: 400, bytes: 0, label: PurchaseLabel::Nothing };
}

impl<'r> LoggedRequest<'r> {
    /// A request that came whole. `may_be_refused` is a purchase: the time of one that will not be written down is not taken.
    pub fn of(
        front: &Front,
        rules: &Rules,
        peer: SocketAddr,
        request: &'r Request<'r, 'r>,
        may_be_refused: bool,
    ) -> Self {
        let began = match front.entrance.access_log() {
            Some(log) if may_be_refused => log.begin(),
            Some(_) => Some(Instant::now()),
            None => None,
        };
        Self { request: Some(request), raw: b"", began, id: front.entrance.id_of(rules, peer.ip(), request) }
    }

    /// Bytes of which nobody can say what request they are.
    pub fn unclear(front: &Front, raw: &'r [u8]) -> Self {
        let began = front.entrance.access_log().map(|_| Instant::now());
        let id = front.entrance.id_header().map(|_| RequestId::new());
        Self { request: None, raw, began, id }
    }

    /// Until its answer is there. `head` is all that it was read from. None if there is nothing to keep.
    pub fn keep(self, front: &Front, head: &[u8]) -> Option<Box<ParkedRequest>> {
        let is_logged = front.entrance.access_log().is_some();
        let most = if self.request.is_some() { head.len() } else { LINE_MAX.min(head.len()) };
        let head = if is_logged { head[..most].into() } else { Box::default() };
        // The ledger is asked now, and nearly all the time that it takes is the ledger's.
        let began = self.began.or_else(|| is_logged.then(Instant::now));
        (is_logged || self.id.is_some()).then(|| Box::new(ParkedRequest { head, began, id: self.id }))
    }

    /// Writes it down, if it is to be.
    pub fn write_down(&self, front: &Front, peer: SocketAddr, wire: Option<&Wire>, summary: AnswerSummary) {
        let Some(log) = front.entrance.access_log() else { return };
        if !log.takes(summary.label.is_refusal()) {
            return;
        }
        let head: &dyn Head = match self.request {
            Some(request) => request,
            None => &(),
        };
        let target = match self.request {
            Some(request) => Target {
                method: request.method.as_bytes(),
                target: request.target.as_bytes(),
                protocol: if request.minor_version == 0 { "HTTP/1.0" } else { "HTTP/1.1" },
            },
            None => Target::raw(first_line(self.raw)),
        };
        let place = self.request.and_then(|request| front.shop.find(request.path));
        let tls = wire.and_then(Wire::tls);
        log.write(&Record {
            client: front.rules.load().clients.of(peer.ip(), head).address,
            peer,
            target,
            head,
            tls: tls.as_ref().map(|tls| tls.version.as_ref()),
            status: Some(summary.status),
            bytes: summary.bytes,
            duration: self.began.map(|began| began.elapsed()),
            id: self.id.as_ref(),
            route: None,
            upstream: None,
            backend: None,
            backend_duration: None,
            tries: 0,
            sale: place.map(|place| place.sale().id()),
            outcome: summary.label.outcome(),
            order: summary.label.order(),
        });
    }
}

/// A request whose answer is waited for.
pub struct ParkedRequest {
    head: Box<[u8]>,
    began: Option<Instant>,
    id: Option<RequestId>,
}

impl ParkedRequest {
    /// Gives the request to `with`, as it was.
    pub fn with<T>(self, with: impl FnOnce(LoggedRequest<'_>) -> T) -> T {
        let mut room = Room::default();
        match head::parse(&self.head, &mut room) {
            Parsed::Clear(request) => {
                with(LoggedRequest { request: Some(&request), raw: b"", began: self.began, id: self.id })
            }
            Parsed::Partial | Parsed::Doubtful => {
                with(LoggedRequest { request: None, raw: &self.head, began: self.began, id: self.id })
            }
        }
    }
}

/// Up to its end, as far as that is there.
fn first_line(bytes: &[u8]) -> &[u8] {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}
