//! An HTTP answer of our own, before anything knows how it is sent: the front door writes it, or Pingora does.

use bytes::Bytes;
use http::StatusCode;

use crate::ledger::OrderId;

/// A complete answer: short, never cached, its length known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code, 200 to 599.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Location`, of an order that was made.
    pub location: Option<String>,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
    /// `Allow`, of a method that is not.
    pub allow: Option<&'static str>,
    /// `Accept-Post`, of a body that is not understood (RFC 9110 leaves the name to W3C LDP, 7.1).
    pub accept_post: Option<&'static str>,
    /// `WWW-Authenticate`, of a request that has to prove who sent it.
    pub www_authenticate: Option<&'static str>,
    /// The body.
    pub body: Bytes,
    /// For whoever writes it down; nothing of it is sent.
    pub label: PurchaseLabel,
}

/// What an answer says of a purchase. Outcomes are the labels of `spikegate_purchases_total`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PurchaseLabel {
    /// Nothing.
    #[default]
    Nothing,
    /// It ordered nothing, for this reason; so it may be said of any request that is not let in.
    Refused(&'static str),
    /// It ended so, with this order, if any.
    Ended(&'static str, Option<OrderId>),
}

impl PurchaseLabel {
    /// Whether there may be a million like it.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// How the purchase ended.
    #[must_use]
    pub fn outcome(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Refused(outcome) | Self::Ended(outcome, _) => Some(outcome),
        }
    }

    /// The order that there is, or may be.
    #[must_use]
    pub fn order(self) -> Option<OrderId> {
        match self {
            Self::Ended(_, order) => order,
            _ => None,
        }
    }
}

/// JSON for a program.
pub const JSON: &str = "application/json";
/// Text for a person.
pub const TEXT: &str = "text/plain";
/// RFC 9457.
pub const PROBLEM: &str = "application/problem+json";

impl Answer {
    /// An answer with nothing but a body.
    #[must_use]
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type,
            location: None,
            retry_after_s: None,
            allow: None,
            accept_post: None,
            www_authenticate: None,
            body: body.into(),
            label: PurchaseLabel::Nothing,
        }
    }

    /// Nothing but a status, its name as the body.
    #[must_use]
    pub fn bare(status: StatusCode) -> Self {
        let body = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
        Self::new(status.as_u16(), TEXT, body)
    }

    /// A JSON document. What we answer with can always be written as one; should it ever not be, the answer is empty
    /// and its status says that the fault is ours.
    #[must_use]
    pub fn json(status: u16, document: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(document) {
            Ok(body) => Self::new(status, JSON, body),
            Err(error) => {
                log::error!("cannot serialize an answer: {error}");
                Self::new(500, JSON, "{}")
            }
        }
    }

    /// A problem (RFC 9457): its type is `urn:spikegate:problem:{name}`, `members` are added to the usual ones.
    #[must_use]
    pub fn problem(status: u16, name: &str, title: &str, detail: &str, members: serde_json::Value) -> Self {
        let mut document = serde_json::json!({
            "type": format!("urn:spikegate:problem:{name}"),
            "title": title,
            "status": status,
            "detail": detail,
        });
        if let (Some(document), serde_json::Value::Object(members)) = (document.as_object_mut(), members) {
            document.extend(members);
        }
        Self::new(status, PROBLEM, document.to_string())
    }

    /// The same answer with `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same answer with what it says of a purchase.
    #[must_use]
    pub fn label(mut self, label: PurchaseLabel) -> Self {
        self.label = label;
        self
    }

    /// Gives the header fields, in the order and the case in which they are sent. `Date` and `Connection` follow: they
    /// belong to the message and to the connection.
    pub fn fields(&self, mut each: impl FnMut(&'static str, &str)) {
        each("Content-Type", self.content_type);
        each("Content-Length", &self.body.len().to_string());
        each("Cache-Control", "no-store");
        let retry_after = self.retry_after_s.map(|seconds| seconds.to_string());
        let others = [
            ("Location", self.location.as_deref()),
            ("Retry-After", retry_after.as_deref()),
            ("Allow", self.allow),
            ("Accept-Post", self.accept_post),
            ("WWW-Authenticate", self.www_authenticate),
        ];
        for (name, value) in others {
            if let Some(value) = value {
                each(name, value);
            }
        }
    }
}
