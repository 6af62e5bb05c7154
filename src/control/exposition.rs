//! Every metric, declared once, in the Prometheus text format. docs/reference/metrics.md lists them, and a test holds
//! it against an edge.

use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::control::logs;
use crate::delivery::{Delivery, DeliveryMetrics, Gauges};
use crate::ledger::View;
use crate::limits::LimitCounters;
use crate::observe::telemetry::{Buckets, Codes, Counter};
use crate::observe::trace;
use crate::sale::metrics::{OUTCOMES, SaleMetrics};
use crate::traffic::tls::Terminator;
use crate::upstream::{Status, Upstream};

/// Microseconds of a second.
const MICROS: f64 = 1e6;

/// The text that Prometheus reads.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric. `kind` is `counter`, `gauge` or `histogram`.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a value to the metric that was begun last.
    pub fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A metric that has one value.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }

    /// Adds the values of a histogram to the metric that was begun last; `unit` of them are 1.
    fn buckets(&mut self, name: &str, labels: &[(&str, &str)], buckets: &Buckets, unit: f64) {
        let (counted, mut count) = (format!("{name}_bucket"), 0);
        for (at, more) in buckets.counts.iter().enumerate() {
            count += more;
            let bound = buckets.bounds.get(at).map_or("+Inf".to_owned(), |bound| (*bound as f64 / unit).to_string());
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.value(&counted, &labels, count);
        }
        self.value(&format!("{name}_sum"), labels, buckets.sum as f64 / unit);
        self.value(&format!("{name}_count"), labels, count);
    }

    /// What became of spans.
    pub fn spans(&mut self, count: &trace::Count) {
        let name = "spikegate_trace_spans_total";
        self.metric(name, "counter", "Spans by what became of them; ended are all that were to be sent.");
        for (state, counter) in [("ended", &count.ended), ("sent", &count.sent), ("failed", &count.failed)] {
            self.value(name, &[("state", state)], counter.get());
        }
    }

    /// What became of the lines of logs.
    pub fn logs(&mut self, counts: &logs::LogCounts) {
        let columns = [
            ("spikegate_access_log_written_total", "Requests written down.", counts.access_log.written),
            ("spikegate_access_log_skipped_total", "Refusals left out, as `refusals` says.", counts.access_log.skipped),
            (
                "spikegate_access_log_dropped_total",
                "Requests not written down because the disk did not keep up.",
                counts.access_log.dropped,
            ),
            ("spikegate_error_log_held_back_total", "Lines only counted: too many like them.", counts.held_back),
            ("spikegate_error_log_dropped_total", "Lines that the disk did not take.", counts.dropped),
        ];
        columns.into_iter().for_each(|(name, help, count)| self.single(name, "counter", help, count));
    }

    /// When the certificates of listeners end.
    pub fn certificates(&mut self, terminators: &[(SocketAddr, Arc<Terminator>)]) {
        let name = "spikegate_tls_certificate_expires_seconds";
        self.metric(name, "gauge", "When the first of a listener's certificates ends, in seconds since 1970.");
        for (address, terminator) in terminators {
            if let Some(end) = terminator.first_end() {
                let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                self.value(name, &[("listen", &address.to_string())], seconds);
            }
        }
    }

    /// All requests, by what they were answered.
    pub fn requests(&mut self, codes: &Codes) {
        let name = "spikegate_requests_total";
        self.metric(name, "counter", "Requests by the class of their answer's status; none if the client went first.");
        for (code, count) in codes.counts() {
            self.value(name, &[("code", code)], count);
        }
    }

    /// The metrics of all sales, by their ids.
    pub fn sales<'a>(&mut self, sales: &[(&'a str, &'a SaleMetrics)]) {
        let name = "spikegate_purchases_total";
        self.metric(name, "counter", "Purchases by how they ended; the sum is all of them.");
        for (sale, metrics) in sales {
            for (outcome, counter) in OUTCOMES.iter().zip(&metrics.outcomes) {
                self.value(name, &[("sale", sale), ("outcome", outcome)], counter.get());
            }
        }
        type Column = (&'static str, &'static str, fn(&SaleMetrics) -> &Counter);
        let columns: [Column; 6] = [
            ("spikegate_gate_refused_total", "Purchases refused from memory.", |m| &m.refused_at_gate),
            ("spikegate_tokens_checked_total", "Tokens that were to prove a buyer.", |m| &m.tokens_checked),
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
        type Histogram = (&'static str, &'static str, fn(&SaleMetrics) -> Buckets, f64);
        let histograms: [Histogram; 3] = [
            ("spikegate_ledger_batch_size", "Purchases of a batch.", |m| m.batch_size.buckets(), 1.0),
            ("spikegate_ledger_seconds", "Time of the ledger for a batch.", |m| m.ledger.buckets(), MICROS),
            ("spikegate_purchase_seconds", "Time of purchases that needed the ledger.", |m| m.waits.buckets(), MICROS),
        ];
        for (name, help, buckets, unit) in histograms {
            self.metric(name, "histogram", help);
            for (sale, metrics) in sales {
                self.buckets(name, &[("sale", sale)], &buckets(metrics), unit);
            }
        }
    }

    /// Which sales the ledger has fenced, by the sales' ids.
    pub fn fences(&mut self, fenced: &[(&str, bool)]) {
        let name = "spikegate_sale_fenced";
        self.metric(name, "gauge", "Whether the ledger has lost changes of a sale that was not reconciled.");
        for (sale, fenced) in fenced {
            self.value(name, &[("sale", sale)], u64::from(*fenced));
        }
    }

    /// Which sales have heard of the ledger of late, by the sales' ids.
    pub fn heard(&mut self, heard: &[(&str, bool)]) {
        let name = "spikegate_sale_hears_ledger";
        self.metric(name, "gauge", "Whether the ledger was heard of so late that refusals from memory are true.");
        for (sale, hears) in heard {
            self.value(name, &[("sale", sale)], u64::from(*hears));
        }
    }

    /// What the gates know of the stock, by the sales' ids.
    pub fn stock(&mut self, views: &[(&str, View)]) {
        type Column = (&'static str, &'static str, fn(&View) -> u64);
        let columns: [Column; 4] = [
            ("spikegate_tickets", "All tickets of a sale.", |view| view.total),
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

    /// Connections, and what the limits refused.
    pub fn limits(&mut self, counts: LimitCounters) {
        self.single("spikegate_connections", "gauge", "Connections of clients that are open.", counts.open);
        let name = "spikegate_connections_refused_total";
        self.metric(name, "counter", "Connections refused, by the limit that they met.");
        self.value(name, &[("limit", "connections")], counts.refused_in_all);
        self.value(name, &[("limit", "connections_per_address")], counts.refused_of_address);
        let name = "spikegate_requests_limited_total";
        self.metric(name, "counter", "Requests refused because their address asks too often, by whose limit it met.");
        self.value(name, &[("limit", "edge")], counts.requests_refused);
        self.value(name, &[("limit", "route")], counts.refused_of_routes);
        self.single(
            "spikegate_requests_denied_total",
            "counter",
            "Requests refused because their address may not ask.",
            counts.requests_denied,
        );
        self.single(
            "spikegate_proxy_headers_refused_total",
            "counter",
            "Connections closed because they did not begin with a PROXY header.",
            counts.headers_refused,
        );
        self.single(
            "spikegate_tls_handshakes_failed_total",
            "counter",
            "Connections whose TLS handshake failed.",
            counts.handshakes_failed,
        );
    }

    /// What the backends were asked, and whether they are up.
    pub fn upstreams(&mut self, upstreams: &[Arc<Upstream>]) {
        type Column = (&'static str, &'static str, &'static str, fn(&Status) -> u64);
        let columns: [Column; 4] = [
            ("spikegate_upstream_requests_total", "counter", "Requests sent to a backend, or tried to.", |backend| {
                backend.counts.sent
            }),
            ("spikegate_upstream_failures_total", "counter", "Requests that failed at a backend.", |backend| {
                backend.counts.failed
            }),
            ("spikegate_upstream_requests_under_way", "gauge", "Requests that a backend has now.", |backend| {
                backend.counts.under_way
            }),
            ("spikegate_upstream_up", "gauge", "Whether a backend is chosen.", |backend| u64::from(backend.is_up)),
        ];
        let groups: Vec<_> = upstreams.iter().map(|upstream| (upstream.settings(), upstream.status())).collect();
        for (name, kind, help, value) in columns {
            self.metric(name, kind, help);
            for (settings, backends) in &groups {
                for backend in backends {
                    let server = backend.address.to_string();
                    let labels = [("upstream", settings.name.as_str()), ("server", server.as_str())];
                    self.value(name, &labels, value(backend));
                }
            }
        }
        let name = "spikegate_upstream_answer_seconds";
        self.metric(name, "histogram", "Time from the choice of a backend to the head of its answer.");
        for (settings, backends) in &groups {
            for backend in backends {
                let server = backend.address.to_string();
                let labels = [("upstream", settings.name.as_str()), ("server", server.as_str())];
                self.buckets(name, &labels, &backend.answers, MICROS);
            }
        }
        let name = "spikegate_proxied_requests_total";
        self.metric(name, "counter", "Requests of a group of backends by the class of their answer's status.");
        for upstream in upstreams {
            for (code, count) in upstream.metrics().codes.counts() {
                self.value(name, &[("upstream", upstream.settings().name.as_str()), ("code", code)], count);
            }
        }
        let name = "spikegate_proxied_request_seconds";
        self.metric(name, "histogram", "Time of these requests, from their head to the end of their answer.");
        for upstream in upstreams {
            let waits = upstream.metrics().waits.buckets();
            self.buckets(name, &[("upstream", upstream.settings().name.as_str())], &waits, MICROS);
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
    use std::time::Duration;

    use super::*;
    use crate::observe::telemetry::Waits;

    #[test]
    fn buckets_add_up() {
        let waits = Waits::default();
        for micros in [50, 200, 2_000_000, 60_000_000] {
            waits.add(Duration::from_micros(micros));
        }
        let mut text = Exposition::default();
        text.buckets("m", &[("a", "b")], &waits.buckets(), MICROS);
        let text = text.finish();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "m_bucket{a=\"b\",le=\"0.0001\"} 1");
        assert_eq!(lines[1], "m_bucket{a=\"b\",le=\"0.00025\"} 2");
        assert_eq!(lines[13], "m_bucket{a=\"b\",le=\"2.5\"} 3");
        assert_eq!(
            lines[15..],
            [
                "m_bucket{a=\"b\",le=\"10\"} 3",
                "m_bucket{a=\"b\",le=\"+Inf\"} 4",
                "m_sum{a=\"b\"} 62.00025",
                "m_count{a=\"b\"} 4",
            ]
        );
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
