//! What the purchases of a sale are judged by: its settings, and what is made of them.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::Refusal;
use crate::auth::jwt::Verifier;
use crate::config::{self, BuyerSource};
use crate::ledger::Terms;
use crate::limits::{Quota, Taken};

/// What one purchase is judged by from its beginning to its end; a reload makes others.
pub struct Rules {
    /// As the configuration has them.
    pub settings: config::Sale,
    /// What the ledger is told with every step.
    pub(super) terms: Terms,
    /// What proves who buys, if that is asked for.
    pub(super) verifier: Option<Verifier>,
    /// What each buyer may take, by a hash of the buyer's id; if there is such a limit.
    buyers: Option<Arc<(Quota, RandomState)>>,
}

impl Rules {
    /// Rules as in the settings. Of a limit that is as it was `before`, every buyer keeps what he has taken.
    pub(super) fn new(settings: config::Sale, before: Option<&Self>) -> Self {
        let terms = Terms {
            hold_ms: u64::try_from(settings.hold.as_millis()).unwrap_or(u64::MAX),
            per_buyer: settings.per_buyer,
            unpaid_per_buyer: settings.unpaid_per_buyer,
            opens_at_ms: settings.opens_at_ms,
            closes_at_ms: settings.closes_at_ms,
        };
        let verifier = match &settings.buyer {
            BuyerSource::Token(token) => Some(Verifier::new(&token.rules)),
            _ => None,
        };
        let has_limits = settings.buyer_limits != config::Quota::default();
        let buyers = match before {
            Some(before) if before.settings.buyer_limits == settings.buyer_limits => before.buyers.clone(),
            _ => has_limits.then(|| Arc::new((Quota::new(&settings.buyer_limits), RandomState::new()))),
        };
        Self { settings, terms, verifier, buyers }
    }

    /// Whether each buyer may take only so much, so that buyers have to be told apart.
    pub(super) fn limits_buyers(&self) -> bool {
        self.buyers.is_some()
    }

    /// One of the purchases that a buyer may make in a second and at a time.
    pub(super) fn take_share(&self, buyer: Option<&str>) -> Result<Option<Taken>, Refusal> {
        match (self.buyers.as_deref(), buyer) {
            (Some((quota, hasher)), Some(buyer)) => {
                quota.take(hasher.hash_one(buyer)).map(Some).ok_or(Refusal::TooOften)
            }
            _ => Ok(None),
        }
    }
}
