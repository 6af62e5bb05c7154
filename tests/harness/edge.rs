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
use super::orders::{OrderService, Shelf};
use super::process::{Process, Successor, binary, free_address};
use super::redis::{KEY, Redis, Sentinels};
use super::{PATIENCE, becomes, eventually, wait_until};

/// The settings of an edge that is to be started.
#[derive(Clone)]
pub struct Setup {
    config: Value,
    /// Settings of the public listener besides its address, and other listeners.
    listener: Value,
    others: Vec<Value>,
    folder: Arc<TempDir>,
    environment: Vec<(String, String)>,
    program: PathBuf,
}

impl Setup {
    /// With the embedded ledger in the edge's own folder.
    fn new() -> Self {
        let folder = Arc::new(TempDir::with_prefix("spikegate-edge-").unwrap());
        Self {
            config: json!({ "threads": 2, "sales": {}, "upstreams": {}, "routes": [] }),
            listener: json!({}),
            others: Vec::new(),
            folder,
            environment: Vec::new(),
            program: binary("spikegate"),
        }
    }

    /// A top-level setting.
    pub fn set(mut self, name: &str, value: Value) -> Self {
        self.config[name] = value;
        self
    }

    /// Removes a top-level setting.
    pub fn without(mut self, name: &str) -> Self {
        self.config.as_object_mut().unwrap().remove(name);
        self
    }

    /// The public listener has these settings besides its address.
    pub fn listener(mut self, settings: Value) -> Self {
        self.listener = settings;
        self
    }

