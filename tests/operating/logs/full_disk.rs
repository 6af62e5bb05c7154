//! Log rotation, full disks, and the last lines before an edge ends.

use std::io::Read;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{in_json, lines, logged, read};
use crate::harness::purchase::purchase;
use crate::harness::{Edge, Request, becomes, buy, eventually};

#[test]
fn logs_are_opened_again_and_no_line_is_lost_under_load() {
    let (setup, _backend) = logged(in_json(&["path", "query"]));
    let edge = setup
        .ticket(json!({ "total": 1, "seed_dialect": true, "stat_log": "stat.log" }))
        .set("error_log", json!({ "path": "error.log" }))
        .start();
    let path = |name: &str| edge.folder().join(name);
    let end = AtomicBool::new(false);
    let asked: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (edge, end) = (&edge, &end);
                scope.spawn(move || {
                    let mut connection = edge.connect();
                    let mut asked = 0;
                    while !end.load(Ordering::Relaxed) {
                        connection.ask(&Request::get(&format!("/buy/ticket?c={client}&n={asked}")));
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for turn in 0..5 {
            std::thread::sleep(Duration::from_millis(300));
            for name in ["access.log", "stat.log", "error.log"] {
                std::fs::rename(path(name), path(&format!("{turn}.{name}"))).unwrap();
            }
            edge.signal("USR1");
            eventually("all are there again", || {
                ["access.log", "stat.log", "error.log"].iter().all(|name| path(name).exists()).then_some(())
            });
        }
        end.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let all = |name: &str| {
        let names = (0..5).map(|turn| format!("{turn}.{name}")).chain([name.to_owned()]);
        names.map(|name| read(&path(&name))).collect::<String>()
    };
    let all_of = |name: &str| all(name).lines().map(str::to_owned).collect::<Vec<_>>();
    eventually("all are written", || (all_of("access.log").len() as u64 == asked).then_some(()));
    eventually("all purchases are", || (all_of("stat.log").len() as u64 == asked).then_some(()));
    let mut next = [0; 3];
    for line in all_of("access.log") {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let (client, number) = line["query"].as_str().unwrap()[2..].split_once("&n=").unwrap();
        let (client, number): (usize, u64) = (client.parse().unwrap(), number.parse().unwrap());
        // A client's connection may go from one thread to the other, so only that each is there once can be said.
        next[client] += number + 1;
    }
    let sums: u64 = next.iter().sum();
    assert!(sums > 0);
    becomes("lines of the error log", 5, || all("error.log").matches("logs reopened").count());
    assert_eq!(edge.metric("spikegate_access_log_dropped_total", ""), 0);
    assert!(path("access.log").metadata().is_ok_and(|about| {
        use std::os::unix::fs::PermissionsExt;
        about.permissions().mode() & 0o007 == 0
    }));
}

#[test]
fn a_full_disk_is_told_once_and_harms_nobody() {
    let (setup, _backend) = logged(json!({ "path": "/dev/full", "format": "combined" }));
    let edge = setup.start();
    assert!(buy(edge.address(), &purchase()).is_order());
    let log = eventually("it is told", || Some(edge.log()).filter(|log| log.contains("access_log /dev/full")));
    assert!(log.contains("No space left on device"), "{log}");
    let mut connection = edge.connect();
    let begun = Instant::now();
    // Ten megabytes and more: what may wait is eight.
    let agent = "a".repeat(20_000);
    while edge.metric("spikegate_access_log_dropped_total", "") == 0 {
        for _ in 0..100 {
            assert_eq!(connection.ask(&purchase().header("User-Agent", &agent)).status, 409);
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(edge.metric("spikegate_access_log_written_total", ""), 0);
    assert_eq!(edge.log().matches("access_log /dev/full").count(), 1, "{}", edge.log());
    let mut edge = edge;
    edge.signal("TERM");
    assert!(edge.wait().0.success());
}

#[test]
fn what_waited_is_written_when_there_is_room_again() {
    let (setup, _backend) = logged(json!({ "path": "pipe", "format": "combined" }));
    let pipe = setup.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opened for both, so that nobody waits for the other; it has room for 64 KiB.
    let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let edge = setup.start();
    let mut connection = edge.connect();
    assert!(buy(edge.address(), &purchase()).is_order());
    let agent = "a".repeat(9_000);
    for n in 0..100 {
        assert_eq!(connection.ask(&purchase().header("User-Agent", &format!("{n}-{agent}"))).status, 409);
    }
    eventually("the pipe is full", || (edge.metric("spikegate_access_log_written_total", "") > 0).then_some(()));
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while text.iter().filter(|byte| **byte == b'\n').count() < 101 {
        let read = reader.read(&mut piece).unwrap();
        text.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8(text).unwrap();
    let agents =
        text.lines().filter_map(|line| line.rsplit('"').nth(1)?.split_once('-')).map(|(n, rest)| (n, rest.len()));
    let mut numbers: Vec<u32> =
        agents.filter(|(_, length)| *length == 9_000).map(|(n, _)| n.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..100), "every line is there once, and whole");
    assert_eq!(edge.metric("spikegate_access_log_dropped_total", ""), 0);
}

#[test]
fn the_last_lines_are_there_when_an_edge_ends() {
    let (setup, _backend) = logged(json!({ "format": "combined" }));
    let mut edge = setup.set("error_log", json!({ "path": "error.log", "level": "info" })).start();
    for _ in 0..20 {
        edge.ask(&purchase());
    }
    edge.signal("TERM");
    let (status, _) = edge.wait();
    assert!(status.success(), "{status}");
    assert_eq!(lines(&edge, 20).len(), 20);
    let errors = read(&edge.folder().join("error.log"));
    assert!(errors.contains("ready: listening") && errors.trim_end().ends_with("stopped"), "{errors}");
}

#[test]
fn a_log_that_cannot_be_opened_is_told_at_the_start() {
    for (setting, settings) in [
        ("access_log", json!({ "path": "/nowhere/access.log" })),
        ("error_log", json!({ "path": "/nowhere/error.log" })),
    ] {
        let setup = Edge::setup().ticket(json!({ "total": 1 })).set(setting, settings);
        let free = crate::harness::process::free_address;
        let config = setup.write(free(), free());
        let output = Command::new(crate::harness::process::binary("spikegate"))
            .args(["run", "--config"])
            .arg(config)
            .current_dir(setup.folder())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{setting}.path: /nowhere/")) && said.contains("No such file"), "{said}");
    }
}
