//! An HTTP answer of the edge itself, before it is written by the front door or by Pingora.

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
    /// `Location`, of a created order.
    pub location: Option<String>,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
    /// `Allow`, for a method that is not allowed.
    pub allow: Option<&'static str>,
    /// `Accept-Post`, for a body type that is not supported (RFC 9110 leaves the name to W3C LDP, 7.1).
    pub accept_post: Option<&'static str>,
    /// `WWW-Authenticate`, for a request that must prove its buyer.
    pub www_authenticate: Option<&'static str>,
    /// The body.
    pub body: Bytes,
    /// For logs; not sent.
    pub label: PurchaseLabel,
}

/// What an answer means for a purchase. Outcomes are the labels of `spikegate_purchases_total`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PurchaseLabel {
    /// Not about a purchase.
    #[default]
    Nothing,
    /// No order was created, for this reason. Also used for any request that is refused at the entrance.
    Refused(&'static str),
    /// The purchase ended with this outcome and this order, if any.
    Ended(&'static str, Option<OrderId>),
}

impl PurchaseLabel {
    /// Whether answers like this may come by the million.
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

    /// The order that exists or may exist.
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
    /// An answer with a body only.
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

    /// A status with its name as the body.
    #[must_use]
    pub fn bare(status: StatusCode) -> Self {
        let body = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
        Self::new(status.as_u16(), TEXT, body)
    }

    /// A JSON document. Serialization cannot fail for our documents; if it ever does, the answer is an empty 500.
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

    /// The same answer with its meaning for a purchase.
    #[must_use]
    pub fn label(mut self, label: PurchaseLabel) -> Self {
        self.label = label;
        self
    }

    /// Passes on the header fields in the order and spelling in which they are sent. `Date` and `Connection` follow;
    /// they belong to the message and the connection.
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
