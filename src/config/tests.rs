//! Files that are right are compared with everything they must become; files that are wrong, with every line that the
//! operator must read.

mod any;
mod delivery;
mod process;
mod proxy;
mod sales;
mod whole_file;

use super::*;

const SHIPPED: &str = include_str!("../../conf/spikegate.yaml");

const SECOND: Duration = Duration::from_secs(1);

/// Asserts all that is wrong with a file, in order; nothing if it is right.
#[track_caller]
fn check(yaml: &str, expected: &[&str]) {
    let errors = Config::from_yaml(yaml).map_or_else(|errors| errors.to_string(), |_| String::new());
    assert_eq!(errors.lines().collect::<Vec<_>>(), expected, "for this file:\n{yaml}");
}

/// Checks files that are one wrong setting, the first of each row, put into `frame` at its `HERE`.
#[track_caller]
fn each(frame: &str, rows: &[(&str, &str)]) {
    for (setting, expected) in rows {
        check(&frame.replace("HERE", setting), &[expected]);
    }
}

/// A file that is right, but for one more setting.
const TOP: &str = "{sales: {t: }, HERE}";

/// The configuration of a file that is right.
#[track_caller]
fn read(yaml: &str) -> Config {
    Config::from_yaml(yaml).unwrap_or_else(|errors| panic!("{errors}\nin this file:\n{yaml}"))
}

/// Takes the comment marks away from settings that are commented out. A `#` before a space begins words.
fn uncomment(yaml: &str, mark: &str) -> String {
    let uncommented = yaml.lines().map(|line| {
        let setting = line.trim_start();
        match setting.strip_prefix(mark) {
            Some(rest) if !rest.is_empty() && !rest.starts_with(['#', ' ']) => {
                format!("{}{rest}", &line[..line.len() - setting.len()])
            }
            _ => line.to_owned(),
        }
    });
    uncommented.collect::<Vec<_>>().join("\n")
}

fn server(port: u16, weight: u32) -> Server {
    Server { address: SocketAddr::from(([127, 0, 0, 1], port)), weight, max_fails: 1, fail_timeout: 10 * SECOND }
}

fn sale_by_default(id: &str) -> Sale {
    Sale {
        id: id.to_owned(),
        path: format!("/buy/{id}"),
        key: id.to_owned(),
        total: None,
        local_stock: 150,
        queue: 10_000,
        deadline: 3 * SECOND,
        hold: 300 * SECOND,
        per_buyer: 0,
        unpaid_per_buyer: 0,
        buyer: BuyerSource::Anonymous,
        opens_at_ms: None,
        closes_at_ms: None,
        seed_dialect: false,
        stat_log: None,
    }
}

#[test]
fn the_shortest_file_has_every_default() {
    let expected = Config {
        listen: vec![SocketAddr::from(([0, 0, 0, 0], 80))],
        threads: std::thread::available_parallelism().map_or(1, usize::from).min(1024),
        shutdown_grace: 3 * SECOND,
        client: ClientTimeouts { keepalive: 75 * SECOND, read: 60 * SECOND, send: 60 * SECOND },
        control: Control { listen: SocketAddr::from(([127, 0, 0, 1], 9180)), token: None },
        ledger: Ledger { store: Store::Embedded { path: "data".into() }, sync: SECOND / 10 },
        upstreams: vec![],
        routes: vec![],
        sales: vec![sale_by_default("ticket")],
        delivery: None,
    };
    assert_eq!(read("sales: { ticket: }"), expected);
}

#[test]
fn groups_whose_lines_are_all_commented_out_have_their_defaults() {
    let empty_groups =
        "{shutdown: , client: , control: , ledger: {embedded: }, upstreams: , routes: , sales: {ticket: }, delivery: }";
    assert_eq!(read(empty_groups), read("sales: {ticket: {}}"));
}

