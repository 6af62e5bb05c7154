//! A request that the front door answers: the data for its access log line, and its request ID.
//!
//! The client and the sale in the line are those that the request was judged by, even if a reload happens before
//! the answer is ready.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::Front;
use super::head::{Request, StoredHead};
use super::wire::Wire;
use crate::http::answer::{Answer, PurchaseLabel};
use crate::http::head::Head;
use crate::http::request_id::RequestId;
use crate::observe::access_log::{Record, Target};
use crate::sale::Sale;
use crate::traffic::rules::Rules;

/// How many bytes of a malformed request are kept for its log line.
const LINE_MAX: usize = 1024;

/// A request, its client and its sale.
pub struct LoggedRequest<'r> {
    head: &'r dyn Head,
    target: Target<'r>,
    client: IpAddr,
    /// The sale that the request is for, if any.
    sale: Option<&'r Arc<Sale>>,
    /// None if the request is not timed.
    began: Option<Instant>,
    /// None if request IDs are disabled.
    pub id: Option<RequestId>,
}

/// The data of an answer for the log line.
#[derive(Debug, Clone, Copy)]
pub struct AnswerSummary {
    status: u16,
    bytes: u64,
    label: PurchaseLabel,
}

impl AnswerSummary {
    /// The summary of an answer about to be sent.
    pub fn of(answer: &Answer) -> Self {
        Self { status: answer.status, bytes: answer.body.len() as u64, label: answer.label }
    }

    /// Pingora's answer to a malformed request.
    pub const MALFORMED: Self = Self { status: 400, bytes: 0, label: PurchaseLabel::Nothing };
}

impl<'r> LoggedRequest<'r> {
    /// A complete request from `client`. `may_be_refused` marks a purchase; it is timed only if it will be logged.
    pub fn new(
        front: &Front,
        rules: &Rules,
        peer: SocketAddr,
        client: IpAddr,
        request: &'r Request<'r, 'r>,
        sale: Option<&'r Arc<Sale>>,
        may_be_refused: bool,
    ) -> Self {
        let began = match front.entrance.access_log() {
            Some(log) if may_be_refused => log.begin(),
            Some(_) => Some(Instant::now()),
            None => None,
        };
        let target = Target {
            method: request.method.as_bytes(),
            target: request.target.as_bytes(),
            protocol: protocol(request.minor_version),
        };
        let id = front.entrance.id_of(rules, peer.ip(), request);
        Self { head: request, target, client, sale, began, id }
    }

    /// Bytes that are not an unambiguous request. Nothing in them is trusted, so the client is the connection's peer.
    pub fn malformed(front: &Front, rules: &Rules, peer: SocketAddr, bytes: &'r [u8]) -> Self {
        Self {
            head: &(),
            target: Target::raw(first_line(bytes)),
            client: rules.clients.of(peer.ip(), &()).address,
            sale: None,
            began: front.entrance.access_log().map(|_| Instant::now()),
            id: front.entrance.id_header().map(|_| RequestId::new()),
        }
    }

    /// Keeps the data for the log line until the answer is ready; none if there is nothing to keep. `head` is the head
    /// that the request was parsed from.
    pub fn park(self, front: &Front, request: Option<&Request<'_, '_>>, head: &[u8]) -> Option<Box<ParkedRequest>> {
        let is_logged = front.entrance.access_log().is_some();
        let head = match request {
            Some(request) if is_logged => StoredHead::of(request, head),
            None if is_logged => StoredHead::of_line(&self.target.target[..LINE_MAX.min(self.target.target.len())]),
            _ => StoredHead::default(),
        };
        // The ledger call starts now and takes nearly all of the time.
        let began = self.began.or_else(|| is_logged.then(Instant::now));
        let sale = self.sale.filter(|_| is_logged).map(Arc::clone);
        (is_logged || self.id.is_some())
            .then(|| Box::new(ParkedRequest { head, client: self.client, sale, began, id: self.id }))
    }

    /// Writes the log line, unless the log omits such answers.
    pub fn write_down(&self, front: &Front, peer: SocketAddr, wire: Option<&Wire>, summary: AnswerSummary) {
        let Some(log) = front.entrance.access_log() else { return };
        if !log.takes(summary.label.is_refusal()) {
            return;
        }
        let tls = wire.and_then(Wire::tls);
        log.write(&Record {
            client: self.client,
            peer,
            target: self.target,
            head: self.head,
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
            sale: self.sale.map(|sale| sale.id()),
            outcome: summary.label.outcome(),
            order: summary.label.order(),
        });
    }
}

/// A request that waits for its answer, and the data for its log line.
pub struct ParkedRequest {
    head: StoredHead,
    client: IpAddr,
    sale: Option<Arc<Sale>>,
    began: Option<Instant>,
    id: Option<RequestId>,
}

impl ParkedRequest {
    /// Passes the request to `with`.
    pub fn with<T>(self, with: impl FnOnce(LoggedRequest<'_>) -> T) -> T {
        let target = match self.head.minor_version() {
            Some(version) => {
                let (method, target) = (self.head.method().as_bytes(), self.head.target());
                Target { method, target, protocol: protocol(version) }
            }
            None => Target::raw(self.head.target()),
        };
        let (client, sale, began) = (self.client, self.sale.as_ref(), self.began);
        with(LoggedRequest { head: &self.head, target, client, sale, began, id: self.id })
    }
}

fn protocol(minor_version: u8) -> &'static str {
    if minor_version == 0 { "HTTP/1.0" } else { "HTTP/1.1" }
}

/// Up to its end, as far as that is there.
fn first_line(bytes: &[u8]) -> &[u8] {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}
