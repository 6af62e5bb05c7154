//! Every metric, declared once, in the Prometheus text format.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::delivery::{Delivery, DeliveryMetrics, Gauges};
use crate::ledger::View;
use crate::sale::{Outcome, Refusal};
use crate::upstream::Upstream;

/// Threads beyond this number share stripes.
const STRIPES: usize = 16;

/// One stripe; a cache line of its own (two, since processors fetch lines in pairs), so that threads do not meet.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A counter that many threads add to without sharing a cache line.
#[derive(Debug, Default)]
pub struct Counter {
    stripes: [Stripe; STRIPES],
}

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        // A thread that is ending has no stripe of its own any more.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        self.stripes[stripe].0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum; adds that go on meanwhile may or may not be in it.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}

/// The label values of `spikegate_purchases_total`, in the order of [`outcome_index`].
const OUTCOMES: [&str; 15] = [
    "ordered",
    "repeated",
    "sold_out",
    "not_enough_left",
    "buyer_limit",
    "not_open",
    "paused",
    "closed",
    "bad_request",
    "key_reused",
    "busy",
    "unknown",
    "unavailable",
    "missing",
    "unpaid_limit",
];

const BAD_REQUEST: usize = 8;

fn outcome_index(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Ordered { again: false, .. } => 0,
        Outcome::Ordered { again: true, .. } => 1,
        Outcome::Refused(refusal) => match refusal {
            Refusal::SoldOut => 2,
            Refusal::NotEnough { .. } => 3,
            Refusal::BuyerLimit { .. } => 4,
            Refusal::NotYet { .. } => 5,
            Refusal::Paused => 6,
            Refusal::Closed => 7,
            Refusal::KeyReused => 9,
            Refusal::Busy => 10,
            Refusal::Unavailable => 12,
            Refusal::Missing => 13,
            Refusal::UnpaidLimit { .. } => 14,
        },
        Outcome::Unknown { .. } => 11,
    }
}

/// What is counted of a sale.
#[derive(Debug, Default)]
pub struct SaleMetrics {
    outcomes: [Counter; OUTCOMES.len()],
    /// Refused from memory.
    pub refused_at_gate: Counter,
    /// Batches brought to the ledger.
    pub batches: Counter,
    /// Purchases in them; a batch that is asked again is not counted again.
    pub attempts: Counter,
    /// Batches asked again because their outcome was unknown.
    pub retries: Counter,
    /// Orders that this edge released because they were not paid in time.
    pub expired: Counter,
}

impl SaleMetrics {
    /// Counts how a purchase ended.
    pub fn outcome(&self, outcome: &Outcome) {
        self.outcomes[outcome_index(outcome)].add(1);
    }

    /// Counts a request that was no purchase.
    pub fn bad_request(&self) {
        self.outcomes[BAD_REQUEST].add(1);
    }
}

