//! The access log: one line for each request, on every way through the edge.

mod errors;
mod full_disk;
mod request_ids;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::backend::After;
use crate::harness::client::everything;
use crate::harness::edge::Setup;
use crate::harness::process::free_address;
use crate::harness::purchase::purchase;
use crate::harness::{Answer, Authority, Backend, Connection, Edge, Redis, Request, buy, eventually};

/// Every field but those that differ from run to run.
const FIELDS: [&str; 16] = [
    "client",
    "method",
    "path",
    "query",
    "protocol",
    "host",
    "referer",
    "user_agent",
    "tls",
    "status",
    "bytes",
    "route",
    "upstream",
    "tries",
    "sale",
    "outcome",
];

/// An edge that sells one ticket, proxies all else, and writes `access.log` in its folder with these settings besides.
fn logged(settings: Value) -> (Setup, Backend) {
    let backend = Backend::named("hello");
    let mut log = json!({ "path": "access.log", "refusals": 1 });
    log.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let setup = Edge::setup()
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .ticket(json!({ "total": 1, "seed_dialect": true }))
        .set("access_log", log);
    (setup, backend)
}

fn in_json(fields: &[&str]) -> Value {
    json!({ "format": "json", "fields": fields })
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until the access log has `count` lines, and returns them. Fails if there are more.
#[track_caller]
fn lines(edge: &Edge, count: usize) -> Vec<String> {
    let path = edge.folder().join("access.log");
    eventually(&format!("{count} lines"), || (read(&path).lines().count() >= count).then_some(()));
    let lines: Vec<String> = read(&path).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[track_caller]
fn objects(edge: &Edge, count: usize) -> Vec<Value> {
    let object = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    lines(edge, count).iter().map(object).collect()
}

/// More fields than the front door looks at, so that Pingora gets the request.
fn behind_the_door(request: Request) -> Request {
    (0..80).fold(request, |request, n| request.header(&format!("X-Filler-{n}"), "1"))
}

#[test]
fn combined_lines_are_what_nginx_writes() {
    let (setup, _backend) = logged(json!({ "format": "combined" }));
    let edge = setup.start();
    let browser = |request: Request| request.header("User-Agent", "Mozilla/5.0 (X11)").header("Referer", "http://a/\"");
    // Lines of different threads have no order, so each is waited for.
    assert_eq!(edge.ask(&browser(Request::get("/a%20b?c=d"))).status, 200);
    lines(&edge, 1);
    assert_eq!(edge.ask(&browser(purchase())).status, 201);
    lines(&edge, 2);
    assert_eq!(edge.ask(&Request::get("/buy/ticket").http10()).status, 200);
    let lines = lines(&edge, 3);
    let rest: Vec<&str> = lines
        .iter()
        .map(|line| {
            let rest = line.strip_prefix("127.0.0.1 - - [").unwrap_or_else(|| panic!("{line}"));
            let (time, rest) = rest.split_once("] ").unwrap();
            jiff::Zoned::strptime("%d/%b/%Y:%H:%M:%S %z", time).unwrap_or_else(|error| panic!("{error}: {line}"));
            rest
        })
        .collect();
    let by = r#""http://a/\x22" "Mozilla/5.0 (X11)""#;
    assert_eq!(rest[0], format!("\"GET /a%20b?c=d HTTP/1.1\" 200 5 {by}"));
    assert!(rest[1].starts_with("\"POST /buy/ticket HTTP/1.1\" 201 ") && rest[1].ends_with(by), "{}", rest[1]);
    let sold_out = "{\"code\":-1,\"msg\":\"已售罄\"}".len();
    assert_eq!(rest[2], format!("\"GET /buy/ticket HTTP/1.0\" 200 {sold_out} \"-\" \"-\""));
}

#[test]
fn a_line_speaks_by_the_rules_that_its_request_was_judged_by() {
    let redis = Redis::start();
    let (setup, _backend) = logged(in_json(&["client", "sale", "status", "method", "target", "user_agent"]));
    let setup = setup.redis_at(&redis.url(), "20s").ticket(json!({ "total": 2, "deadline": "30s" }));
    let mut edge = setup.set("trusted_proxies", json!(["127.0.0.1"])).start();
    // The edge has read the log once it has sold.
    assert_eq!(edge.ask(&purchase()).status, 201);
    lines(&edge, 1);
    let batches = || edge.metric("spikegate_ledger_batches_total", "");
    let batches_before = batches();
    redis.freeze();
    let mut waiting = edge.connect();
    waiting.send(&purchase().header("X-Forwarded-For", "203.0.113.7").header("User-Agent", "a b").bytes());
    eventually("the ledger is asked", || (batches() > batches_before).then_some(()));
    edge.reload(|setup| setup.set("trusted_proxies", json!([])));
    redis.thaw();
    assert_eq!(waiting.answer().status, 201);
    let expected = json!({ "client": "203.0.113.7", "sale": "ticket", "status": 201, "method": "POST",
        "target": "/buy/ticket", "user_agent": "a b" });
    assert_eq!(objects(&edge, 2)[1], expected, "the client that the older rules tell");
}

#[test]
fn every_way_through_the_edge_writes_its_line() {
    let (setup, backend) = logged(in_json(&FIELDS));
    let gone = free_address();
    let servers = json!([{ "address": gone, "weight": 1000 }, { "address": backend.address() }]);
    let edge = setup
        .upstream("flaky", json!({ "servers": servers }))
        .first_route(json!({ "path": "/flaky", "upstream": "flaky" }))
        .start();
    let mut count = 0;
    let mut line = |ask: &dyn Fn() -> Answer, expected: Value| {
        let answer = ask();
        count += 1;
        let mut written = objects(&edge, count).pop().unwrap();
        let said = written["bytes"].take();
        assert_eq!(said, answer.body.len(), "{written}");
        let mut all = json!({ "client": "127.0.0.1", "protocol": "HTTP/1.1", "status": answer.status, "bytes": null });
        all.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
        if all["host"].is_null() {
            all["host"] = json!(edge.address().to_string());
        }
        // The harness sends the edge's own address as `Host`.
        written["host"] = all["host"].clone();
        assert_eq!(written, all);
    };
    let get = |target: &str| Request::get(target);
    let sale = |outcome: &str, method: &str| json!({ "method": method, "path": "/buy/ticket", "sale": "ticket", "outcome": outcome });
    line(
        &|| edge.ask(&get("/a?b=c")),
        json!({ "method": "GET", "path": "/a", "query": "b=c", "route": "/", "upstream": "load_rule", "tries": 1 }),
    );
    line(
        &|| edge.ask(&get("/flaky")),
        json!({ "method": "GET", "path": "/flaky", "route": "/flaky", "upstream": "flaky", "tries": 2 }),
    );
    line(&|| edge.ask(&purchase()), sale("ordered", "POST"));
    line(&|| edge.ask(&purchase()), sale("sold_out", "POST"));
    line(&|| edge.ask(&behind_the_door(purchase())), sale("sold_out", "POST"));
    line(&|| edge.ask(&get("/buy/ticket")), sale("sold_out", "GET"));
    line(&|| edge.ask(&purchase().json(&json!({ "quantity": 0 }))), sale("bad_request", "POST"));
    line(&|| edge.ask(&get("/sales/ticket")), json!({ "method": "GET", "path": "/sales/ticket", "sale": "ticket" }));
    line(
        &|| edge.ask(&behind_the_door(get("/sales/ticket"))),
        json!({ "method": "GET", "path": "/sales/ticket", "sale": "ticket" }),
    );
    let referred = get("/").header("Referer", "http://a/").header("User-Agent", "ua");
    line(
        &|| edge.ask(&referred),
        json!({ "method": "GET", "path": "/", "route": "/", "upstream": "load_rule", "tries": 1, "referer": "http://a/", "user_agent": "ua" }),
    );

    // What is no request at all, and what never becomes one.
    everything(edge.address(), b"\x16\x03\x01 nonsense\"\r\n\r\n");
    let malformed = objects(&edge, count + 1).pop().unwrap();
    assert_eq!((&malformed["status"], &malformed["method"]), (&json!(400), &Value::Null), "{malformed}");
    assert_eq!(malformed["path"], json!("\u{16}\u{3}\u{1} nonsense\""));
    let mut half = edge.connect();
    half.send(b"GET /half HTTP/1.1\r\nX: ");
    half.send(&[b'x'; 40_000]);
    let answer = half.answer();
    assert_eq!(answer.status, 431);
    let half = objects(&edge, count + 2).pop().unwrap();
    assert_eq!((&half["status"], &half["path"]), (&json!(431), &json!("GET /half HTTP/1.1")), "{half}");
    // Each request has its line.
    edge.wait_for_metric("spikegate_access_log_written_total", "", count as u64 + 2);
    edge.wait_for_metric("spikegate_requests_total", "", count as u64 + 2);
}

#[test]
fn times_addresses_and_orders_are_told() {
    let slow = Backend::start(|request| {
        std::thread::sleep(std::time::Duration::from_millis(30));
        request.answer("slow");
        After::KeepOpen
    });
    let fields = ["time", "client", "peer", "duration", "backend", "backend_duration", "target", "order_id"];
    let (setup, _backend) = logged(in_json(&fields));
    let edge = setup
        .upstream("load_rule", json!({ "servers": [{ "address": slow.address() }] }))
        .set("trusted_proxies", json!(["127.0.0.9/32"]))
        .start();
    let before = jiff::Timestamp::now();
    let mut connection = Connection::from("127.0.0.9".parse().unwrap(), edge.address());
    let peer = connection.stream().local_addr().unwrap();
    assert_eq!(connection.ask(&Request::get("/?a").header("X-Forwarded-For", "192.0.2.7")).status, 200);
    lines(&edge, 1);
    let order = buy(edge.address(), &purchase());
    let [proxied, bought] = &objects(&edge, 2)[..] else { panic!() };
    for line in [proxied, bought] {
        let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        let early = before - jiff::SignedDuration::from_millis(1);
        assert!(early <= time && time <= jiff::Timestamp::now(), "{line}");
        assert!((0.0..20.0).contains(&line["duration"].as_f64().unwrap()), "{line}");
    }
    assert_eq!((&proxied["client"], &proxied["peer"]), (&json!("192.0.2.7"), &json!(peer)));
    assert_eq!((&proxied["backend"], &proxied["target"]), (&json!(slow.address()), &json!("/?a")));
    let (all, backend) = (proxied["duration"].as_f64().unwrap(), proxied["backend_duration"].as_f64().unwrap());
    assert!(0.03 <= backend && backend <= all, "{proxied}");
    assert_eq!(bought["order_id"], order.id());
    assert!(bought["duration"].as_f64().unwrap() > 0.0 && bought["backend"].is_null(), "{bought}");
}

#[test]
fn tls_http2_and_redirects_write_their_lines_too() {
    let authority = Authority::new();
    let certificates = [authority.certificate("edge", &["tickets.example"])];
    let (secure, leading) = (free_address(), free_address());
    let (setup, _backend) = logged(in_json(&["method", "path", "protocol", "tls", "status", "outcome", "host"]));
    let edge = setup
        .listener_at(secure, json!({ "tls": { "certificates": certificates } }))
        .listener_at(leading, json!({ "redirect_https": true }))
        .start();
    assert_eq!(authority.connect(secure, "tickets.example").ask(&purchase()).status, 201);
    lines(&edge, 1);
    assert_eq!(authority.connect(secure, "tickets.example").ask(&behind_the_door(purchase())).status, 409);
    lines(&edge, 2);
    let curl = Command::new("curl")
        .args(["--silent", "--max-time", "20", "--http2", "--cacert"])
        .arg(authority.file())
        .args(["--resolve", &format!("tickets.example:{}:{}", secure.port(), secure.ip()), "--request", "POST"])
        .arg(format!("https://tickets.example:{}/buy/ticket", secure.port()))
        .output()
        .expect("curl is installed");
    assert!(String::from_utf8_lossy(&curl.stdout).contains("sold-out"), "{curl:?}");
    lines(&edge, 3);
    let led = Connection::to(leading).ask(&Request::get("/x").header("Connection", "close"));
    assert_eq!(led.status, 308);
    let lines = objects(&edge, 4);
    let said = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(said("status"), [201, 409, 409, 308]);
    assert_eq!(said("protocol"), ["HTTP/1.1", "HTTP/1.1", "HTTP/2.0", "HTTP/1.1"]);
    assert_eq!(said("tls"), [json!("TLSv1.3"), json!("TLSv1.3"), json!("TLSv1.3"), Value::Null]);
    assert_eq!(said("path"), ["/buy/ticket", "/buy/ticket", "/buy/ticket", "/x"]);
    assert_eq!(said("outcome"), [json!("ordered"), json!("sold_out"), json!("sold_out"), Value::Null]);
}

#[test]
fn the_log_has_the_configured_share_of_refusals_and_all_other_requests() {
    for (refusals, expected) in [(json!(0), 0..=0), (json!(0.1), 96..=102), (json!(1), 1000..=1000)] {
        let (setup, _backend) = logged(json!({ "format": "json", "refusals": refusals }));
        let edge = setup.start();
        assert!(buy(edge.address(), &purchase()).is_order());
        let mut connection = edge.connect();
        for _ in 0..1000 {
            assert_eq!(connection.ask(&purchase()).status, 409);
        }
        assert_eq!(connection.ask(&Request::get("/")).status, 200);
        let count = |what: &str| edge.metric(&format!("spikegate_access_log_{what}_total"), "");
        eventually("all are counted", || (count("written") + count("skipped") == 1002).then_some(()));
        let written = count("written") - 2;
        assert!(expected.contains(&written), "{refusals}: {written}");
        assert_eq!(count("dropped"), 0);
        let lines = objects(&edge, written as usize + 2);
        assert_eq!(lines.iter().filter(|line| line["outcome"] == "sold_out").count() as u64, written);
        assert_eq!(lines.iter().filter(|line| line["outcome"] == "ordered").count(), 1);
        assert_eq!(lines.iter().filter(|line| line["path"] == "/").count(), 1);
    }
}

#[test]
fn a_denied_request_is_logged_as_a_refusal() {
    let (setup, _backend) = logged(json!({ "format": "json", "fields": ["status", "outcome"], "refusals": 1 }));
    let edge = setup.set("deny", json!(["127.0.0.3/32"])).start();
    let strange =
        |request: &Request| Connection::from("127.0.0.3".parse().unwrap(), edge.address()).ask(request).status;
    let asked = [purchase(), behind_the_door(purchase()), Request::get("/"), behind_the_door(Request::get("/"))];
    assert!(asked.iter().all(|request| strange(request) == 403));
    let refused = json!({ "status": 403, "outcome": "denied" });
    assert!(objects(&edge, 4).iter().all(|line| *line == refused));
}

#[test]
fn clients_cannot_forge_log_lines() {
    let evil = "x\"\\ 127.0.0.1 - - [01/Jan/2026:00:00:00 +0000] \"GET /admin";
    for format in ["combined", "json"] {
        let mut settings = json!({ "format": format });
        if format == "json" {
            settings["fields"] = json!(["client", "target", "referer", "user_agent", "host", "method"]);
        }
        let (setup, _backend) = logged(settings);
        let edge = setup.start();
        let requests: [Vec<u8>; 4] = [
            format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: {evil}\r\nReferer: \x07\x1b[2J{evil}\r\n\r\n").into_bytes(),
            [&b"GET /\xff\xfe?\x80\" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"[..]].concat(),
            format!("POST /buy/ticket HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\nUser-Agent: {evil}\u{85}\u{2028}\t\r\n\r\n").into_bytes(),
            format!("G\"{{}}\u{7f} {evil}\r\n\r\n").into_bytes(),
        ];
        for request in &requests {
            everything(edge.address(), request);
        }
        for line in lines(&edge, requests.len()) {
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
            match format {
                "json" => drop(serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))),
                // Request, referer and user agent, and no quote within.
                _ => assert_eq!(line.matches('"').count(), 6, "{line}"),
            }
        }
    }
}

#[test]
fn secrets_of_headers_are_not_written() {
    let (setup, _backend) = logged(json!({ "format": "json" }));
    let edge = setup.start();
    let secret =
        |request: Request| request.header("Authorization", "Bearer swordfish").header("Cookie", "id=swordfish");
    edge.ask(&secret(Request::get("/?token=swordfish")));
    edge.ask(&secret(purchase()));
    assert!(lines(&edge, 2).iter().all(|line| !line.contains("swordfish")));
}
