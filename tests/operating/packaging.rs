//! Installation and health checks: `make install`, units, manual pages, completions.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::harness::process::{Process, binary, free_address};
use crate::harness::{Edge, OrderService, Redis, eventually, files_below};

fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command printed that must not fail.
#[track_caller]
fn printed(output: Output) -> String {
    assert!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Whether the machine has a command.
fn has(command: &str) -> bool {
    run("sh", &["-c", &format!("command -v {command}")]).status.success()
}

/// `make install` or `make uninstall` below `destdir`, of the binaries under test.
fn make(target: &str, destdir: &Path) {
    let binaries = binary("spikegate").parent().unwrap().to_owned();
    let mut command = Command::new("make");
    command.args(["--directory", env!("CARGO_MANIFEST_DIR"), target, "PREFIX=/usr"]);
    command.arg(format!("DESTDIR={}", destdir.display())).arg(format!("BINARIES={}", binaries.display()));
    printed(command.stdin(Stdio::null()).output().unwrap());
}

#[test]
fn what_is_installed_works_and_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let place = |path: &str| folder.path().join(path);
    let read = |path: &str| std::fs::read_to_string(place(path)).unwrap();
    make("install", folder.path());

    let settings = place("etc/spikegate/spikegate.yaml");
    assert!(
        printed(run(place("usr/bin/spikegate"), &["check", "--config", settings.to_str().unwrap()])).contains("ok")
    );
    assert!(printed(run(place("usr/bin/spikegate-orders"), &["--version"])).starts_with("spikegate-orders "));

    // The unit starts what was installed, where it was installed.
    let unit = read("usr/lib/systemd/system/spikegate.service");
    assert!(unit.contains("ExecStart=/usr/bin/spikegate run --config /etc/spikegate/spikegate.yaml"), "{unit}");
    if has("systemd-analyze") {
        // It looks for the programs, which are below the folder only; any other will do.
        let units = ["spikegate.service", "spikegate-orders@3001.service"].map(place);
        for (unit, installed) in units.iter().zip(["spikegate.service", "spikegate-orders@.service"]) {
            let words = read(&format!("usr/lib/systemd/system/{installed}"));
            let words =
                words.replace("/usr/bin/spikegate-orders", "/bin/true").replace("/usr/bin/spikegate", "/bin/true");
            std::fs::write(unit, words).unwrap();
            let unit = unit.to_str().unwrap();
            let verified = run("systemd-analyze", &["verify", "--man=no", unit]);
            assert!(verified.status.success() && verified.stderr.is_empty(), "{}", text(&verified.stderr));
            // The exposure is told in tenths: 20 is 2.0, of 10.0. Changing this needs a reason.
            printed(run("systemd-analyze", &["security", "--offline=true", "--threshold=20", unit]));
            std::fs::remove_file(unit).unwrap();
        }
    }

    let rotate = read("usr/share/spikegate/spikegate.logrotate");
    assert!(rotate.contains("--signal=USR1 spikegate.service"), "{rotate}");
    if has("logrotate") {
        printed(run("logrotate", &["--debug", place("usr/share/spikegate/spikegate.logrotate").to_str().unwrap()]));
    }

    // Settings that somebody has changed are left alone, and the new ones are laid beside them.
    std::fs::write(&settings, "mine").unwrap();
    make("install", folder.path());
    assert_eq!(read("etc/spikegate/spikegate.yaml"), "mine");
    let (schema, shipped) = read("etc/spikegate/spikegate.yaml.new")
        .split_once('\n')
        .map(|(first, rest)| (first.to_owned(), rest.to_owned()))
        .unwrap();
    assert_eq!(shipped, include_str!("../../conf/spikegate.yaml").split_once('\n').unwrap().1);

    // Editors find the schema where it was installed, beside the reference.
    assert_eq!(schema, "# yaml-language-server: $schema=/usr/share/doc/spikegate/spikegate.schema.json");
    assert_eq!(
        read("usr/share/doc/spikegate/spikegate.schema.json"),
        include_str!("../../docs/reference/spikegate.schema.json")
    );
    assert_eq!(read("usr/share/doc/spikegate/configuration.md"), include_str!("../../docs/reference/configuration.md"));

    make("uninstall", folder.path());
    let mut left = files_below(folder.path());
    left.sort();
    assert_eq!(left, [settings, place("etc/spikegate/spikegate.yaml.new")]);
}

