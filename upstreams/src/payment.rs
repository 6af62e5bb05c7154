//! The port to whoever takes the money.

mod demo;

use async_trait::async_trait;

pub use demo::Demo;

/// What is to be paid.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The payment's own id, 32 hexadecimal digits. A provider that is asked twice under one id takes the money once,
    /// and answers both times what came of it.
    pub payment: String,
    /// The order's id.
    pub order: String,
    /// The sale's id.
    pub sale: String,
    /// How many tickets.
    pub quantity: i64,
}

/// What came of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The provider has the money.
    Paid,
    /// It will not take any under this id.
    Declined,
}

/// The provider did not say what came of it. Asking again under the same id is safe.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// Where a provider tells, at any time and as often as it likes, what came of a charge.
#[async_trait]
pub trait Reports: Send + Sync {
    /// Takes note of a verdict.
    ///
    /// # Errors
    ///
    /// It could not be noted, so it has to be told again.
    async fn report(&self, payment: &str, verdict: Verdict) -> Result<(), NoAnswer>;
}

/// A payment provider.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Takes the money, and answers or reports what came of it.
    ///
    /// # Errors
    ///
    /// The outcome is unknown.
    async fn charge(&self, charge: &Charge, reports: &dyn Reports) -> Result<Verdict, NoAnswer>;

    /// Gives back all that was taken under this payment's id; once, however often it is asked.
    ///
    /// # Errors
    ///
    /// The outcome is unknown.
    async fn refund(&self, payment: &str) -> Result<(), NoAnswer>;
}
