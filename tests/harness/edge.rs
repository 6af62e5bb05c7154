//! An edge: the real binary with a configuration, ports and a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::answer::Answer;
use super::client::{Connection, Request};
use super::process::{Process, binary, free_address};
use super::redis::{KEY, Redis};
use super::{PATIENCE, eventually};

/// What an edge is going to be told.
#[derive(Clone)]
pub struct Setup {
    config: Value,
    folder: Arc<TempDir>,
}

impl Setup {
    /// With the embedded ledger in the edge's own folder.
    fn new() -> Self {
        let folder = Arc::new(TempDir::with_prefix("spikegate-edge-").unwrap());
        Self { config: json!({ "threads": 2, "sales": {}, "upstreams": {}, "routes": [] }), folder }
    }

    /// A top-level setting.
    pub fn set(mut self, name: &str, value: Value) -> Self {
        self.config[name] = value;
        self
    }

    /// The sale `ticket` of the article with these settings besides.
    pub fn ticket(mut self, settings: Value) -> Self {
        let mut sale = json!({ "path": "/buy/ticket", "key": KEY });
        sale.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        self.config["sales"]["ticket"] = sale;
        self
    }

    /// Sells from this Redis. Its answers may take long: what a busy machine delays is not lost.
    pub fn redis(self, redis: &Redis) -> Self {
        self.redis_at(&redis.url(), "2s")
    }

    pub fn redis_at(self, url: &str, response_timeout: &str) -> Self {
        let redis = json!({ "url": url, "connect_timeout": "500ms", "response_timeout": response_timeout });
        self.set("ledger", json!({ "redis": redis }))
    }

    /// A group of backends.
    pub fn upstream(mut self, name: &str, settings: Value) -> Self {
        self.config["upstreams"][name] = settings;
        self
    }

    /// Everything that is not sold goes to one group with these settings, `servers` among them.
    pub fn proxies_to(self, settings: Value) -> Self {
        self.upstream("load_rule", settings).route(json!({ "path": "/", "upstream": "load_rule" }))
    }

    pub fn route(mut self, route: Value) -> Self {
        self.config["routes"].as_array_mut().unwrap().push(route);
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the configuration (JSON is YAML) with these addresses.
    pub fn write(&self, public: SocketAddr, control: SocketAddr) -> PathBuf {
        let mut config = self.config.clone();
        config["listen"] = json!([{ "address": public }]);
        config["control"]["listen"] = json!(control);
        let path = self.folder().join("spikegate.yaml");
        std::fs::write(&path, serde_json::to_string_pretty(&config).unwrap()).unwrap();
        path
    }

    /// Starts the edge and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Edge {
        for _ in 0..5 {
            let edge = Edge::spawn(self.clone(), free_address(), free_address());
            match edge {
                Ok(edge) => return edge,
                Err(log) if log.to_lowercase().contains("in use") => {}
                Err(log) => panic!("the edge ended at its start:\n{log}"),
            }
        }
        panic!("no edge could be started");
    }
}

pub struct Edge {
    process: Process,
    public: SocketAddr,
    control: SocketAddr,
    setup: Setup,
}

impl Edge {
    pub fn setup() -> Setup {
        Setup::new()
    }

    fn spawn(setup: Setup, public: SocketAddr, control: SocketAddr) -> Result<Self, String> {
        let config = setup.write(public, control);
        let mut command = Command::new(binary("spikegate"));
        command.args(["run", "--config"]).arg(config).current_dir(setup.folder()).stdout(Stdio::null());
        let process = Process::start("spikegate", &mut command, setup.folder());
        let mut edge = Self { process, public, control, setup };
        let ready = eventually("the edge is ready", || {
            if edge.process.ended().is_some() {
                return Some(false);
            }
            (edge.try_control(&Request::get("/readyz")).ok()?.status == 200).then_some(true)
        });
        if ready { Ok(edge) } else { Err(edge.process.log()) }
    }

