//! Files that are right are compared with everything they must become; files that are wrong, with every line that the
//! operator must read.

mod any;
mod buyers;
mod delivery;
mod listen;
mod logs;
mod process;
mod proxy;
pub(super) mod reference;
mod sales;
mod whole_file;

use http::HeaderName;

use super::*;
use crate::auth::certificate::CertificateFiles;

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
    let config = Config::from_yaml(yaml).unwrap_or_else(|errors| panic!("{errors}\nin this file:\n{yaml}"));
    reference::schema_takes(yaml);
    config
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

/// Makes a certificate and its key in `folder`.
fn certificate(folder: &Path, name: &str) -> CertificateFiles {
    let made = rcgen::generate_simple_self_signed([format!("{name}.example")]).expect("a certificate");
    let path = |end: &str| folder.join(format!("{name}.{end}"));
    std::fs::write(path("pem"), made.cert.pem()).expect("written");
    std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("written");
    CertificateFiles { certificate: path("pem"), key: path("key") }
}

fn server(port: u16, weight: u32) -> Server {
    Server { weight, ..Server::at(SocketAddr::from(([127, 0, 0, 1], port))) }
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
        buyer_limits: Quota::default(),
        admission: None,
        opens_at_ms: None,
        closes_at_ms: None,
        seed_dialect: false,
        stat_log: None,
    }
}

#[test]
fn the_shortest_file_has_every_default() {
    let expected = Config {
        listen: vec![SocketAddr::from(([0, 0, 0, 0], 80)).into()],
        threads: std::thread::available_parallelism().map_or(1, usize::from).min(1024),
        shutdown_grace: 3 * SECOND,
        shutdown_delay: Duration::ZERO,
        client: ClientTimeouts { keepalive: 75 * SECOND, read: 60 * SECOND, send: 60 * SECOND },
        trusted_proxies: Networks::default(),
        client_address: AddressHeader::default(),
        access: Access::default(),
        limits: Limits { connections: 50_000, connections_per_address: 0, requests_per_second: 0, burst: 1 },
        control: Control { listen: SocketAddr::from(([127, 0, 0, 1], 9180)), token: None },
        ledger: Ledger { store: Store::Embedded { path: "data".into() }, sync: SECOND / 10 },
        upstreams: vec![],
        routes: vec![],
        compression: None,
        error_pages: Vec::new(),
        sales: vec![sale_by_default("ticket")],
        delivery: None,
        tracing: None,
        access_log: None,
        error_log: ErrorLog::default(),
        request_id: None,
    };
    assert_eq!(read("sales: { ticket: }"), expected);
}

#[test]
fn groups_whose_lines_are_all_commented_out_have_their_defaults() {
    let empty_groups = "{shutdown: , client: , limits: , control: , ledger: {embedded: }, upstreams: , routes: , sales: {ticket: }, delivery: }";
    assert_eq!(read(empty_groups), read("sales: {ticket: {}}"));
}

