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

    /// Counts of spans.
    pub fn spans(&mut self, count: &trace::Count) {
        let name = "spikegate_trace_spans_total";
        self.metric(name, "counter", "Spans by state: ended counts all recorded spans.");
        for (state, counter) in [("ended", &count.ended), ("sent", &count.sent), ("failed", &count.failed)] {
            self.value(name, &[("state", state)], counter.get());
        }
    }

    /// Counts of log lines.
    pub fn logs(&mut self, counts: &logs::LogCounts) {
        let columns = [
            ("spikegate_access_log_written_total", "Access log lines written.", counts.access_log.written),
            (
                "spikegate_access_log_skipped_total",
                "Refusals not logged because of access_log.refusals.",
                counts.access_log.skipped,
            ),
            (
                "spikegate_access_log_dropped_total",
                "Access log lines dropped because the disk was full or too slow.",
                counts.access_log.dropped,
            ),
            (
                "spikegate_error_log_held_back_total",
                "Error log lines only counted, because of the rate limit.",
                counts.held_back,
            ),
            (
                "spikegate_error_log_dropped_total",
                "Error log lines dropped because the disk was full or too slow.",
                counts.dropped,
            ),
        ];
        columns.into_iter().for_each(|(name, help, count)| self.single(name, "counter", help, count));
    }

    /// When the certificates of listeners expire.
    pub fn certificates(&mut self, terminators: &[(SocketAddr, Arc<Terminator>)]) {
        let name = "spikegate_tls_certificate_expires_seconds";
        self.metric(name, "gauge", "Earliest expiry among the certificates of a listener, as a Unix time in seconds.");
        for (address, terminator) in terminators {
            if let Some(end) = terminator.first_end() {
                let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                self.value(name, &[("listen", &address.to_string())], seconds);
            }
        }
    }

    /// All requests, by status class.
    pub fn requests(&mut self, codes: &Codes) {
        let name = "spikegate_requests_total";
        self.metric(name, "counter", "All requests, by status class of the answer (2xx, ...).");
        for (code, count) in codes.counts() {
            self.value(name, &[("code", code)], count);
        }
    }

    /// The metrics of all sales, by their ids.
    pub fn sales<'a>(&mut self, sales: &[(&'a str, &'a SaleMetrics)]) {
        let name = "spikegate_purchases_total";
        self.metric(name, "counter", "Purchases, by outcome.");
        for (sale, metrics) in sales {
            for (outcome, counter) in OUTCOMES.iter().zip(&metrics.outcomes) {
                self.value(name, &[("sale", sale), ("outcome", outcome)], counter.get());
            }
        }
        type Column = (&'static str, &'static str, fn(&SaleMetrics) -> &Counter);
        let columns: [Column; 6] = [
            ("spikegate_gate_refused_total", "Purchases refused from memory.", |m| &m.refused_at_gate),
            ("spikegate_tokens_checked_total", "Buyer tokens whose signature was checked.", |m| &m.tokens_checked),
            ("spikegate_ledger_batches_total", "Batches sent to the ledger.", |m| &m.batches),
            ("spikegate_ledger_attempts_total", "Purchases in these batches.", |m| &m.attempts),
            ("spikegate_ledger_retries_total", "Batches sent again because their outcome was unknown.", |m| &m.retries),
            (
                "spikegate_orders_expired_total",
                "Unpaid orders that this edge released at the end of their hold.",
                |m| &m.expired,
            ),
        ];
        for (name, help, counter) in columns {
            self.metric(name, "counter", help);
            for (sale, metrics) in sales {
                self.value(name, &[("sale", sale)], counter(metrics).get());
            }
        }
        type Histogram = (&'static str, &'static str, fn(&SaleMetrics) -> Buckets, f64);
        let histograms: [Histogram; 3] = [
            ("spikegate_ledger_batch_size", "Purchases per batch, 1 to 512.", |m| m.batch_size.buckets(), 1.0),
            (
                "spikegate_ledger_seconds",
                "Time of each batch at the ledger, answered or not.",
                |m| m.ledger.buckets(),
                MICROS,
            ),
            (
                "spikegate_purchase_seconds",
                "Time until the outcome, for purchases that reached the ledger.",
                |m| m.waits.buckets(),
                MICROS,
            ),
        ];
        for (name, help, buckets, unit) in histograms {
            self.metric(name, "histogram", help);
            for (sale, metrics) in sales {
                self.buckets(name, &[("sale", sale)], &buckets(metrics), unit);
            }
        }
    }

    /// Whether each sale is fenced.
    pub fn fences(&mut self, fenced: &[(&str, bool)]) {
        let name = "spikegate_sale_fenced";
        self.metric(name, "gauge", "1 if the ledger lost changes; sales stop until spikegate sale reconcile --apply.");
        for (sale, fenced) in fenced {
            self.value(name, &[("sale", sale)], u64::from(*fenced));
        }
    }

    /// Whether each sale has recent data from its ledger.
    pub fn heard(&mut self, heard: &[(&str, bool)]) {
        let name = "spikegate_sale_hears_ledger";
        self.metric(name, "gauge", "1 if the ledger answered recently; 0 otherwise, and purchases then get 503.");
        for (sale, hears) in heard {
            self.value(name, &[("sale", sale)], u64::from(*hears));
        }
    }

    /// The stock as the gates know it.
    pub fn stock(&mut self, views: &[(&str, View)]) {
        type Column = (&'static str, &'static str, fn(&View) -> u64);
        let columns: [Column; 4] = [
            ("spikegate_tickets", "Total tickets, as of the last sync.", |view| view.total),
            ("spikegate_tickets_available", "Available tickets.", View::available),
            ("spikegate_tickets_sold", "Held and paid tickets.", |view| view.sold),
            ("spikegate_tickets_paid", "Paid tickets.", |view| view.paid),
        ];
        for (name, help, value) in columns {
            self.metric(name, "gauge", help);
            for (sale, view) in views {
                self.value(name, &[("sale", sale)], value(view));
            }
        }
    }

    /// Deliveries to the order service.
    pub fn deliveries(&mut self, deliveries: &[Arc<Delivery>]) {
        let name = "spikegate_delivery_posts_total";
        self.metric(name, "counter", "POST requests by outcome: kept, refused, failed.");
        for delivery in deliveries {
            let DeliveryMetrics { kept, refused, failed, .. } = delivery.metrics();
            for (outcome, counter) in [("kept", kept), ("refused", refused), ("failed", failed)] {
                self.value(name, &[("sale", delivery.sale_id()), ("outcome", outcome)], counter.get());
            }
        }
        let name = "spikegate_delivery_events_total";
        self.metric(name, "counter", "Events that this edge delivered.");
        for delivery in deliveries {
            self.value(name, &[("sale", delivery.sale_id())], delivery.metrics().events.get());
        }
        type Column = (&'static str, &'static str, fn(&Gauges) -> u64);
        let columns: [Column; 3] = [
            ("spikegate_delivery_lag_entries", "Log entries that are not delivered yet.", |g| g.lag_entries),
            ("spikegate_delivery_oldest_seconds", "Age of the oldest of them.", |g| g.oldest_s),
            (
                "spikegate_delivery_set_aside",
                "Events that the order service refused, kept for spikegate sale redeliver.",
                |g| g.set_aside,
            ),
        ];
        let gauges: Vec<_> = deliveries.iter().map(|delivery| (delivery.sale_id(), delivery.gauges())).collect();
        for (name, help, value) in columns {
            self.metric(name, "gauge", help);
            for (sale, gauges) in &gauges {
                self.value(name, &[("sale", sale)], value(gauges));
            }
        }
    }

    /// Open connections, and what the limits refused.
    pub fn limits(&mut self, counts: LimitCounters) {
        self.single("spikegate_connections", "gauge", "Open client connections.", counts.open);
        let name = "spikegate_connections_refused_total";
        self.metric(name, "counter", "Connections refused, by limit: connections or connections_per_address.");
        self.value(name, &[("limit", "connections")], counts.refused_in_all);
        self.value(name, &[("limit", "connections_per_address")], counts.refused_of_address);
        let name = "spikegate_requests_limited_total";
        self.metric(name, "counter", "Requests answered with 429, by limit: edge or route.");
        self.value(name, &[("limit", "edge")], counts.requests_refused);
        self.value(name, &[("limit", "route")], counts.refused_of_routes);
        self.single(
            "spikegate_requests_denied_total",
            "counter",
            "Requests refused by allow and deny.",
            counts.requests_denied,
        );
        self.single(
            "spikegate_proxy_headers_refused_total",
            "counter",
            "Connections closed because their PROXY header was missing or invalid.",
            counts.headers_refused,
        );
        self.single(
            "spikegate_tls_handshakes_failed_total",
            "counter",
            "Failed TLS handshakes.",
            counts.handshakes_failed,
        );
    }

    /// Requests per backend and group, and whether backends are up.
    pub fn upstreams(&mut self, upstreams: &[Arc<Upstream>]) {
        type Column = (&'static str, &'static str, &'static str, fn(&Status) -> u64);
        let columns: [Column; 4] = [
            ("spikegate_upstream_requests_total", "counter", "Attempts per backend.", |backend| backend.counts.sent),
            (
                "spikegate_upstream_failures_total",
                "counter",
                "Failed attempts: no connection, no response in time, or an invalid response.",
                |backend| backend.counts.failed,
            ),
            ("spikegate_upstream_requests_under_way", "gauge", "Requests in progress.", |backend| {
                backend.counts.under_way
            }),
            ("spikegate_upstream_up", "gauge", "1 if the backend can be selected.", |backend| u64::from(backend.is_up)),
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
        self.metric(name, "histogram", "Time from the selection of a backend to its response header.");
        for (settings, backends) in &groups {
            for backend in backends {
                let server = backend.address.to_string();
                let labels = [("upstream", settings.name.as_str()), ("server", server.as_str())];
                self.buckets(name, &labels, &backend.answers, MICROS);
            }
        }
        let name = "spikegate_proxied_requests_total";
        self.metric(name, "counter", "Proxied requests of a group, by status class.");
        for upstream in upstreams {
            for (code, count) in upstream.metrics().codes.counts() {
                self.value(name, &[("upstream", upstream.settings().name.as_str()), ("code", code)], count);
            }
        }
        let name = "spikegate_proxied_request_seconds";
        self.metric(name, "histogram", "Time from the request header to the end of the response to the client.");
        for upstream in upstreams {
            let waits = upstream.metrics().waits.buckets();
            self.buckets(name, &[("upstream", upstream.settings().name.as_str())], &waits, MICROS);
        }
    }

    /// The whole text.
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