/// The text that Prometheus reads.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric. `kind` is `counter` or `gauge`.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a value to the metric that was begun last.
    pub fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// The metrics of all sales, by their ids.
    pub fn sales<'a>(&mut self, sales: &[(&'a str, &'a SaleMetrics)]) {
        let name = "spikegate_purchases_total";
        self.metric(name, "counter", "Purchases by how they ended.");
        for (sale, metrics) in sales {
            for (outcome, counter) in OUTCOMES.iter().zip(&metrics.outcomes) {
                self.value(name, &[("sale", sale), ("outcome", outcome)], counter.get());
            }
        }
        type Column = (&'static str, &'static str, fn(&SaleMetrics) -> &Counter);
        let columns: [Column; 5] = [
            ("spikegate_gate_refused_total", "Purchases refused from memory.", |m| &m.refused_at_gate),
            ("spikegate_ledger_batches_total", "Batches brought to the ledger.", |m| &m.batches),
            ("spikegate_ledger_attempts_total", "Purchases in these batches.", |m| &m.attempts),
            ("spikegate_ledger_retries_total", "Batches asked again, their outcome being unknown.", |m| &m.retries),
            ("spikegate_orders_expired_total", "Orders that this edge released, unpaid in time.", |m| &m.expired),
        ];
        for (name, help, counter) in columns {
            self.metric(name, "counter", help);
            for (sale, metrics) in sales {
                self.value(name, &[("sale", sale)], counter(metrics).get());
            }
        }
    }

    /// What the gates know of the stock, by the sales' ids.
    pub fn stock(&mut self, views: &[(&str, View)]) {
        type Column = (&'static str, &'static str, fn(&View) -> u64);
        let columns: [Column; 4] = [
            ("spikegate_tickets_total", "All tickets of a sale.", |view| view.total),
            ("spikegate_tickets_available", "Tickets that can be sold.", View::available),
            ("spikegate_tickets_sold", "Tickets held or paid.", |view| view.sold),
            ("spikegate_tickets_paid", "Tickets paid.", |view| view.paid),
        ];
        for (name, help, value) in columns {
            self.metric(name, "gauge", help);
            for (sale, view) in views {
                self.value(name, &[("sale", sale)], value(view));
            }
        }
    }

    /// How the sales' logs reach the order service.
    pub fn deliveries(&mut self, deliveries: &[Arc<Delivery>]) {
        let name = "spikegate_delivery_posts_total";
        self.metric(name, "counter", "POSTs to the order service by how they ended.");
        for delivery in deliveries {
            let DeliveryMetrics { kept, refused, failed, .. } = delivery.metrics();
            for (outcome, counter) in [("kept", kept), ("refused", refused), ("failed", failed)] {
                self.value(name, &[("sale", delivery.sale_id()), ("outcome", outcome)], counter.get());
            }
        }
        let name = "spikegate_delivery_events_total";
        self.metric(name, "counter", "Events that the order service keeps, delivered by this edge.");
        for delivery in deliveries {
            self.value(name, &[("sale", delivery.sale_id())], delivery.metrics().events.get());
        }
        type Column = (&'static str, &'static str, fn(&Gauges) -> u64);
        let columns: [Column; 3] = [
            ("spikegate_delivery_lag_entries", "Entries of the log not delivered yet.", |g| g.lag_entries),
            ("spikegate_delivery_oldest_seconds", "Age of the first of them.", |g| g.oldest_s),
            ("spikegate_delivery_set_aside", "Events that the order service refuses.", |g| g.set_aside),
        ];
        let gauges: Vec<_> = deliveries.iter().map(|delivery| (delivery.sale_id(), delivery.gauges())).collect();
        for (name, help, value) in columns {
            self.metric(name, "gauge", help);
            for (sale, gauges) in &gauges {
                self.value(name, &[("sale", sale)], value(gauges));
            }
        }
    }

    /// What the backends were asked, and whether they are up.
    pub fn upstreams(&mut self, upstreams: &[Arc<Upstream>]) {
        type Column = (&'static str, &'static str, &'static str, fn(&Upstream, usize) -> u64);
        let columns: [Column; 3] = [
            ("spikegate_upstream_requests_total", "counter", "Requests sent to a backend, or tried to.", |u, b| {
                u.counts(b).sent
            }),
            ("spikegate_upstream_failures_total", "counter", "Requests that failed at a backend.", |u, b| {
                u.counts(b).failed
            }),
            ("spikegate_upstream_up", "gauge", "Whether a backend is chosen.", |u, b| u64::from(u.is_up(b))),
        ];
        for (name, kind, help, value) in columns {
            self.metric(name, kind, help);
            for upstream in upstreams {
                for backend in 0..upstream.settings().servers.len() {
                    let server = upstream.address(backend).to_string();
                    let labels = [("upstream", upstream.settings().name.as_str()), ("server", server.as_str())];
                    self.value(name, &labels, value(upstream, backend));
                }
            }
        }
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_is_counted() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.get(), 40_000);
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Exposition::default();
        text.metric("m", "counter", "Help.");
        text.value("m", &[("a", "x\"y\\z"), ("b", "")], 3);
        text.value("m", &[], 4);
        assert_eq!(text.finish(), "# HELP m Help.\n# TYPE m counter\nm{a=\"x\\\"y\\\\z\",b=\"\"} 3\nm 4\n");
    }
}
