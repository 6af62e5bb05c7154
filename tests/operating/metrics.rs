//! Metrics: documentation, alerts and dashboard match a real edge and a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::backend::After;
use crate::harness::client::everything;
use crate::harness::process::{Process, free_address};
use crate::harness::purchase::purchase;
use crate::harness::{Authority, Backend, Edge, OrderService, Redis, Request, Shelf, becomes, buy, eventually};

/// A metric of an edge or of the document: its type, and its labels.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An edge with everything that has metrics of its own, and what it needs.
struct Stand {
    edge: Edge,
    _backend: Backend,
    _service: OrderService,
    _shelf: Shelf,
    _authority: Authority,
}

impl Stand {
    fn start() -> Self {
        let backend = Backend::start(|request| {
            request.answer("hello");
            After::KeepOpen
        });
        let shelf = Shelf::sqlite();
        let [service] = shelf.services(["demo"]);
        let authority = Authority::new();
        let certificates = [authority.certificate("edge", &["tickets.example"])];
        let edge = Edge::setup()
            .listener_at(free_address(), json!({ "tls": { "certificates": certificates } }))
            .ticket(json!({ "total": 3 }))
            .delivers_to(&service, &shelf)
            .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
            .start();
        Self { edge, _backend: backend, _service: service, _shelf: shelf, _authority: authority }
    }

    fn exposition(&self) -> String {
        let answer = self.edge.control(&Request::get("/metrics"));
        assert_eq!(answer.status, 200);
        answer.text().to_owned()
    }
}

/// Names, types and labels; `le` is what makes a histogram, and no label of its own.
fn told(exposition: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in exposition.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            let before = metrics.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
            assert!(before.is_none(), "{name} is declared twice");
        } else if !line.starts_with('#') {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let declared = base.filter(|base| metrics.contains_key(*base)).unwrap_or(name);
            let known = metrics.get_mut(declared).unwrap_or_else(|| panic!("{name} was not declared"));
            let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
            let names = labels.map(|label| label.split('=').next().unwrap()).filter(|label| *label != "le");
            known.1.extend(names.map(str::to_owned));
        }
    }
    metrics
}

/// The rows of the tables of docs/reference/metrics.md.
fn documented() -> Metrics {
    let text = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        assert!(!cells[3].is_empty(), "{row}: without a meaning");
        (quoted(cells[0]).pop_first().unwrap(), (cells[1].to_owned(), quoted(cells[2])))
    })
    .collect()
}

#[test]
fn the_document_lists_exactly_the_metrics_of_an_edge() {
    let stand = Stand::start();
    assert_eq!(documented(), told(&stand.exposition()));
    let outcomes = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    for line in stand.exposition().lines().filter(|line| line.starts_with("spikegate_purchases_total{")) {
        let outcome = line.split("outcome=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert!(
            outcomes.contains(&format!("`{outcome}`")),
            "the outcome {outcome} is not in docs/reference/metrics.md"
        );
    }
}

#[test]
fn promtool_finds_no_fault() {
    let stand = Stand::start();
    let folder = TempDir::with_prefix("spikegate-metrics-").unwrap();
    let (text, checks) = (folder.path().join("metrics"), root().join("deploy/prometheus"));
    fs::write(&text, stand.exposition()).unwrap();
    let run = |command: &mut Command| {
        let output = command.current_dir(&checks).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{command:?}:\n{said}");
        said
    };
    let said = run(Command::new("promtool").args(["check", "metrics"]).stdin(fs::File::open(&text).unwrap()));
    assert_eq!(said, "");
    run(Command::new("promtool").args(["check", "rules", "spikegate.rules.yaml"]));
    run(Command::new("promtool").args(["test", "rules", "spikegate.rules.test.yaml"]));
}

