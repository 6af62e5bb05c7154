//! TLS with curl, openssl and rustls as clients.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::backend::After;
use crate::harness::edge::Setup;
use crate::harness::purchase::purchase;
use crate::harness::{Answer, Authority, Backend, Connection, Edge, Request, eventually};

const NAME: &str = "tickets.example";

/// An edge whose public listener has TLS with a certificate for [`NAME`] and these settings.
fn secure(authority: &Authority, settings: Value) -> Setup {
    let mut tls = json!({ "certificates": [authority.certificate("tickets", &[NAME])] });
    tls.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    Edge::setup().listener(json!({ "tls": tls }))
}

/// What curl gets, trusting `authority`; behind the body, the version of HTTP and the status.
fn curl(authority: &Authority, address: SocketAddr, arguments: &[&str], path: &str) -> String {
    let resolve = format!("{NAME}:{}:{}", address.port(), address.ip());
    let url = format!("https://{NAME}:{}{path}", address.port());
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--resolve", &resolve, "--cacert"])
        .arg(authority.file())
        .args(["--write-out", " %{http_version} %{response_code}"])
        .args(arguments)
        .arg(url)
        .output()
        .expect("curl is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The output of `openssl s_client` for a handshake.
fn s_client(authority: &Authority, address: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-CAfile"])
        .arg(authority.file())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Whether the edge ended a handshake, and nothing was agreed on.
fn is_refused(said: &str) -> bool {
    said.contains("SSL alert number") && said.contains("New, (NONE), Cipher is (NONE)")
}

#[test]
fn curl_buys_and_is_proxied_over_tls() {
    let authority = Authority::new();
    let backend = Backend::start(|request| {
        let protocol = request.header("x-forwarded-proto").unwrap_or("none").to_owned();
        request.answer(&protocol);
        After::KeepOpen
    });
    let edge = secure(&authority, json!({}))
        .ticket(json!({ "total": 2 }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .start();
    let curl = |arguments: &[&str], path| curl(&authority, edge.address(), arguments, path);
    for (version, shown) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let bought = curl(&[version, "-X", "POST"], "/buy/ticket");
        assert!(bought.contains("\"state\":\"HELD\"") && bought.ends_with(&format!(" {shown} 201")), "{bought}");
        assert_eq!(curl(&[version], "/proxied"), format!("https {shown} 200"));
    }
    for (version, shown) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let refused = curl(&[version, "-X", "POST", "-d", "{}", "-H", "Content-Type: application/json"], "/buy/ticket");
        assert!(refused.contains("sold-out") && refused.ends_with(&format!(" {shown} 409")), "{refused}");
    }
    assert_eq!(edge.sold(), 2);
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let authority = Authority::new();
    let certificates = [
        authority.certificate("first", &[NAME]),
        authority.certificate("exact", &["shop.example", "a.wild.example"]),
        authority.certificate("wild", &["*.wild.example"]),
    ];
    let edge = Edge::setup().listener(json!({ "tls": { "certificates": certificates } })).ticket(json!({})).start();
    for (name, is_for) in [
        ("tickets.example", "tickets.example"),
        ("SHOP.example", "shop.example"),
        ("a.wild.example", "a.wild.example"),
        ("b.wild.example", "b.wild.example"),
        ("b.b.wild.example", "tickets.example"),
        ("unknown.example", "tickets.example"),
    ] {
        let said = s_client(&authority, edge.address(), &["-servername", name, "-verify_hostname", is_for]);
        assert!(said.contains("Verify return code: 0 (ok)"), "{name}: {said}");
    }
    let said = s_client(&authority, edge.address(), &["-noservername", "-verify_hostname", NAME]);
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    let said = s_client(&authority, edge.address(), &["-servername", NAME, "-verify_hostname", "shop.example"]);
    assert!(said.contains("ostname mismatch"), "the check is one: {said}");
}

#[test]
fn old_versions_are_refused_and_sessions_resumed() {
    let authority = Authority::new();
    let edge = secure(&authority, json!({})).ticket(json!({})).start();
    let said = |arguments: &[&str]| s_client(&authority, edge.address(), arguments);
    let old = said(&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(is_refused(&old), "{old}");
    assert!(said(&["-tls1_2"]).contains("New, TLSv1.2"), "{}", said(&["-tls1_2"]));
    assert!(said(&["-tls1_3", "-alpn", "h2"]).contains("ALPN protocol: h2"));
    assert!(said(&["-alpn", "http/1.1"]).contains("ALPN protocol: http/1.1"));
    assert!(said(&["-tls1_2", "-reconnect"]).contains("Reused, TLSv1.2"));

    let modern = secure(&authority, json!({ "min_version": 1.3 })).ticket(json!({})).start();
    assert!(is_refused(&s_client(&authority, modern.address(), &["-tls1_2"])));
    assert!(s_client(&authority, modern.address(), &["-tls1_3"]).contains("New, TLSv1.3"));
    eventually("it is counted", || (modern.metric("spikegate_tls_handshakes_failed_total", "") == 1).then_some(()));
}

#[test]
fn certificates_are_replaced_while_connections_go_on() {
    let (before, after) = (Authority::new(), Authority::new());
    let edge = secure(&before, json!({})).ticket(json!({ "total": 9 })).start();
    let mut open = before.connect(edge.address(), NAME);
    assert_eq!(open.ask(&purchase()).status, 201);

    // Half of a pair changes nothing.
    let new = after.certificate("new", &[NAME]);
    let old = before.certificate("kept", &[NAME]);
    let of = |entry: &Value, file: &str| entry[file].as_str().unwrap().to_owned();
    let shown = before.file().with_file_name("tickets.pem");
    std::fs::copy(of(&new, "certificate"), &shown).unwrap();
    edge.signal("HUP");
    edge.wait_for_log("reload failed, nothing changed: ");
    edge.wait_for_log("listen[0].tls.certificates[0].key: ");
    edge.wait_for_log("is not the key of the certificate in");
    assert_eq!(before.connect(edge.address(), NAME).ask(&purchase()).status, 201);
    assert!(after.try_connect(edge.address(), NAME).is_err());

    std::fs::copy(of(&new, "key"), shown.with_extension("key")).unwrap();
    edge.signal("HUP");
    let mut newer = eventually("the new one is shown", || after.try_connect(edge.address(), NAME).ok());
    assert_eq!(newer.ask(&purchase()).status, 201);
    assert!(before.try_connect(edge.address(), NAME).is_err());
    assert_eq!(open.ask(&purchase()).status, 201, "what was open goes on");
    drop(old);
}

#[test]
fn requests_over_tls_share_connections_and_records() {
    let authority = Authority::new();
    let backend = Backend::start(|request| {
        let body = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        let sum = request.sum_of_body(body);
        request.answer(&sum.to_string());
        After::KeepOpen
    });
    let edge = secure(&authority, json!({}))
        .ticket(json!({ "total": 100 }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .start();
    let mut connection = authority.connect(edge.address(), NAME);
    let sales = Request::get("/sales/ticket");
    let upload = Request::post("/upload").body("application/octet-stream", vec![1; 300_000]);
    let with_body = purchase().json(&json!({ "quantity": 2 }));
    let all = [&sales, &purchase(), &upload, &with_body, &Request::get("/x"), &sales];
    connection.send(&all.iter().flat_map(|request| request.bytes()).collect::<Vec<u8>>());
    let answers: Vec<Answer> = all.iter().map(|_| connection.answer()).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 201, 200, 201, 200, 200]);
    assert_eq!(answers[2].text(), "300000");
    assert_eq!(answers[5].json()["available"], 97);

    // Piece by piece, each in a record of its own.
    for piece in purchase().bytes().chunks(7) {
        connection.send(piece);
    }
    assert_eq!(connection.answer().status, 201);
    assert_eq!(connection.ask(&sales.clone().header("Connection", "close")).status, 200);
    connection.ends();
    let mut connection = authority.connect(edge.address(), NAME);
    connection.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000)).as_bytes());
    assert_eq!(connection.answer().status, 431);
}

#[test]
fn a_websocket_is_a_websocket_over_tls() {
    let authority = Authority::new();
    let backend = Backend::start(|request| {
        request.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
        let mut said = request.body(5);
        said.reverse();
        request.send(&said);
        After::Close
    });
    let edge =
        secure(&authority, json!({})).proxies_to(json!({ "servers": [{ "address": backend.address() }] })).start();
    let mut connection = authority.connect(edge.address(), NAME);
    let request = Request::get("/chat").header("Connection", "Upgrade").header("Upgrade", "websocket");
    assert_eq!(connection.ask(&request).status, 101);
    assert_eq!(connection.read_exactly(5), b"hello");
    connection.send(b"12345");
    assert_eq!(connection.read_exactly(5), b"54321");
}

#[test]
fn clients_that_do_not_complete_the_handshake_are_disconnected() {
    let authority = Authority::new();
    let edge = secure(&authority, json!({})).set("client", json!({ "read": "300ms" })).ticket(json!({})).start();
    let waits = |said: &[u8]| {
        let mut connection = Connection::to(edge.address());
        connection.send(said);
        let begun = Instant::now();
        assert!(connection.is_closed_by_peer(Duration::from_secs(15)));
        begun.elapsed()
    };
    assert!(waits(b"") >= Duration::from_millis(250));
    // The beginning of a ClientHello, of which 512 bytes are to come.
    assert!(waits(&[0x16, 3, 1, 2, 0, 1]) >= Duration::from_millis(250));
    // A client that takes it for plain HTTP is told in TLS that it is wrong.
    let heard = crate::harness::client::everything(edge.address(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(heard.first(), Some(&0x15), "an alert: {}", heard.escape_ascii());
    eventually("nobody is left", || (edge.metric("spikegate_connections", "") == 0).then_some(()));
}

#[test]
fn idle_connections_over_tls_cost_little() {
    const CONNECTIONS: usize = 400;
    let authority = Authority::new();
    let edge = secure(&authority, json!({})).ticket(json!({ "total": 1 })).start();
    let connect = |_| {
        let mut connection = authority.connect(edge.address(), NAME);
        assert_eq!(connection.ask(&Request::get("/sales/ticket")).status, 200);
        connection
    };
    let _warm: Vec<_> = (0..CONNECTIONS / 4).map(connect).collect();
    let before = edge.memory_kib();
    let _idle: Vec<_> = (0..CONNECTIONS).map(connect).collect();
    let each = (edge.memory_kib().saturating_sub(before)) as f64 / CONNECTIONS as f64;
    println!("an idle connection over TLS: {each:.1} KiB");
    assert!(each < 32.0, "{each:.1} KiB each");
}

#[test]
fn unfinished_handshakes_do_not_delay_the_end() {
    let authority = Authority::new();
    let mut edge = secure(&authority, json!({})).set("shutdown", json!({ "grace": "30s" })).ticket(json!({})).start();
    let _silent = TcpStream::connect(edge.address()).unwrap();
    let mut idle = authority.connect(edge.address(), NAME);
    assert_eq!(idle.ask(&Request::get("/sales/ticket")).status, 503, "there is no such sale in the ledger");
    eventually("both are there", || (edge.metric("spikegate_connections", "") == 2).then_some(()));
    edge.signal("TERM");
    // `wait` gives up before the grace of 30 s ends.
    let (status, _) = edge.wait();
    assert!(status.success(), "{status}");
    idle.ends();
}
