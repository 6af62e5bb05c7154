//! The redirect from HTTP to HTTPS.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::purchase::purchase;
use crate::harness::{Authority, Connection, Edge, Request};

const NAME: &str = "tickets.example";

/// An edge with TLS, and a listener that leads there with these settings.
fn edge(authority: &Authority, plain: SocketAddr, redirect: impl Fn(SocketAddr) -> Value) -> Edge {
    let secure = crate::harness::process::free_address();
    let tls = json!({ "certificates": [authority.certificate("tickets", &[NAME])] });
    let listener = json!({ "redirect_https": redirect(secure) });
    Edge::setup()
        .listener_at(secure, json!({ "tls": tls }))
        .listener_at(plain, listener)
        .ticket(json!({ "total": 9, "seed_dialect": true }))
        .start()
}

#[test]
fn a_purchase_is_redirected_to_https_and_made_once() {
    let authority = Authority::new();
    let plain = crate::harness::process::free_address();
    let edge = edge(&authority, plain, |secure| json!({ "code": 301, "port": secure.port() }));
    let config = std::fs::read_to_string(edge.folder().join("spikegate.yaml")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let secure: SocketAddr = config["listen"][1]["address"].as_str().unwrap().parse().unwrap();
    for (arguments, last) in [
        (&["-X", "POST"][..], "201"),
        (&["--data", "{\"quantity\":2}", "-H", "Content-Type: application/json"], "201"),
        (&["--data", "{}", "-H", "Content-Type: application/json", "-H", "Expect: 100-continue"], "201"),
        (&[], "200"),
    ] {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--location", "--cacert"])
            .arg(authority.file())
            .args(["--resolve", &format!("{NAME}:{}:127.0.0.1", plain.port())])
            .args(["--resolve", &format!("{NAME}:{}:127.0.0.1", secure.port())])
            .args(["--write-out", " %{num_redirects} %{response_code}"])
            .args(arguments)
            .arg(format!("http://{NAME}:{}/buy/ticket", plain.port()))
            .output()
            .expect("curl is installed");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.ends_with(&format!(" 1 {last}")), "{said} {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(edge.sold(), 5);
}

#[test]
fn a_redirected_request_is_not_executed() {
    let authority = Authority::new();
    let plain = crate::harness::process::free_address();
    let edge = edge(&authority, plain, |_| json!(true));
    let mut connection = Connection::to(plain);
    for request in [purchase(), Request::get("/buy/ticket"), Request::get("/sales/ticket"), Request::new("HEAD", "/x")]
    {
        let answer = connection.ask(&request);
        assert_eq!((answer.status, answer.body.len()), (308, 0), "{answer:?}");
        let location = answer.header("location").unwrap();
        assert!(location.starts_with("https://tickets.example/"), "{location}");
        assert!(!answer.closes(), "who is led away may ask again");
    }
    // What may have a body is read to its end behind the answer, and then the connection is over.
    for request in [
        Request::post("/buy/ticket").json(&json!({ "quantity": 1 })),
        Request::post("/buy/ticket").json(&json!({})).chunked(1),
    ] {
        let mut connection = Connection::to(plain);
        let answer = connection.ask(&request);
        assert_eq!((answer.status, answer.closes()), (308, true), "{answer:?}");
        assert_eq!(answer.header("location"), Some("https://tickets.example/buy/ticket"));
        connection.stream().shutdown(std::net::Shutdown::Write).unwrap();
        assert!(connection.is_closed_by_peer(std::time::Duration::from_secs(10)));
    }
    assert_eq!(Connection::to(plain).ask(&purchase().without("Host")).status, 400);
    assert_eq!(Connection::to(plain).ask(&Request::get("/").http10()).status, 400);
    assert_eq!(edge.sold(), 0);
}
