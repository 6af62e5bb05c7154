//! Purchases and their outcomes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;

use super::answer::Answer;
use super::client::{Connection, Request};

/// The outcome of a purchase, the same for both dialects.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// There is an order.
    Ordered {
        id: String,
        /// The order as the answer shows it.
        order: Value,
    },
    /// There is no order, or the outcome is unknown. `name` is the problem type.
    Refused {
        name: String,
        status: u16,
        /// The problem's own members.
        body: Value,
    },
}

impl Outcome {
    /// Reads an answer to a purchase, and checks that status, headers and body agree.
    #[track_caller]
    pub fn of(answer: &Answer) -> Self {
        answer.is_our_own();
        let body = answer.json();
        match answer.status {
            200 => Self::in_the_articles_words(&body),
            201 => {
                let outcome = Self::ordered(&body);
                let location = format!("/sales/{}/orders/{}", body["sale"].as_str().unwrap(), outcome.id());
                assert_eq!(answer.header("location"), Some(location.as_str()), "{answer:?}");
                outcome
            }
            status => {
                let name = answer.problem();
                let waits = [
                    "sale-not-open",
                    "admission-early",
                    "sale-paused",
                    "busy",
                    "ledger-unavailable",
                    "ledger-lost-data",
                    "outcome-unknown",
                ];
                if waits.contains(&name.as_str()) {
                    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
                    assert!(seconds.is_some(), "{name} says when to come again: {answer:?}");
                }
                Self::Refused { name, status, body }
            }
        }
    }

    fn ordered(order: &Value) -> Self {
        let id = order["order_id"].as_str().unwrap_or_default();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "not an order: {order}");
        let members: BTreeSet<&str> = order.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = ["order_id", "sale", "buyer", "quantity", "state", "expires_at"];
        assert_eq!(members, BTreeSet::from(expected), "{order}");
        assert_eq!(order["state"], "HELD", "{order}");
        assert!(order["expires_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{order}");
        Self::Ordered { id: id.to_owned(), order: order.clone() }
    }

    fn in_the_articles_words(body: &Value) -> Self {
        let code = body["code"].as_i64().unwrap_or_else(|| panic!("no code: {body}"));
        let msg = body["msg"].as_str().unwrap_or_else(|| panic!("no msg: {body}"));
        assert_eq!(code == 1, msg == "抢票成功", "{body}");
        assert_eq!(code == -1, msg == "已售罄", "{body}");
        let name = match code {
            1 => return Self::ordered(&body["data"]),
            -1 => "sold-out",
            -2 => "not-enough-left",
            -3 => "buyer-limit",
            -4 => "sale-not-open",
            -5 => "sale-closed",
            -6 => "sale-paused",
            -7 => "bad-request",
            -8 => "key-reused",
            -9 => "busy",
            -10 => "outcome-unknown",
            -11 => "ledger-unavailable",
            -12 => "sale-missing",
            -13 => "order-released",
            -14 => "unpaid-limit",
            -15 => "ledger-lost-data",
            -16 => "too-many-requests",
            -17 => "address-denied",
            -18 => "token-missing",
            -19 => "token-invalid",
            -20 => "buyer-unknown",
            -21 => "admission-required",
            -22 => "admission-invalid",
            -23 => "admission-early",
            -24 => "admission-expired",
            _ => panic!("unknown code: {body}"),
        };
        Self::Refused { name: name.to_owned(), status: 200, body: body["data"].clone() }
    }

    pub fn is_order(&self) -> bool {
        matches!(self, Self::Ordered { .. })
    }

    /// The order's ID, which an unknown outcome has, too.
    #[track_caller]
    pub fn id(&self) -> &str {
        match self {
            Self::Ordered { id, .. } => id,
            Self::Refused { body, .. } => {
                body["order_id"].as_str().unwrap_or_else(|| panic!("there is no order: {self:?}"))
            }
        }
    }

    /// The problem's name, or "ordered".
    pub fn name(&self) -> &str {
        match self {
            Self::Ordered { .. } => "ordered",
            Self::Refused { name, .. } => name,
        }
    }
}

/// A purchase of one ticket.
pub fn purchase() -> Request {
    Request::post("/buy/ticket")
}

/// A purchase that may be asked again.
pub fn purchase_with_key(key: &str) -> Request {
    purchase().header("Idempotency-Key", &format!("\"{key}\""))
}

/// Asks once, on a connection of its own.
#[track_caller]
pub fn buy(address: SocketAddr, request: &Request) -> Outcome {
    Outcome::of(&Connection::to(address).ask(request))
}

/// How many of the outcomes have this name.
pub fn count(outcomes: &[Outcome], name: &str) -> usize {
    outcomes.iter().filter(|outcome| outcome.name() == name).count()
}

/// The ids of all orders among the outcomes; no two may be the same.
#[track_caller]
pub fn order_ids(outcomes: &[Outcome]) -> BTreeSet<String> {
    let ids: Vec<&str> = outcomes.iter().filter(|outcome| outcome.is_order()).map(Outcome::id).collect();
    let different: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    assert_eq!(different.len(), ids.len(), "all order ids differ");
    different
}