    /// Starts it again where it was.
    #[track_caller]
    pub fn start_again(&mut self) {
        match Self::spawn(self.setup.clone(), self.public, self.control) {
            Ok(edge) => *self = edge,
            Err(log) => panic!("the edge ended at its start:\n{log}"),
        }
    }

    /// Where clients come in.
    pub fn address(&self) -> SocketAddr {
        self.public
    }

    /// Where operators and order services come in.
    pub fn control_address(&self) -> SocketAddr {
        self.control
    }

    pub fn folder(&self) -> &Path {
        self.setup.folder()
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.public)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Answer {
        self.connect().ask(request)
    }

    /// One request to the control listener.
    #[track_caller]
    pub fn control(&self, request: &Request) -> Answer {
        self.try_control(request).unwrap_or_else(|error| panic!("control did not answer {request:?}: {error}"))
    }

    fn try_control(&self, request: &Request) -> std::io::Result<Answer> {
        let mut connection = Connection::try_to(self.control)?;
        connection.try_ask(&request.clone().header("Connection", "close"))
    }

    /// `POST /sales/ticket/OPERATION` at the control listener, which must work; gives the snapshot.
    #[track_caller]
    pub fn operate(&self, operation: &str, body: &Value) -> Value {
        let answer = self.control(&Request::post(&format!("/sales/ticket/{operation}")).json(body));
        assert_eq!(answer.status, 200, "{operation} {body}: {answer:?}");
        answer.json()
    }

    /// `spikegate sale ...` against this edge.
    pub fn sale_command(&self, arguments: &[&str]) -> Output {
        let control = self.control.to_string();
        let mut command = Command::new(binary("spikegate"));
        command.arg("sale").args(arguments).args(["--control", &control]).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// All counters at one instant, from the ledger.
    #[track_caller]
    pub fn snapshot(&self) -> Value {
        let answer = self.control(&Request::get("/sales/ticket"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let snapshot = answer.json();
        let number = |name: &str| snapshot[name].as_u64().unwrap_or_else(|| panic!("no {name}: {snapshot}"));
        assert_eq!(number("sold"), number("held") + number("paid"), "{snapshot}");
        assert_eq!(number("total"), number("sold") + number("available"), "{snapshot}");
        snapshot
    }

    #[track_caller]
    pub fn sold(&self) -> u64 {
        self.snapshot()["sold"].as_u64().unwrap()
    }

    /// What buyers are shown.
    #[track_caller]
    pub fn shown(&self) -> Value {
        let answer = self.ask(&Request::get("/sales/ticket"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.is_our_own().json()
    }

    /// The order as anyone who has its id may read it; none if there is no such order.
    #[track_caller]
    pub fn order(&self, id: &str) -> Option<Value> {
        let answer = self.ask(&Request::get(&format!("/sales/ticket/orders/{id}")));
        match answer.status {
            200 => Some(answer.is_our_own().json()),
            _ => {
                assert_eq!((answer.status, answer.problem().as_str()), (404, "order-unknown"), "{answer:?}");
                None
            }
        }
    }

    /// `POST /sales/ticket/orders/ID/STEP` at the control listener.
    #[track_caller]
    pub fn settle(&self, id: &str, step: &str, body: &Value) -> Answer {
        self.control(&Request::post(&format!("/sales/ticket/orders/{id}/{step}")).json(body))
    }

    /// The sum of a metric over all of its series whose labels contain `label`.
    #[track_caller]
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        let answer = self.control(&Request::get("/metrics"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let series: Vec<f64> = answer
            .text()
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name) && series.contains(label))
            .map(|(_, value)| value.parse().unwrap())
            .collect();
        assert!(!series.is_empty(), "no metric {name} with {label}:\n{}", answer.text());
        series.iter().sum::<f64>() as u64
    }

    /// The most memory that it has had, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it with no chance to tidy up.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits for its end; says how it ended and how long that took.
    #[track_caller]
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        (self.process.wait(PATIENCE), begun.elapsed())
    }
}