#[test]
fn every_setting_arrives_where_it_belongs() {
    let token = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(token.path(), "a-token-of-some-length\n").expect("the token is written");
    let yaml = r#"
listen: [{ address: "127.0.0.1:8080" }, { address: "[::1]:8080" }]
threads: 3
shutdown: { grace: 0s }
client: { keepalive: 1m 15s, read: 1s, send: 2s }
control: { listen: "0.0.0.0:9181", token_file: TOKEN_FILE }
ledger:
  redis: { url: "redis://user:password@[::1]:6380/2", connect_timeout: 3s, response_timeout: 250ms }
  sync: 1s
upstreams:
  first: { servers: [{ address: "127.0.0.1:3001" }] }
  shop.example.com:
    balance: ip_hash
    servers:
      - { address: "127.0.0.1:3001", weight: 65535, max_fails: 0, fail_timeout: 1h }
      - { address: "[::1]:3002" }
    host_header: www.example.com:8080
    timeouts: { connect: 1s, read: 7d, send: 3s, idle: 4s }
    tries: 1
    health_check: { type: http, path: /healthz?full=1, interval: 100ms, timeout: 50ms, rise: 1, fall: 100 }
routes:
  - { hosts: [Shop.Example.COM, "[::1]"], path: /shop, upstream: shop.example.com }
  - { path: /, upstream: first }
sales:
  gold-1:
    path: /gold
    key: gold:stock
    total: 1
    local_stock: 100000
    queue: 1
    deadline: 260ms
    hold: 7d
    per_buyer: 4
    unpaid_per_buyer: 2
    buyer: { header: X-User-Id }
    opens_at: 2026-12-01T20:00:00+08:00
    closes_at: 2026-12-01T12:00:01Z
    seed_dialect: true
    stat_log: /var/log/gold.log
  by_query: { buyer: { query: user.id } }
  by_body: { buyer: { body: user_id }, per_buyer: 1 }
delivery: { upstream: shop.example.com, path: /told, secret_file: /nowhere/secret, timeout: 1m }
"#;
    let expected = Config {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080)), "[::1]:8080".parse().expect("an address")],
        threads: 3,
        shutdown_grace: Duration::ZERO,
        client: ClientTimeouts { keepalive: 75 * SECOND, read: SECOND, send: 2 * SECOND },
        control: Control {
            listen: SocketAddr::from(([0, 0, 0, 0], 9181)),
            token: Some("a-token-of-some-length".to_owned()),
        },
        ledger: Ledger {
            store: Store::Redis {
                url: "redis://user:password@[::1]:6380/2".to_owned(),
                connect_timeout: 3 * SECOND,
                response_timeout: SECOND / 4,
            },
            sync: SECOND,
        },
        upstreams: vec![
            Upstream {
                name: "first".to_owned(),
                balance: Balance::Weighted,
                servers: vec![server(3001, 1)],
                host_header: HostHeader::Upstream,
                timeouts: UpstreamTimeouts {
                    connect: 60 * SECOND,
                    read: 60 * SECOND,
                    send: 60 * SECOND,
                    idle: 60 * SECOND,
                },
                tries: 1,
                health_check: None,
            },
            Upstream {
                name: "shop.example.com".to_owned(),
                balance: Balance::IpHash,
                servers: vec![
                    Server { max_fails: 0, fail_timeout: 3600 * SECOND, ..server(3001, 65535) },
                    Server { address: "[::1]:3002".parse().expect("an address"), ..server(3002, 1) },
                ],
                host_header: HostHeader::Literal("www.example.com:8080".to_owned()),
                timeouts: UpstreamTimeouts {
                    connect: SECOND,
                    read: 7 * 24 * 3600 * SECOND,
                    send: 3 * SECOND,
                    idle: 4 * SECOND,
                },
                tries: 1,
                health_check: Some(HealthCheck {
                    probe: Probe::Http { path: "/healthz?full=1".to_owned() },
                    interval: SECOND / 10,
                    timeout: SECOND / 20,
                    rise: 1,
                    fall: 100,
                }),
            },
        ],
        routes: vec![
            Route {
                hosts: vec!["shop.example.com".to_owned(), "[::1]".to_owned()],
                path: "/shop".to_owned(),
                upstream: 1,
            },
            Route { hosts: vec![], path: "/".to_owned(), upstream: 0 },
        ],
        sales: vec![
            Sale {
                path: "/gold".to_owned(),
                key: "gold:stock".to_owned(),
                total: Some(1),
                local_stock: 100_000,
                queue: 1,
                deadline: Duration::from_millis(260),
                hold: 7 * 24 * 3600 * SECOND,
                per_buyer: 4,
                unpaid_per_buyer: 2,
                buyer: BuyerSource::Header("x-user-id".to_owned()),
                opens_at_ms: Some(1_796_126_400_000),
                closes_at_ms: Some(1_796_126_401_000),
                seed_dialect: true,
                stat_log: Some("/var/log/gold.log".into()),
                ..sale_by_default("gold-1")
            },
            Sale { buyer: BuyerSource::Query("user.id".to_owned()), ..sale_by_default("by_query") },
            Sale { buyer: BuyerSource::Body("user_id".to_owned()), per_buyer: 1, ..sale_by_default("by_body") },
        ],
        delivery: Some(Delivery {
            upstream: 1,
            path: "/told".to_owned(),
            secret_file: "/nowhere/secret".into(),
            timeout: 60 * SECOND,
        }),
    };
    assert_eq!(read(&yaml.replace("TOKEN_FILE", &token.path().display().to_string())), expected);
}

