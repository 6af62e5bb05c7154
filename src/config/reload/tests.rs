use super::*;

const FILE: &str = "
listen: [{ address: 127.0.0.1:8080 }, { address: 127.0.0.1:8081 }]
threads: 2
control: { listen: 127.0.0.1:9180 }
upstreams:
  a: { servers: [{ address: 127.0.0.1:3001 }] }
  b: { servers: [{ address: 127.0.0.1:3002 }] }
routes: [{ path: /a, upstream: a }, { path: /, upstream: b }]
sales: { ticket: { total: 10, hold: 5m, local_stock: 150 } }
delivery: { upstream: b, secret_file: no-such-file }
";

fn config(text: &str) -> Config {
    Config::from_yaml(text).expect("settings that are in order")
}

/// What becomes of `FILE` with these texts in the place of others.
fn planned(changes: &[(&str, &str)]) -> Result<Plan, Errors> {
    let text = changes.iter().fold(FILE.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replace(old, new)
    });
    plan(&config(FILE), config(&text))
}

#[track_caller]
fn told(changes: &[(&str, &str)], changed: &[&str], needs_restart: &[&str]) -> Config {
    let Plan { config, report } = planned(changes).expect("a plan");
    assert_eq!(report.changed, changed, "{changes:?}");
    assert_eq!(report.needs_restart, needs_restart, "{changes:?}");
    config
}

#[test]
fn the_same_file_changes_nothing() {
    assert_eq!(told(&[], &[], &[]), config(FILE));
    assert_eq!(Report::default().to_string(), "nothing has changed");
}

#[test]
fn what_requests_are_judged_by_is_taken_on() {
    for (old, new, changed) in [
        ("threads: 2", "threads: 2\nshutdown: { grace: 9s, delay: 1s }", &["shutdown.grace", "shutdown.delay"][..]),
        ("threads: 2", "threads: 2\nclient: { read: 9s }", &["client"]),
        ("threads: 2", "threads: 2\ntrusted_proxies: [10.0.0.0/8]", &["trusted_proxies"]),
        ("threads: 2", "threads: 2\nallow: [10.0.0.0/8]", &["allow"]),
        ("threads: 2", "threads: 2\ndeny: [10.0.0.0/8]", &["deny"]),
        ("threads: 2", "threads: 2\nlimits: { requests_per_second: 9 }", &["limits"]),
        ("9180 }", "9180, token: 0123456789abcdef }", &["control.token"]),
        ("threads: 2", "threads: 2\ncompression: {}", &["compression"]),
        ("path: /a,", "path: /b,", &["routes[0]"]),
        ("[{ path: /a, upstream: a }, ", "[", &["routes"]),
        ("3001", "3003", &["upstreams.a"]),
        ("  b: {", "  c: { servers: [{ address: 127.0.0.1:1 }] }\n  b: {", &["upstreams.c"]),
        ("address: 127.0.0.1:8081", "address: 127.0.0.1:8081, h2c: true", &["listen[127.0.0.1:8081]"]),
        ("hold: 5m", "hold: 6m, per_buyer: 2, buyer: { header: x }", &["hold", "per_buyer", "buyer"]),
        ("total: 10", "total: 20", &["total"]),
        ("hold: 5m", "hold: 5m, opens_at: 2026-12-01T20:00:00Z, seed_dialect: true", &["opens_at", "seed_dialect"]),
        ("local_stock: 150", "local_stock: 1, deadline: 4s", &["local_stock", "deadline"]),
    ] {
        let in_sale = old.starts_with("hold") || old.starts_with("total") || old.starts_with("local");
        let changed: Vec<String> =
            changed.iter().map(|key| if in_sale { format!("sales.ticket.{key}") } else { (*key).to_owned() }).collect();
        let mut expected: Vec<&str> = changed.iter().map(String::as_str).collect();
        let now = planned(&[(old, new)]).expect("a plan");
        let mut found: Vec<&str> = now.report.changed.iter().map(String::as_str).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!((found, now.report.needs_restart), (expected, vec![]), "{new}");
        assert_eq!(now.config, config(&FILE.replace(old, new)), "{new}: all of it is taken on");
    }
}

