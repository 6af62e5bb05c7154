//! `make run`: the ports that it uses, what it prints, and where `/` leads. scripts/run does all of it; the Makefile
//! only builds first.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::process::{Process, Successor, binary, free_address};
use crate::harness::{Connection, PATIENCE, Request, ab, eventually};

const CONFIG: &str = include_str!("../../conf/spikegate.yaml");

/// The ports of one demo.
struct Ports {
    edge: u16,
    control: u16,
    first_backend: u16,
}

impl Ports {
    fn free() -> Self {
        let next = || free_address().port();
        let mut first_backend = next();
        let mut last = first_backend;
        while last != first_backend + 3 {
            let port = next();
            if port != last + 1 {
                first_backend = port;
            }
            last = port;
        }
        Self { edge: next(), control: next(), first_backend }
    }

    fn backends(&self) -> [SocketAddr; 4] {
        [0, 1, 2, 3].map(|index| loopback(self.first_backend + index))
    }

    fn backends_option(&self) -> String {
        format!("{}-{}", self.first_backend, self.first_backend + 3)
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// scripts/run in a folder of its own that has the shipped configuration. Dropping it stops the edge and the backends.
struct Demo {
    folder: TempDir,
    script: Process,
}

impl Demo {
    fn start(ports: &Ports, more: &[&str]) -> Self {
        let folder = TempDir::with_prefix("spikegate-demo-").unwrap();
        std::fs::create_dir(folder.path().join("conf")).unwrap();
        std::fs::write(folder.path().join("conf/spikegate.yaml"), CONFIG).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("bash");
        command.arg(root.join("scripts/run")).args(["--port", &ports.edge.to_string()]);
        command.args(["--backends", &ports.backends_option()]);
        command.args(["--control", &loopback(ports.control).to_string()]).args(more);
        command.arg("--binaries").arg(binary("spikegate").parent().unwrap());
        command.stdout(File::create(folder.path().join("stdout")).unwrap()).current_dir(folder.path());
        let script = Process::start("run", &mut command, folder.path());
        Self { folder, script }
    }

    fn stdout(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stdout")).unwrap()
    }

    /// Waits for the banner, and returns it.
    #[track_caller]
    fn banner(&mut self) -> String {
        eventually("the banner is printed", || {
            assert_eq!(self.script.ended(), None, "{}", self.script.log());
            let text = self.stdout();
            text.contains("Paid orders stay").then_some(text)
        })
    }

    /// Waits for the end of a demo that cannot start, and returns what it wrote to standard error.
    #[track_caller]
    fn refusal(&mut self) -> String {
        let status = self.script.wait(PATIENCE);
        assert_eq!(status.code(), Some(1), "{}", self.script.log());
        assert_eq!(self.stdout(), "", "no banner");
        self.script.log()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.script.ended().is_none() {
            self.script.signal("TERM");
            self.script.wait(PATIENCE);
        }
    }
}

#[test]
fn a_taken_port_is_named_with_the_variable_that_changes_it() {
    for variable in ["PORT", "CONTROL", "BACKENDS"] {
        let ports = Ports::free();
        let port = match variable {
            "PORT" => ports.edge,
            "CONTROL" => ports.control,
            _ => ports.first_backend + 2,
        };
        let _other = TcpListener::bind(loopback(port)).unwrap();
        let stderr = Demo::start(&ports, &[]).refusal();
        assert!(stderr.contains(&format!("Port {port} is taken")), "{stderr}");
        assert!(stderr.contains(&format!("make run {variable}=")), "{stderr}");
    }
}

#[test]
fn a_port_that_is_none_or_is_given_twice_is_refused() {
    let run = |options: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/run");
        let output = Command::new("bash").arg(script).args(options).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (options, named) in [
        (["--port", "70000"], "PORT"),
        (["--backends", "3001-3003"], "BACKENDS"),
        (["--backends", "3001"], "BACKENDS"),
        (["--control", "9180"], "CONTROL"),
        (["--port", "3002"], "given twice"),
        (["--control", "127.0.0.1:3004"], "given twice"),
        (["--prot", "8080"], "--prot"),
    ] {
        let (code, stderr) = run(&options);
        assert_eq!(code, Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(named), "{options:?}: {stderr}");
    }
}

#[test]
fn a_backend_that_ends_stops_the_demo() {
    let ports = Ports::free();
    let mut demo = Demo::start(&ports, &[]);
    demo.banner();
    let script = demo.script.id();
    let children = std::fs::read_to_string(format!("/proc/{script}/task/{script}/children")).unwrap();
    let listens_there = |child: &&str| {
        let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        command.contains(&format!("--listen\0{}\0", ports.backends()[3]))
    };
    let backend = children.split_whitespace().find(listens_there).unwrap_or_else(|| panic!("{children}"));
    drop(Successor::new(backend.parse().unwrap()));
    let status = demo.script.wait(PATIENCE);
    assert_eq!(status.code(), Some(1));
    let log = demo.script.log();
    assert!(log.contains(&format!("backend on port {}", ports.backends()[3].port())), "{log}");
    assert!(Connection::try_to(loopback(ports.edge)).is_err(), "the edge is stopped, too");
}

#[test]
fn the_demo_runs_on_other_ports_and_does_what_its_banner_says() {
    let ports = Ports::free();
    let mut demo = Demo::start(&ports, &[]);
    let banner = demo.banner();
    let edge = loopback(ports.edge);
    let ask = |request: &Request| Connection::to(edge).ask(request);

    // What the banner offers works as printed.
    for command in ["ab -l -n 10000 -c 100 ", "ab -l -n 1000 -c 100 "] {
        assert!(banner.contains(&format!("{command}http://127.0.0.1:{}/", ports.edge)), "{banner}");
    }
    assert!(banner.contains(&format!("SPIKEGATE_CONTROL={}", loopback(ports.control))), "{banner}");
    let report = ab(&["-l", "-n", "1000", "-c", "100"], edge, "/");
    assert_eq!((report.complete, report.failed, report.non_2xx), (1000, 0, 0));
    let shares = ports.backends().map(|backend| {
        let stats: Value = Connection::to(backend).ask(&Request::get("/stats")).json();
        stats["requests"].as_u64().unwrap()
    });
    assert_eq!(shares, [100, 200, 300, 400]);

    // A browser finds the shop.
    let root = ask(&Request::get("/").header("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"));
    assert_eq!((root.status, root.header("location")), (307, Some("/shop")));
    assert!(root.header("x-backend").is_some());
    let sales = ask(&Request::get("/shop"));
    assert_eq!((sales.status, sales.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for sale in ["ticket", "festival"] {
        assert!(sales.text().contains(&format!("<a href=\"/shop/{sale}\">")), "{}", sales.text());
        assert_eq!(ask(&Request::get(&format!("/shop/{sale}"))).status, 200);
    }

    // The order service reaches the control listener where it is now, before and after an upgrade.
    let pay = || {
        let order = ask(&Request::post("/buy/festival").header("X-User-Id", "ann"));
        assert_eq!(order.status, 201, "{order:?}");
        let path = format!("/orders/{}/pay", order.json()["order_id"].as_str().unwrap());
        eventually("the order is paid", || (ask(&Request::post(&path)).json()["state"] == "PAID").then_some(()));
    };
    pay();
    let control = loopback(ports.control).to_string();
    let upgraded = Command::new(binary("spikegate")).args(["upgrade", "--control", &control]).output().unwrap();
    assert!(upgraded.status.success(), "{upgraded:?}");
    eventually("the older edge has ended", || demo.script.log().contains("] stopped").then_some(()));
    pay();

    // The reload reads the configuration that the edge runs with.
    let reloaded = Command::new(binary("spikegate")).args(["reload", "--control", &control]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");

    demo.script.signal("TERM");
    assert!(demo.script.wait(PATIENCE).success(), "{}", demo.script.log());
    for address in ports.backends().iter().chain([&edge]) {
        assert!(Connection::try_to(*address).is_err(), "{address} still listens");
    }
}
