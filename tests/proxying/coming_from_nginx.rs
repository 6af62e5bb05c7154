//! The examples of docs/coming-from-nginx.md: a real Nginx with its nginx.conf and an edge with its YAML, in front of
//! the same backends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::harness::backend::After;
use crate::harness::process::{Process, binary, free_address};
use crate::harness::{Authority, Backend, Connection, Nginx, Request, ab, eventually, nginx};

const PAGE: &str = include_str!("../../docs/coming-from-nginx.md");

/// One of the page's blocks of a language, counted from 0.
fn block(language: &str, index: usize) -> &'static str {
    let begin = format!("```{language}\n");
    let block = PAGE.split(&begin).nth(index + 1).unwrap();
    block.split("```").next().unwrap()
}

/// A request as a backend saw it.
struct Seen {
    backend: usize,
    line: String,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
}

/// The page's four backends, at ports of their own.
struct Backends {
    backends: Vec<Backend>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Backends {
    fn start() -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let backend = |backend| {
            let seen = Arc::clone(&seen);
            Backend::start(move |request| {
                let headers = request.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
                let (line, headers) = (request.line.clone(), headers.collect());
                seen.lock().unwrap().push(Seen { backend, line, headers });
                request.send(b"HTTP/1.1 200 OK\r\nServer: backend\r\nContent-Length: 2\r\n\r\nok");
                After::KeepOpen
            })
        };
        Self { backends: (0..4).map(backend).collect(), seen }
    }

    /// The text with these backends in the place of the page's.
    fn in_place(&self, text: &str) -> String {
        self.backends.iter().zip(3001..).fold(text.to_owned(), |text, (backend, port)| {
            let written = format!("127.0.0.1:{port}");
            assert!(text.contains(&written), "no backend at {written} in:\n{text}");
            text.replace(&written, &backend.address().to_string())
        })
    }

    fn nginx(&self) -> Nginx {
        let configuration = self.in_place(block("nginx", 0));
        Nginx::start(|address| put(&configuration, "listen 80;", &format!("listen {address};")))
    }

    /// What came since this was last asked.
    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// How many requests each got since this was last asked.
    fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        self.seen().iter().for_each(|seen| counts[seen.backend] += 1);
        counts
    }
}

#[track_caller]
fn put(text: &str, written: &str, instead: &str) -> String {
    assert!(text.contains(written), "no {written} in:\n{text}");
    text.replace(written, instead)
}

/// An edge with the page's YAML.
struct Edge {
    _process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Edge {
    fn start(backends: &Backends) -> Self {
        for _ in 0..5 {
            let folder = TempDir::with_prefix("spikegate-edge-").unwrap();
            let (address, control) = (free_address(), free_address());
            let settings = put(&backends.in_place(block("yaml", 0)), "0.0.0.0:80", &address.to_string());
            let file = folder.path().join("spikegate.yaml");
            std::fs::write(&file, settings).unwrap();
            let mut process = run(&file, control, folder.path());
            let is_ready = eventually("the edge is ready", || match process.ended() {
                Some(_) => Some(false),
                None => {
                    let answer = Connection::try_to(control).ok()?.try_ask(&Request::get("/readyz")).ok()?;
                    (answer.status == 200).then_some(true)
                }
            });
            if is_ready {
                return Self { _process: process, address, _folder: folder };
            }
            let log = process.log();
            assert!(log.to_lowercase().contains("in use"), "the edge ended at its start:\n{log}");
        }
        panic!("no edge could be started");
    }
}

fn run(file: &Path, control: SocketAddr, folder: &Path) -> Process {
    let mut command = Command::new(binary("spikegate"));
    command.args(["run", "--config"]).arg(file).args(["--control", &control.to_string()]);
    Process::start("spikegate", command.current_dir(folder).stdout(Stdio::null()), folder)
}

/// What each of these requests became, one after the other.
fn one_after_the_other(address: SocketAddr, backends: &Backends, requests: &[Request]) -> Vec<Seen> {
    let mut connection = Connection::to(address);
    for request in requests {
        let answer = connection.ask(request);
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
    backends.seen()
}

#[test]
fn the_same_backends_get_the_same_requests_in_the_same_order() {
    let backends = Backends::start();
    let (nginx, edge) = (backends.nginx(), Edge::start(&backends));
    let of_host = |host: &str| Request::get("/order/list?page=2").without("Host").header("Host", host);
    // Names of the page, and one for which the only server is the default.
    let hosts = ["load_balance.com", "www.load_balance.com", "elsewhere.example"];
    let requests: Vec<Request> = hosts.iter().cycle().take(40).map(|host| of_host(host)).collect();

    let by_nginx = one_after_the_other(nginx.address(), &backends, &requests);
    let by_edge = one_after_the_other(edge.address, &backends, &requests);

    let order = |seen: &[Seen]| seen.iter().map(|seen| seen.backend).collect::<Vec<_>>();
    assert_eq!(order(&by_nginx)[..10], [3, 2, 1, 3, 0, 2, 3, 1, 2, 3]);
    assert_eq!(order(&by_edge), order(&by_nginx));
}

#[test]
fn of_a_thousand_requests_each_backend_gets_the_same_share() {
    let backends = Backends::start();
    let (nginx, edge) = (backends.nginx(), Edge::start(&backends));
    for address in [nginx.address(), edge.address] {
        let report = ab(&["-n", "1000", "-c", "100"], address, "/");
        assert_eq!((report.complete, report.failed, report.non_2xx), (1000, 0, 0));
        assert_eq!(backends.counts(), [100, 200, 300, 400]);
    }
}

#[test]
fn backends_are_told_what_the_page_says() {
    let backends = Backends::start();
    let (nginx, edge) = (backends.nginx(), Edge::start(&backends));
    let claims = [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
        ("x-forwarded-host", "claimed.example"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=192.0.2.1"),
    ];
    let request = Request::get("/a?b=c").without("Host").header("Host", "load_balance.com").header("X-Own", "kept");
    let request = claims.iter().fold(request, |request, (name, value)| request.header(name, value));
    let seen_by = |address| one_after_the_other(address, &backends, std::slice::from_ref(&request)).remove(0);

    let by_nginx = seen_by(nginx.address());
    assert_eq!(by_nginx.line, "GET /a?b=c HTTP/1.0");
    let expected = [("host", "load_rule"), ("connection", "close"), ("x-own", "kept")].into_iter().chain(claims);
    assert_eq!(by_nginx.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());

    let by_edge = seen_by(edge.address);
    assert_eq!(by_edge.line, "GET /a?b=c HTTP/1.1");
    let expected = [
        ("host", "load_rule"),
        ("x-own", "kept"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-host", "load_balance.com"),
        ("x-forwarded-proto", "http"),
    ];
    assert_eq!(by_edge.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());

    // On the way back, the one puts its own name, and the other leaves the backend's.
    let server = |address| Connection::to(address).ask(&request).header("server").unwrap().to_owned();
    assert!(server(nginx.address()).starts_with("nginx"));
    assert_eq!(server(edge.address), "backend");
}

#[test]
fn nginx_takes_the_site_of_the_page() {
    let authority = Authority::new();
    authority.certificate("tickets", &["www.example.com"]);
    let folder = authority.file().parent().unwrap().display().to_string();
    let (plain, secure) = (free_address().to_string(), free_address().to_string());
    let configuration = put(block("nginx", 1), "/etc/spikegate", &folder);
    let configuration = put(&configuration, "listen 80;", &format!("listen {plain};"));
    let checked = nginx::check(&put(&configuration, "listen 443", &format!("listen {secure}")));
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
