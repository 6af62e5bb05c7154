//! The rules for the purchases of a sale: its settings and what is derived from them.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::Refusal;
use crate::auth::jwt::Verifier;
use crate::config::{self, BuyerSource};
use crate::ledger::Terms;
use crate::limits::{Quota, QuotaGuard};

/// The rules for one purchase, from its start to its end. A reload creates new ones.
pub struct SaleRules {
    /// The sale's configuration.
    pub settings: config::Sale,
    /// Sent to the ledger with every step.
    pub(super) terms: Terms,
    /// Verifies buyer tokens, if the sale requires one.
    pub(super) verifier: Option<Verifier>,
    /// The quota of each buyer, by a hash of the buyer ID, if the sale has one.
    buyers: Option<Arc<(Quota, RandomState)>>,
}

impl SaleRules {
    /// Creates rules from settings. If the quota did not change since `before`, its counts are kept.
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

    /// Whether the sale has a quota per buyer and therefore needs the buyer ID.
    pub(super) fn limits_buyers(&self) -> bool {
        self.buyers.is_some()
    }

    /// Takes one purchase from the buyer's quota (rate and concurrency).
    pub(super) fn take_quota(&self, buyer: Option<&str>) -> Result<Option<QuotaGuard>, Refusal> {
        match (self.buyers.as_deref(), buyer) {
            (Some((quota, hasher)), Some(buyer)) => {
                quota.take(hasher.hash_one(buyer)).map(Some).ok_or(Refusal::TooOften)
            }
            _ => Ok(None),
        }
    }
}