#[test]
fn every_setting_arrives_where_it_belongs() {
    let token = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(token.path(), "a-token-of-some-length\n").expect("the token is written");
    let yaml = r#"
listen: [{ address: "127.0.0.1:8080" }, { address: "[::1]:8080" }]
threads: 3
shutdown: { grace: 0s, delay: 5s }
client: { keepalive: 1m 15s, read: 1s, send: 2s }
limits: { requests_per_second: 50, burst: 100, connections_per_address: 20, connections: 20000 }
control: { listen: "0.0.0.0:9181", token_file: TOKEN_FILE }
ledger:
  redis: { url: "redis://user:password@[::1]:6380/2", connect_timeout: 3s, response_timeout: 250ms,
           durability: always, replicas: { acknowledge: 2, timeout: 50ms } }
  sync: 1s
upstreams:
  first: { servers: [{ address: "127.0.0.1:3001" }] }
  shop.example.com:
    balance: ip_hash
    servers:
      - { address: "127.0.0.1:3001", weight: 65535, max_fails: 0, fail_timeout: 1h }
      - { address: "[::1]:3002", max_conns: 100, slow_start: 30s, backup: true, down: true }
    host_header: www.example.com:8080
    timeouts: { connect: 1s, read: 7d, send: 3s, idle: 4s }
    tries: 1
    health_check: { type: http, path: /healthz?full=1, interval: 100ms, timeout: 50ms, rise: 1, fall: 100 }
    resolve: 10s
    resolver: ["127.0.0.1:5353", 10.0.0.2]
    unresolved: wait
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
tracing: { endpoint: "http://[::1]:4318/v1/traces", sample: 0.25, service: edge 1 }
access_log: { path: /var/log/access.log, refusals: 0.5 }
error_log: { path: stdout, level: error }
request_id: X-Request-Id
"#;
    let expected = Config {
        listen: vec![
            SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
            "[::1]:8080".parse::<SocketAddr>().expect("an address").into(),
        ],
        threads: 3,
        shutdown_grace: Duration::ZERO,
        shutdown_delay: 5 * SECOND,
        client: ClientTimeouts { keepalive: 75 * SECOND, read: SECOND, send: 2 * SECOND },
        trusted_proxies: Networks::default(),
        client_address: AddressHeader::default(),
        access: Access::default(),
        limits: Limits { connections: 20_000, connections_per_address: 20, requests_per_second: 50, burst: 100 },
        control: Control {
            listen: SocketAddr::from(([0, 0, 0, 0], 9181)),
            token: Some("a-token-of-some-length".to_owned()),
        },
        ledger: Ledger {
            store: Store::Redis(Redis {
                place: RedisTopology::Url("redis://user:password@[::1]:6380/2".to_owned()),
                connect_timeout: 3 * SECOND,
                response_timeout: SECOND / 4,
                durability: Some(Durability::Always),
                replicas: Some(Replicas { acknowledge: 2, timeout: SECOND / 20 }),
            }),
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
                resolve: Resolve::default(),
            },
            Upstream {
                name: "shop.example.com".to_owned(),
                balance: Balance::IpHash,
                servers: vec![
                    Server { max_fails: 0, fail_timeout: 3600 * SECOND, ..server(3001, 65535) },
                    Server {
                        max_conns: 100,
                        slow_start: 30 * SECOND,
                        backup: true,
                        down: true,
                        ..Server::at("[::1]:3002".parse().expect("an address"))
                    },
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
                resolve: Resolve {
                    every: 10 * SECOND,
                    servers: vec![SocketAddr::from(([127, 0, 0, 1], 5353)), SocketAddr::from(([10, 0, 0, 2], 53))],
                    unresolved: Unresolved::Wait,
                },
            },
        ],
        routes: vec![
            Route {
                hosts: vec!["shop.example.com".to_owned(), "[::1]".to_owned()],
                path: "/shop".to_owned(),
                target: Target::Upstream(1),
                ..Route::default()
            },
            Route::default(),
        ],
        compression: None,
        error_pages: Vec::new(),
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
        tracing: Some(Tracing {
            endpoint: "http://[::1]:4318/v1/traces".to_owned(),
            sample: 0.25,
            service: "edge 1".to_owned(),
        }),
        access_log: Some(AccessLog {
            place: LogDestination::File("/var/log/access.log".into()),
            format: LogFormat::Combined,
            refusals: 0.5,
        }),
        error_log: ErrorLog { place: LogDestination::Stdout, level: log::LevelFilter::Error },
        request_id: Some(RequestIdHeader {
            sent: "X-Request-Id".to_owned(),
            name: HeaderName::from_static("x-request-id"),
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
    assert_eq!(upstream("balance: least_conn").balance, Balance::LeastConn);
    assert_eq!(upstream("balance: random_two").balance, Balance::RandomTwo);
    let by = |key: &str| upstream(&format!("balance: hash, hash: {{key: '{key}'}}")).balance;
    assert_eq!(by("client_address"), Balance::Hash(HashKey::ClientAddress));
    assert_eq!(by("uri"), Balance::Hash(HashKey::Uri));
    assert_eq!(by("path"), Balance::Hash(HashKey::Path));
    assert_eq!(by("query:id"), Balance::Hash(HashKey::Query("id".to_owned())));
    assert_eq!(by("header:X-User"), Balance::Hash(HashKey::Header("x-user".to_owned())));
    assert_eq!(by("cookie:Session"), Balance::Hash(HashKey::Cookie("Session".to_owned())));
    assert_eq!(upstream("host_header: upstream").host_header, HostHeader::Upstream);
    assert_eq!(upstream("host_header: client").host_header, HostHeader::Client);
    assert_eq!(upstream("health_check: {type: tcp}").health_check.map(|check| check.probe), Some(Probe::Tcp));
    let socket = read("{sales: {t: }, ledger: {redis: {url: 'redis+unix:///run/redis.sock'}}}").ledger.store;
    let Store::Redis(Redis { place: RedisTopology::Url(url), .. }) = socket else { panic!("{socket:?}") };
    assert_eq!(url, "redis+unix:///run/redis.sock");
    let sentinels = "{sentinels: ['10.0.0.1:26379', s2:26380], master: mymaster, user: u, password: p, db: 3, \
                     sentinel_user: su, sentinel_password: sp}";
    let Store::Redis(redis) = read(&format!("{{sales: {{t: }}, ledger: {{redis: {sentinels}}}}}")).ledger.store else {
        panic!("it is a Redis")
    };
    let expected = RedisTopology::Sentinels {
        addresses: vec!["10.0.0.1:26379".to_owned(), "s2:26380".to_owned()],
        master: "mymaster".to_owned(),
        user: Some("u".to_owned()),
        password: Some("p".to_owned()),
        db: 3,
        sentinel_user: Some("su".to_owned()),
        sentinel_password: Some("sp".to_owned()),
    };
    assert!(redis.place == expected && redis.durability.is_none() && redis.replicas.is_none());
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
    let mut config = read(yaml);
    assert!(config.upstreams[0].servers[0].addresses.is_empty(), "a file is read without a network");
    config.resolve().expect("this machine knows itself");
    let servers = config.upstreams.remove(0).servers;
    assert_eq!(servers.len(), 1);
    assert_eq!((servers[0].name.as_deref(), servers[0].weight), (Some("localhost:3001"), 7));
    assert!(!servers[0].addresses.is_empty());
    for address in &servers[0].addresses {
        assert!(address.ip().is_loopback());
        assert_eq!(address.port(), 3001);
    }
}

#[test]
fn the_shipped_file_is_the_demo() {
    let config = read(SHIPPED);
    assert_eq!(config.listen, [SocketAddr::from(([0, 0, 0, 0], 80)).into()]);
    assert_eq!(config.upstreams[0].servers, [server(3001, 1), server(3002, 2), server(3003, 3), server(3004, 4)]);
    let hosts = ["load_balance.com".to_owned(), "www.load_balance.com".to_owned()];
    assert_eq!(config.routes[0], Route { hosts: hosts.into(), ..Route::default() });
    assert_eq!(config.routes[1], Route::default());
    let ticket = Sale {
        key: "ticket_hash_key".to_owned(),
        total: Some(10_000),
        buyer: BuyerSource::Header("x-user-id".to_owned()),
        seed_dialect: true,
        stat_log: Some("stat.log".into()),
        ..sale_by_default("ticket")
    };
    let festival = Sale {
        total: Some(1_000),
        per_buyer: 4,
        buyer: BuyerSource::Header("x-user-id".to_owned()),
        ..sale_by_default("festival")
    };
    assert_eq!(config.sales, [ticket, festival]);
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
    let page = tempfile::NamedTempFile::with_suffix(".html").expect("a temporary file");
    std::fs::write(page.path(), "<h1>Sorry</h1>").expect("the page is written");
    let tls = tempfile::tempdir().expect("a folder");
    let certificate = certificate(tls.path(), "tickets");
    let examples = uncomment(SHIPPED, "##")
        .replace("/etc/spikegate/tickets", &tls.path().join("tickets").display().to_string())
        .replace("/etc/spikegate/token", &token_file)
        .replace("/etc/spikegate/admission.key", &token_file)
        .replace("/etc/spikegate/sorry.html", &page.path().display().to_string())
        .replace("/srv/www", "/tmp");
    let config = read(&examples);

    let secure = Listener {
        tls: Some(Tls { certificates: vec![certificate], min_version: TlsVersion::Tls12 }),
        http2: true,
        ..SocketAddr::from(([0, 0, 0, 0], 443)).into()
    };
    assert_eq!(config.listen, [SocketAddr::from(([0, 0, 0, 0], 80)).into(), secure]);
    assert!(config.control.token.is_some());
    let redis = Redis {
        durability: Some(Durability::Everysec),
        replicas: Some(Replicas { acknowledge: 1, timeout: SECOND / 10 }),
        ..Redis::at("redis://127.0.0.1:6379".to_owned(), 2 * SECOND, SECOND)
    };
    let redis = Store::Redis(redis);
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
    let fallback = Fallback { file: "maintenance.html".to_owned(), status: 503, retry_after: Some(120 * SECOND) };
    let files = Files { root: "/tmp".into(), index: "index.html".to_owned(), fallback: Some(fallback) };
    assert_eq!(config.routes[0].target, Target::Files(files));
    let compression = config.compression.expect("compression");
    assert_eq!((compression.codings.len(), compression.min_length), (3, 1024));
    assert_eq!(config.error_pages[0].statuses, [502, 503, 504]);
    assert_eq!(config.error_pages[0].body, "<h1>Sorry</h1>");
    assert!(config.sales[0].admission.is_some());
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
