//! The interface to payment providers.

mod demo;

use async_trait::async_trait;

pub use demo::DemoProvider;

/// A payment to execute.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The payment's id, 32 hexadecimal digits. A provider that receives one id twice takes the money once and returns
    /// the same outcome both times.
    pub payment: String,
    /// The order's id.
    pub order: String,
    /// The sale's id.
    pub sale: String,
    /// How many tickets.
    pub quantity: i64,
}

/// The outcome of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The provider has the money.
    Paid,
    /// The provider takes no money for this id.
    Declined,
}

/// The outcome is unknown. Retrying with the same id is safe.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProviderError(pub String);

/// Receives outcomes from a provider at any time, any number of times.
#[async_trait]
pub trait ReportReceiver: Send + Sync {
    /// Stores an outcome.
    ///
    /// # Errors
    ///
    /// It could not be stored; the provider must report it again.
    async fn report(&self, payment: &str, verdict: Verdict) -> Result<(), ProviderError>;
}

/// A payment provider.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Takes the money and returns or reports the outcome.
    ///
    /// # Errors
    ///
    /// The outcome is unknown.
    async fn charge(&self, charge: &Charge, reports: &dyn ReportReceiver) -> Result<Verdict, ProviderError>;

    /// Refunds the money taken for this payment. Repeated calls refund it once.
    ///
    /// # Errors
    ///
    /// The outcome is unknown.
    async fn refund(&self, payment: &str) -> Result<(), ProviderError>;
}
