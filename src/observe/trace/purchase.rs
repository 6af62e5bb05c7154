//! Spans of purchases that reach the ledger, and of their batch.

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanContext, SpanKind, Status};
use opentelemetry_sdk::trace::Span;

use super::span;
use crate::ledger::BATCH_MAX;

/// A purchase from the queue to its outcome.
#[derive(Debug)]
pub struct Purchase(Box<Span>);

impl Purchase {
    /// Begins when it is queued at the sale `sale`. None if nothing is traced, or not this one.
    #[must_use]
    pub fn begin(sale: &str, parent: Option<&SpanContext>) -> Option<Self> {
        let mut span = span("purchase", SpanKind::Server, parent).filter(Span::is_recording)?;
        span.set_attribute(KeyValue::new("spikegate.sale", sale.to_owned()));
        Some(Self(Box::new(span)))
    }

    /// The parent for its parts.
    #[must_use]
    pub fn context(&self) -> Box<SpanContext> {
        Box::new(self.0.span_context().clone())
    }

    /// Ends it with this outcome; `is_fault` if neither the buyer nor the stock was the reason.
    pub fn end(mut self, outcome: &'static str, is_fault: bool) {
        self.0.set_attribute(KeyValue::new("spikegate.outcome", outcome));
        if is_fault {
            self.0.set_status(Status::error(outcome));
        }
        super::ended(&mut self.0);
    }
}

/// A batch at the ledger.
#[derive(Debug)]
pub struct Batch(Span);

impl Batch {
    /// Begins when it is sent, with these traced purchases among its `size` ones. It is a child of the first and links
    /// to the others. None if none is traced.
    #[must_use]
    pub fn begin<'a>(sale: &str, size: usize, mut of: impl Iterator<Item = &'a SpanContext>) -> Option<Self> {
        let mut span = span("ledger reserve", SpanKind::Client, Some(of.next()?))?;
        // The SDK keeps 128 of them.
        for other in of.take(BATCH_MAX) {
            span.add_link(other.clone(), Vec::new());
        }
        span.set_attribute(KeyValue::new("spikegate.sale", sale.to_owned()));
        span.set_attribute(KeyValue::new("spikegate.batch.size", size as i64));
        Some(Self(span))
    }

    /// Ends it when the ledger has decided, or with the reason why not.
    pub fn end(mut self, fault: Option<&'static str>) {
        if let Some(fault) = fault {
            self.0.set_status(Status::error(fault));
        }
        super::ended(&mut self.0);
    }
}