    /// One more public listener, at `address`.
    pub fn listener_at(mut self, address: SocketAddr, mut settings: Value) -> Self {
        settings["address"] = json!(address);
        self.others.push(settings);
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

    /// Delivers to this order service, whose secret is on this shelf.
    pub fn delivers_to(self, service: &OrderService, shelf: &Shelf) -> Self {
        let setup = self.upstream("orders", json!({ "servers": [{ "address": service.address(), "max_fails": 0 }] }));
        setup.set("delivery", json!({ "upstream": "orders", "secret_file": shelf.secret_file(), "timeout": "2s" }))
    }

    /// Everything that is not sold goes to one group with these settings, `servers` among them.
    pub fn proxies_to(self, settings: Value) -> Self {
        self.upstream("load_rule", settings).route(json!({ "path": "/", "upstream": "load_rule" }))
    }

    pub fn route(mut self, route: Value) -> Self {
        self.config["routes"].as_array_mut().unwrap().push(route);
        self
    }

    /// A route before all others.
    pub fn first_route(mut self, route: Value) -> Self {
        self.config["routes"].as_array_mut().unwrap().insert(0, route);
        self
    }

    /// Sets `delivery.timeout`.
    pub fn delivers_within(mut self, timeout: &str) -> Self {
        self.config["delivery"]["timeout"] = json!(timeout);
        self
    }

    /// With these variables in its environment.
    pub fn environment(mut self, variables: &[(String, String)]) -> Self {
        self.environment.extend_from_slice(variables);
        self
    }

    /// From a copy of the program in the edge's own folder, that may be replaced.
    pub fn own_program(mut self) -> Self {
        self.program = self.folder().join("spikegate");
        std::fs::copy(binary("spikegate"), &self.program).unwrap();
        self
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the configuration (JSON is YAML) with these addresses.
    pub fn write(&self, public: SocketAddr, control: SocketAddr) -> PathBuf {
        let mut config = self.config.clone();
        let mut listener = self.listener.clone();
        listener["address"] = json!(public);
        config["listen"] = [vec![listener], self.others.clone()].concat().into();
        config["control"]["listen"] = json!(control);
        let path = self.folder().join("spikegate.yaml");
        std::fs::write(&path, serde_json::to_string_pretty(&config).unwrap()).unwrap();
        path
    }

    /// Sells from the primary that these Sentinels name.
    pub fn sentinels(self, sentinels: &Sentinels, more: Value) -> Self {
        let mut redis = json!({
            "sentinels": sentinels.addresses(), "master": "mymaster",
            "connect_timeout": "500ms", "response_timeout": "2s",
        });
        redis.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.set("ledger", json!({ "redis": redis }))
    }

    /// A setting of the Redis that it sells from.
    pub fn with_redis(mut self, name: &str, value: Value) -> Self {
        self.config["ledger"]["redis"][name] = value;
        self
    }

    /// Starts the edge and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Edge {
        self.start_until("ready")
    }

    /// Starts the edge and waits until the answer of `/readyz` contains this text.
    #[track_caller]
    pub fn start_until(self, says: &str) -> Edge {
        for _ in 0..5 {
            let edge = Edge::spawn(self.clone(), free_address(), free_address(), says);
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

    fn spawn(setup: Setup, public: SocketAddr, control: SocketAddr, says: &str) -> Result<Self, String> {
        let process = Self::run(&setup, public, control);
        let mut edge = Self { process, public, control, setup };
        let ready = eventually("the edge is ready", || {
            if edge.has_ended() {
                return Some(false);
            }
            edge.try_control(&Request::get("/readyz")).ok()?.text().contains(says).then_some(true)
        });
        if ready { Ok(edge) } else { Err(edge.process.log()) }
    }

    fn run(setup: &Setup, public: SocketAddr, control: SocketAddr) -> Process {
        let config = setup.write(public, control);
        let mut command = Command::new(&setup.program);
        command.args(["run", "--config"]).arg(config).current_dir(setup.folder()).stdout(Stdio::null());
        command.envs(setup.environment.iter().cloned());
        Process::start("spikegate", &mut command, setup.folder())
    }

    /// Starts it again at the same addresses, and does not wait until it is ready.
    pub fn run_again(&mut self) {
        self.process = Self::run(&self.setup, self.public, self.control);
    }

    /// Whether its process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Whether `/readyz` is 200.
    pub fn is_ready(&self) -> bool {
        let ask =
            || Connection::try_to(self.control)?.patience(Duration::from_secs(2))?.try_ask(&Request::get("/readyz"));
        ask().is_ok_and(|answer| answer.status == 200)
    }

    /// Starts it again at the same addresses.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.start_again_until("ready");
    }

    /// Starts it again at the same addresses, and waits until the answer of `/readyz` contains this text.
    #[track_caller]
    pub fn start_again_until(&mut self, says: &str) {
        match Self::spawn(self.setup.clone(), self.public, self.control, says) {
            Ok(edge) => *self = edge,
            Err(log) => panic!("the edge ended at its start:\n{log}"),
        }
    }

    /// The address of the public listener.
    pub fn address(&self) -> SocketAddr {
        self.public
    }

    /// The address of the control listener.
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

    /// Writes its configuration again. The edge uses it after a reload.
    pub fn rewrite(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
        self.setup.write(self.public, self.control);
    }

    /// The same, and reloads, which must work. Returns the answer.
    #[track_caller]
    pub fn reload(&mut self, change: impl FnOnce(Setup) -> Setup) -> Value {
        self.rewrite(change);
        let answer = self.control(&Request::post("/reload"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Has another process follow this one, which must work.
    #[track_caller]
    pub fn upgrade(&self) -> Successor {
        let answer = self.control(&Request::post("/upgrade"));
        let id = answer.json()["process"].as_u64();
        assert_eq!(answer.status, 200, "{answer:?}\n{}", self.log());
        Successor::new(id.and_then(|id| id.try_into().ok()).unwrap_or_else(|| panic!("no process: {answer:?}")))
    }

    /// The program that it was started from.
    pub fn program(&self) -> &Path {
        self.setup.program()
    }

    /// `spikegate ...` against this edge.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let control = self.control.to_string();
        let mut command = Command::new(binary("spikegate"));
        command.args(arguments).args(["--control", &control]).stdin(Stdio::null());
        command.output().unwrap()
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

    /// `GET /sales/ticket`: what the edge shows to buyers. At most one sync and one round trip old.
    #[track_caller]
    pub fn shown(&self) -> Value {
        let answer = self.ask(&Request::get("/sales/ticket"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.is_our_own().json()
    }

    /// `GET /sales/ticket/orders/ID`; none if there is no such order.
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
        self.status_kib("VmHWM:")
    }

    /// The memory that it has now, in KiB.
    pub fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits until this metric, summed as in [`Edge::metric`], has the expected value. Needed for everything that is
    /// counted after the answer: requests, proxied requests, lines of the access log, deliveries, spans.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, label: &str, expected: u64) {
        becomes(&format!("{name} {label}"), expected, || self.metric(name, label));
    }

    /// What the edge has written to standard error.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until the log has a line with this text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log has {text:?}"), || self.log(), |log| log.contains(text));
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits at most [`PATIENCE`] for its end. Returns its exit status and how long that took.
    #[track_caller]
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        (self.process.wait(PATIENCE), begun.elapsed())
    }
}
