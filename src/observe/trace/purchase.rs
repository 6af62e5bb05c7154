//! A purchase that needs the ledger, and the batch that brings it there.

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanContext, SpanKind, Status};
use opentelemetry_sdk::trace::Span;

use super::span;
use crate::ledger::BATCH_MAX;

/// A purchase from the queue to its outcome.
#[derive(Debug)]
pub struct Purchase(Box<Span>);

impl Purchase {
    /// It is put into the queue of the sale `sale` now. None if nothing is traced, or not this one.
    #[must_use]
    pub fn begin(sale: &str, parent: Option<&SpanContext>) -> Option<Self> {
        let mut span = span("purchase", SpanKind::Server, parent).filter(Span::is_recording)?;
        span.set_attribute(KeyValue::new("spikegate.sale", sale.to_owned()));
        Some(Self(Box::new(span)))
    }

    /// What belongs to it names it by this.
    #[must_use]
    pub fn context(&self) -> Box<SpanContext> {
        Box::new(self.0.span_context().clone())
    }

    /// It has ended so; `is_fault` if neither the buyer nor the stock was the reason.
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
    /// It is brought there now, with these purchases among its `size` ones. It belongs to the first, and names the
    /// others. None if none of them is traced.
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

    /// The ledger has decided it, or did not: then why.
    pub fn end(mut self, fault: Option<&'static str>) {
        if let Some(fault) = fault {
            self.0.set_status(Status::error(fault));
        }
        super::ended(&mut self.0);
    }
}