#[test]
fn a_command_ends_quietly_when_nobody_reads_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let (key, config) = (folder.path().join("key"), folder.path().join("spikegate.yaml"));
    std::fs::write(&key, "a-key-of-some-length").unwrap();
    std::fs::write(&config, "sales: { t: { total: 1 } }").unwrap();
    let edge = Edge::setup().ticket(json!({ "total": 1 })).start();
    let control = edge.control_address().to_string();
    let (key, config) = (key.to_str().unwrap(), config.to_str().unwrap());
    for arguments in [
        &["sale", "list", "--control", &control][..],
        &["reload", "--control", &control],
        &["health", "--control", &control],
        &["check", "--config", config],
        &["admission", "sign", "--sale", "t", "--key-file", key],
        &["completions", "bash"],
        &["help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(binary("spikegate")).args(arguments).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    printed(run(binary("spikegate"), &["man", folder.path().to_str().unwrap()]));
    let page = |name: &str| std::fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
    assert!(page("spikegate-sale-add-stock").contains("a negative number takes unsold tickets away"));
    for (command, words) in [("run", "SIGTERM"), ("check", "wrong with it"), ("health", "alive"), ("sale", "sales")] {
        assert!(page("spikegate").contains(command), "{command}");
        assert!(page(&format!("spikegate-{command}")).contains(words), "{command}");
    }
    assert!(!page("spikegate").contains("completions"), "it is for those who install, not for users");

    let bash = printed(run(binary("spikegate"), &["completions", "bash"]));
    // What bash itself offers after `spikegate sale add-`.
    let ask =
        r#"COMP_WORDS=(spikegate sale add-); COMP_CWORD=2; _spikegate spikegate add- sale; echo "${COMPREPLY[@]}""#;
    assert_eq!(printed(run("bash", &["-c", &format!("{bash}\n{ask}")])).trim(), "add-stock");
    for shell in ["zsh", "fish"] {
        let script = printed(run(binary("spikegate"), &["completions", shell]));
        assert!(script.contains("add-stock") && script.contains("--redis") || script.contains("-l redis"), "{shell}");
    }
}

#[test]
fn an_edge_takes_as_many_files_as_it_may_have() {
    let setup = Edge::setup().ticket(json!({ "total": 5 }));
    let config = setup.write(free_address(), free_address());
    let mut command = Command::new("bash");
    command.args(["-c", r#"ulimit -Sn 200 && exec "$0" run --config "$1""#]).arg(binary("spikegate")).arg(config);
    let edge = Process::start("spikegate", command.current_dir(setup.folder()), setup.folder());
    eventually("it has raised its limit", || {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", edge.id())).unwrap();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut numbers = files.split_whitespace();
        let (soft, hard) = (numbers.next().unwrap(), numbers.next().unwrap());
        (soft == hard && soft != "200").then_some(())
    });
}

#[test]
fn health_is_asked_of_the_control_listener() {
    let mut redis = Redis::start();
    let edge = Edge::setup().redis(&redis).ticket(json!({ "total": 5 })).start();
    let control = edge.control_address().to_string();
    let health =
        |arguments: &[&str]| run(binary("spikegate"), &[&["health", "--control", &control], arguments].concat());
    assert_eq!(printed(health(&[])), "ok\n");
    assert_eq!(printed(health(&["--ready"])), "ready\n");

    // An edge without its ledger is alive, and not ready.
    redis.kill9();
    eventually("it is not ready", || {
        let ready = health(&["--ready"]);
        (ready.status.code() == Some(1))
            .then(|| assert!(text(&ready.stderr).contains("503: no recent data from the ledger"), "{ready:?}"))
    });
    assert_eq!(printed(health(&[])), "ok\n");

    drop(edge);
    let gone = health(&[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains(&control), "{gone:?}");
}

#[test]
fn health_is_asked_of_the_order_service() {
    let service = OrderService::start("one");
    let port = service.address().port();
    // Whoever listens on all addresses is asked at loopback.
    for address in [service.address().to_string(), format!("0.0.0.0:{port}")] {
        printed(run(binary("spikegate-orders"), &["--health", "--listen", &address]));
    }
    let nobody = free_address().to_string();
    let gone = run(binary("spikegate-orders"), &["--health", "--listen", &nobody]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains(&nobody), "{gone:?}");
}

#[test]
fn operators_may_keep_the_token_in_a_file() {
    let token = "a token of 16 or more".replace(' ', "-");
    let control = free_address();
    let edge = Edge::setup().set("control", json!({ "token": token })).ticket(json!({ "total": 5 })).start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let file = file.to_str().unwrap();
    let listed = edge.sale_command(&["list", "--token-file", file]);
    assert!(printed(listed).contains("\"total\": 5"));
    assert_eq!(edge.sale_command(&["list"]).status.code(), Some(1));
    let missing = run(
        binary("spikegate"),
        &["sale", "list", "--control", &control.to_string(), "--token-file", "/nowhere/token"],
    );
    assert!(text(&missing.stderr).contains("--token-file /nowhere/token: "), "{missing:?}");
}

/// Packages the binaries under test, and installs, tries and removes the package. dpkg installs into another root for
/// root only.
#[test]
fn the_debian_package_sells_a_ticket() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let folder = tempfile::tempdir().unwrap();
    let mut dist = Command::new(scripts.join("dist"));
    dist.arg("--binaries").arg(binary("spikegate").parent().unwrap()).arg("--output").arg(folder.path());
    // Compression of unoptimized binaries would take a minute.
    let packages = printed(dist.env("DPKG_DEB_COMPRESSOR_TYPE", "none").stdin(Stdio::null()).output().unwrap());
    let package = packages.lines().find(|line| line.ends_with(".deb")).unwrap();
    if printed(run("id", &["-u"])).trim() == "0" {
        let tried = printed(run(scripts.join("dist-test"), &[package]));
        assert!(tried.contains("sold a ticket") && tried.contains("keeps the ledger"), "{tried}");
    }
}