#[test]
fn every_request_is_counted_where_it_belongs() {
    let stand = Stand::start();
    let edge = &stand.edge;
    let mut connection = edge.connect();
    for _ in 0..3 {
        assert_eq!(buy(edge.address(), &purchase()).name(), "ordered");
    }
    for _ in 0..5 {
        assert_eq!(buy(edge.address(), &purchase()).name(), "sold-out");
    }
    for _ in 0..4 {
        assert_eq!(connection.ask(&Request::get("/any")).text(), "hello");
    }
    let refused = everything(edge.address(), b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert!(refused.starts_with(b"HTTP/1.1 400 "));

    // What is counted at the end of a request may come a moment after its answer.
    let count = |name, label| edge.metric(name, label);
    edge.wait_for_metric("spikegate_requests_total", "", 13);
    assert_eq!(count("spikegate_requests_total", "2xx"), 7);
    assert_eq!(count("spikegate_requests_total", "4xx"), 6);
    assert_eq!(count("spikegate_requests_total", ""), 13);
    edge.wait_for_metric("spikegate_proxied_requests_total", "upstream=\"load_rule\",code=\"2xx\"", 4);
    edge.wait_for_metric("spikegate_proxied_request_seconds_count", "load_rule", 4);
    edge.wait_for_metric("spikegate_upstream_answer_seconds_count", "load_rule", 4);
    assert_eq!(count("spikegate_purchases_total", "ordered"), 3);
    assert_eq!(count("spikegate_purchase_seconds_count", ""), count("spikegate_ledger_attempts_total", ""));
    assert_eq!(count("spikegate_ledger_batch_size_sum", ""), count("spikegate_ledger_attempts_total", ""));
    assert_eq!(count("spikegate_ledger_batch_size_count", ""), count("spikegate_ledger_batches_total", ""));
    assert!(count("spikegate_ledger_seconds_count", "") >= count("spikegate_ledger_batches_total", ""));
    assert_eq!(count("spikegate_build_info", env!("CARGO_PKG_VERSION")), 1);
    assert!(count("process_resident_memory_bytes", "") > 1 << 20);
    assert!(count("process_open_fds", "") > 10 && count("process_max_fds", "") >= count("process_open_fds", ""));
    assert!(count("spikegate_tls_certificate_expires_seconds", "") > count("process_start_time_seconds", ""));
}

#[test]
fn a_ledger_that_is_gone_shows() {
    let mut redis = Redis::start();
    let edge = Edge::setup().redis_at(&redis.url(), "200ms").ticket(json!({ "total": 9, "deadline": "300ms" })).start();
    edge.wait_for_metric("spikegate_sale_hears_ledger", "ticket", 1);
    redis.kill9();
    edge.wait_for_metric("spikegate_sale_hears_ledger", "ticket", 0);
    buy(edge.address(), &purchase());
    let faults = || {
        edge.metric("spikegate_purchases_total", "unavailable") + edge.metric("spikegate_purchases_total", "unknown")
    };
    becomes("purchases without an answer of the ledger", 1, faults);
    edge.wait_for_metric("spikegate_requests_total", "5xx", 1);
}

/// The expressions of the alerts and of the dashboard's panels, as Prometheus is to be asked them.
fn expressions() -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let rules: Value = serde_yaml::from_str(&read("deploy/prometheus/spikegate.rules.yaml")).unwrap();
    let alerts = rules["groups"][0]["rules"].as_array().unwrap();
    let alerts = alerts.iter().map(|rule| (rule["alert"].clone(), rule["expr"].clone()));
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/spikegate.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let panels = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(|target| (panel["title"].clone(), target["expr"].clone())).collect::<Vec<_>>()
    });
    let text = |value: Value| value.as_str().unwrap().to_owned();
    let filled_in = |expression: Value| {
        let expression = text(expression).replace("$__rate_interval", "1m");
        expression.replace("$instance", ".*").replace("$sale", ".*")
    };
    alerts.chain(panels).map(|(title, expression)| (text(title), filled_in(expression))).collect()
}

/// The names of series in an expression.
fn names(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("spikegate_") || word.starts_with("process_")).collect()
}

struct Prometheus {
    _process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Reads an edge every second, and has the alerts.
    fn start(control: SocketAddr) -> Self {
        let (folder, address) = (TempDir::with_prefix("spikegate-prometheus-").unwrap(), free_address());
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "scrape_configs": [{ "job_name": "spikegate", "static_configs": [{ "targets": [control] }] }],
            "rule_files": [root().join("deploy/prometheus/spikegate.rules.yaml")],
        });
        let file = folder.path().join("prometheus.json");
        fs::write(&file, config.to_string()).unwrap();
        let option = |name: &str, value: PathBuf| format!("--{name}={}", value.display());
        let process = Process::start(
            "prometheus",
            Command::new("prometheus").args([
                option("config.file", file),
                option("storage.tsdb.path", folder.path().join("data")),
                format!("--web.listen-address={address}"),
            ]),
            folder.path(),
        );
        let prometheus = Self { _process: process, address, _folder: folder };
        eventually("Prometheus answers", || prometheus.ask("/-/ready").filter(|(status, _)| *status == 200));
        prometheus
    }

    /// A status and a body; none if the connection fails.
    fn ask(&self, path: &str) -> Option<(u16, String)> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(format!("http://{}{path}", self.address)).call().ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.body_mut().read_to_string().unwrap()))
    }

    /// How many series an expression has now.
    fn series(&self, expression: &str) -> usize {
        let query = percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let (status, body) = self.ask(&format!("/api/v1/query?query={query}")).expect("Prometheus answers");
        assert_eq!(status, 200, "{expression}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["data"]["result"].as_array().unwrap().len()
    }
}

#[test]
fn a_real_prometheus_understands_every_alert_and_every_panel() {
    let stand = Stand::start();
    buy(stand.edge.address(), &purchase());
    stand.edge.connect().ask(&Request::get("/any"));
    let prometheus = Prometheus::start(stand.edge.control_address());
    eventually("the edge is read", || (prometheus.series("up{job=\"spikegate\"} == 1") == 1).then_some(()));

    let expressions = expressions();
    assert!(expressions.len() > 50);
    let known: BTreeSet<_> = expressions.iter().flat_map(|(_, expression)| names(expression)).collect();
    for name in known {
        assert!(prometheus.series(name) > 0, "{name} is in an alert or a panel, and no edge has it");
    }
    for (_, expression) in &expressions {
        prometheus.series(expression);
    }
    // An edge that is well sets nothing off; one that sells to nobody any more does.
    assert_eq!(prometheus.series("ALERTS"), 0);
    let documented = documented();
    let shown: BTreeSet<_> = expressions.iter().flat_map(|(_, expression)| names(expression)).collect();
    let is_shown =
        |name: &str| ["", "_bucket", "_sum"].iter().any(|suffix| shown.contains(format!("{name}{suffix}").as_str()));
    let unseen: Vec<_> = documented.keys().filter(|name| !is_shown(name)).collect();
    assert_eq!(
        unseen,
        [
            "spikegate_ledger_attempts_total",
            "spikegate_ledger_batches_total",
            "spikegate_tickets",
            "spikegate_trace_spans_total"
        ]
    );
}