#[test]
fn the_words_of_each_choice() {
    let upstream = |settings: &str| {
        let yaml =
            format!("{{sales: {{t: }}, upstreams: {{u: {{servers: [{{address: '127.0.0.1:1'}}], {settings}}}}}}}");
        read(&yaml).upstreams.remove(0)
    };
    assert_eq!(upstream("balance: weighted").balance, Balance::Weighted);
    assert_eq!(upstream("balance: round_robin").balance, Balance::RoundRobin);
    assert_eq!(upstream("host_header: upstream").host_header, HostHeader::Upstream);
    assert_eq!(upstream("host_header: client").host_header, HostHeader::Client);
    assert_eq!(upstream("health_check: {type: tcp}").health_check.map(|check| check.probe), Some(Probe::Tcp));
    let socket = read("{sales: {t: }, ledger: {redis: {url: 'redis+unix:///run/redis.sock'}}}").ledger.store;
    assert!(matches!(socket, Store::Redis { url, .. } if url == "redis+unix:///run/redis.sock"));
}

#[test]
fn settings_can_be_shared_by_anchors() {
    let yaml = "
upstreams:
  a: { servers: [{ address: 127.0.0.1:3001 }], timeouts: &patient { connect: 5s, read: 5m } }
  b: { servers: [{ address: 127.0.0.1:3001 }], timeouts: { <<: *patient, read: 6m } }
sales: { t: }
";
    let timeouts = &read(yaml).upstreams[1].timeouts;
    assert_eq!((timeouts.connect, timeouts.read), (5 * SECOND, 360 * SECOND));
}

#[test]
fn a_name_is_a_server_for_each_of_its_addresses() {
    let yaml = "{sales: {t: }, upstreams: {u: {servers: [{address: 'localhost:3001', weight: 7}]}}}";
    let servers = read(yaml).upstreams.remove(0).servers;
    assert!(!servers.is_empty());
    for server in servers {
        assert!(server.address.ip().is_loopback());
        assert_eq!((server.address.port(), server.weight), (3001, 7));
    }
}

#[test]
fn the_shipped_file_is_the_demo() {
    let config = read(SHIPPED);
    assert_eq!(config.listen, [SocketAddr::from(([0, 0, 0, 0], 80))]);
    assert_eq!(config.upstreams[0].servers, [server(3001, 1), server(3002, 2), server(3003, 3), server(3004, 4)]);
    let hosts = ["load_balance.com".to_owned(), "www.load_balance.com".to_owned()];
    assert_eq!(config.routes[0], Route { hosts: hosts.into(), path: "/".to_owned(), upstream: 0 });
    assert_eq!(config.routes[1], Route { hosts: vec![], path: "/".to_owned(), upstream: 0 });
    let ticket = Sale {
        key: "ticket_hash_key".to_owned(),
        total: Some(10_000),
        buyer: BuyerSource::Header("x-user-id".to_owned()),
        seed_dialect: true,
        stat_log: Some("stat.log".into()),
        ..sale_by_default("ticket")
    };
    assert_eq!(config.sales, [ticket]);
    let delivery = Delivery {
        upstream: 0,
        path: "/hooks/spikegate".to_owned(),
        secret_file: "data/delivery.secret".into(),
        timeout: 5 * SECOND,
    };
    assert_eq!(config.delivery, Some(delivery));
}

#[test]
fn the_shipped_file_shows_the_true_defaults() {
    let uncommented = uncomment(SHIPPED, "#");
    assert_ne!(uncommented, SHIPPED);
    assert_eq!(read(&uncommented), read(SHIPPED));
}

#[test]
fn the_shipped_file_shows_examples_that_work() {
    let token = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(token.path(), "a-token-of-some-length\n").expect("the token is written");
    let token_file = token.path().display().to_string();
    let config = read(&uncomment(SHIPPED, "##").replace("/etc/spikegate/token", &token_file));

    assert!(config.control.token.is_some());
    let redis = Store::Redis {
        url: "redis://127.0.0.1:6379".to_owned(),
        connect_timeout: 2 * SECOND,
        response_timeout: SECOND,
    };
    assert!(config.ledger.store == redis);
    let health_check = HealthCheck {
        probe: Probe::Http { path: "/healthz".to_owned() },
        interval: 5 * SECOND,
        timeout: SECOND,
        rise: 2,
        fall: 3,
    };
    assert_eq!(config.upstreams[0].health_check, Some(health_check));
    assert!(config.sales[0].opens_at_ms < config.sales[0].closes_at_ms);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = Config::load(Path::new("/nowhere/spikegate.yaml")).expect_err("there is no such file");
    assert_eq!(
        errors.to_string(),
        "the file: /nowhere/spikegate.yaml cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn settings_can_be_logged_without_their_secrets() {
    let yaml = "{sales: {t: }, control: {token: swordfish-swordfish}, ledger: {redis: {url: 'redis://:swordfish@db'}}}";
    let logged = format!("{:?}", read(yaml));
    assert!(logged.contains("Redis {") && logged.contains("Control {"));
    assert!(!logged.contains("swordfish"), "{logged}");
}