#[test]
fn what_only_a_start_changes_stays_and_is_named() {
    for (old, new, waits) in [
        ("threads: 2", "threads: 3", &["threads"][..]),
        ("127.0.0.1:9180", "127.0.0.1:9181", &["control.listen"]),
        ("8081", "8082", &["listen[127.0.0.1:8082]", "listen[127.0.0.1:8081]"]),
        ("threads: 2", "threads: 2\nledger: { embedded: { path: other } }", &["ledger"]),
        ("threads: 2", "threads: 2\nledger: { redis: { url: \"redis://127.0.0.1\" } }", &["ledger"]),
        ("threads: 2", "threads: 2\nledger: { sync: 1s }", &["ledger.sync"]),
        ("threads: 2", "threads: 2\ntracing: { endpoint: \"http://127.0.0.1:4318/v1/traces\" }", &["tracing"]),
        ("threads: 2", "threads: 2\nrequest_id: x-request-id", &["request_id"]),
        ("threads: 2", "threads: 2\naccess_log: { path: stdout }", &["access_log"]),
        ("threads: 2", "threads: 2\nerror_log: { level: warn }", &["error_log"]),
        ("hold: 5m", "hold: 5m, path: /x, key: y", &["sales.ticket.path", "sales.ticket.key"]),
        ("hold: 5m", "hold: 5m, queue: 1, stat_log: z", &["sales.ticket.queue", "sales.ticket.stat_log"]),
        ("sales: {", "sales: { more: {},", &["sales.more"]),
        ("ticket:", "other:", &["sales.other", "sales.ticket"]),
        ("upstream: b, secret", "upstream: a, secret", &["delivery"]),
        ("no-such-file", "no-such-file, timeout: 1s", &["delivery"]),
        ("delivery: { upstream: b, secret_file: no-such-file }", "", &["delivery"]),
    ] {
        assert_eq!(told(&[(old, new)], &[], waits), config(FILE), "{new}");
    }
}

#[test]
fn both_kinds_in_one_file_are_told_apart() {
    let now = told(&[("threads: 2", "threads: 3"), ("3001", "3003")], &["upstreams.a"], &["threads"]);
    assert_eq!((now.threads, now.upstreams[0].servers[0].addresses[0].port()), (2, 3003));
    let report = planned(&[("threads: 2", "threads: 3"), ("3001", "3003")]).expect("a plan").report;
    assert_eq!(report.to_string(), "changed: upstreams.a; needs a restart or an upgrade: threads");
}

#[test]
fn groups_in_another_order_change_no_route_and_no_delivery() {
    let [a, b] =
        ["  a: { servers: [{ address: 127.0.0.1:3001 }] }\n", "  b: { servers: [{ address: 127.0.0.1:3002 }] }\n"];
    let now = told(&[(&format!("{a}{b}"), &format!("{b}{a}"))], &[], &[]);
    assert_eq!(now.delivery.map(|delivery| delivery.upstream), Some(0));
    assert_eq!(now.routes[0].target, Target::Upstream(1));
}

#[test]
fn where_a_name_leads_is_no_change() {
    let mut one = config(FILE).upstreams.remove(0);
    one.servers[0].name = Some("localhost:3001".to_owned());
    let mut other = one.clone();
    other.servers[0].addresses.clear();
    assert!(is_the_same_group(&one, &other));
    other.servers[0].weight = 2;
    assert!(!is_the_same_group(&one, &other));
}

#[test]
fn the_group_that_is_delivered_to_cannot_go() {
    let gone = [
        ("  b: { servers: [{ address: 127.0.0.1:3002 }] }\n", ""),
        ("upstream: b }", "upstream: a }"),
        ("delivery: { upstream: b,", "delivery: { upstream: a,"),
    ];
    let error = planned(&gone).expect_err("it is delivered to").to_string();
    assert!(error.starts_with("upstreams: deliveries use the upstream b until"), "{error}");
}

#[test]
fn what_is_kept_has_to_go_with_what_is_new() {
    // The old listener stays, and the old control listener is what the new file would take.
    let redis = "threads: 2\nledger: { redis: { url: \"redis://127.0.0.1\", response_timeout: 100ms } }";
    let before = config(&FILE.replace("threads: 2", "threads: 2\nledger: { redis: { url: \"redis://127.0.0.1\" } }"));
    let wanted = config(&FILE.replace("threads: 2", redis).replace("hold: 5m", "hold: 5m, deadline: 500ms"));
    let error = plan(&before, wanted).expect_err("the old time for an answer is longer than the deadline").to_string();
    assert!(error.contains("deadline"), "{error}");
}
