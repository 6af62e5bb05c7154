//! HTTP/2: the same answers, and bounds on streams, frames and resets.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Method, StatusCode, Version};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::harness::backend::After;
use crate::harness::edge::Setup;
use crate::harness::purchase::{count, order_ids, purchase};
use crate::harness::{Answer, Authority, Backend, Edge, Outcome, PATIENCE, eventually};

const NAME: &str = "tickets.example";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An edge that speaks HTTP/2 without TLS.
fn h2c() -> Setup {
    Edge::setup().listener(json!({ "h2c": true }))
}

/// A client and the task that drives its connection, whose result is the reason of its end.
type Client = (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>);

async fn client(address: SocketAddr) -> Client {
    let (send, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    (send, tokio::spawn(connection))
}

async fn secure_client(authority: &Authority, address: SocketAddr) -> Client {
    let connector = TlsConnector::from(authority.client(&[b"h2"]));
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    (send, tokio::spawn(connection))
}

fn request(method: Method, path: &str) -> http::Request<()> {
    let uri = format!("https://{NAME}{path}");
    http::Request::builder().version(Version::HTTP_2).method(method).uri(uri).body(()).unwrap()
}

async fn whole(mut body: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        let _ = body.flow_control().release_capacity(part.len());
        all.extend_from_slice(&part);
    }
    all
}

/// One request without a body, and its answer as HTTP/1 would have it.
async fn ask(send: &SendRequest<Bytes>, request: http::Request<()>) -> Result<Answer, h2::Error> {
    let mut send = send.clone().ready().await?;
    let (answer, _) = send.send_request(request, true)?;
    let (head, body) = answer.await?.into_parts();
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Ok(Answer { version: "HTTP/2".to_owned(), status: head.status.as_u16(), headers, body: whole(body).await })
}

#[test]
fn one_listener_without_tls_speaks_both() {
    let backend = Backend::named("backend");
    let edge = h2c()
        .ticket(json!({ "total": 3 }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .start();
    let curl = |arguments: &[&str], path: &str| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--write-out", " %{http_version} %{response_code}"])
            .args(arguments)
            .arg(format!("http://{}{path}", edge.address()))
            .output()
            .expect("curl is installed");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    // `--http2` asks for an upgrade in HTTP/1.1, which RFC 9113 has given up.
    for (version, shown) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1"), ("--http2", "1.1")] {
        let bought = curl(&[version, "-X", "POST"], "/buy/ticket");
        assert!(bought.contains("\"state\":\"HELD\"") && bought.ends_with(&format!(" {shown} 201")), "{bought}");
        assert!(curl(&[version], "/").ends_with(&format!(" {shown} 200")));
    }
    assert_eq!(edge.ask(&purchase()).status, 409);

    let plain = Edge::setup().ticket(json!({})).start();
    let heard = crate::harness::client::everything(plain.address(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(heard.starts_with(b"HTTP/1.1 400"), "not where it is not asked for: {}", heard.escape_ascii());
}

#[test]
fn backends_get_http_1_and_everything_that_was_said() {
    let backend = Backend::start(|request| {
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        let sum = request.sum_of_body(length);
        let mut told = format!("{} {sum}\n", request.line);
        request.headers.iter().for_each(|(name, value)| told.push_str(&format!("{}: {value}\n", name.to_lowercase())));
        told.push_str(&"x".repeat(length));
        request.answer(&told);
        After::KeepOpen
    });
    let group = || json!({ "servers": [{ "address": backend.address() }] });
    let edge =
        h2c().upstream("shop", group()).route(json!({ "hosts": [NAME], "path": "/", "upstream": "shop" })).start();
    runtime().block_on(async {
        let (send, _driver) = client(edge.address()).await;
        let mut cookies = request(Method::GET, "/a?b=c");
        for part in ["a=1", "b=2"] {
            cookies.headers_mut().append("cookie", part.parse().unwrap());
        }
        let told = ask(&send, cookies).await.unwrap();
        for line in [
            "GET /a?b=c HTTP/1.1 0",
            "host: shop",
            "cookie: a=1; b=2",
            "x-forwarded-host: tickets.example",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
        ] {
            assert!(told.text().lines().any(|told| told == line), "{line} in {}", told.text());
        }
        let mut other = request(Method::GET, "/");
        *other.uri_mut() = "https://other.example/".parse().unwrap();
        assert_eq!(ask(&send, other).await.unwrap().status, 404, "the host decides");

        // More than any window, in both directions.
        let length = 1_000_000;
        let mut upload = request(Method::POST, "/upload");
        upload.headers_mut().insert("content-length", length.into());
        let (answer, mut body) = send.clone().send_request(upload, false).unwrap();
        let mut left = length;
        while left > 0 {
            body.reserve_capacity(left);
            let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
            body.send_data(Bytes::from(vec![1; room]), room == left).unwrap();
            left -= room;
        }
        let told = whole(answer.await.unwrap().into_body()).await;
        assert!(told.starts_with(b"POST /upload HTTP/1.1 1000000\n") && told.ends_with(&vec![b'x'; length]));
    });
}

#[test]
fn everything_is_sold_once_over_every_protocol() {
    const STOCK: usize = 300;
    const CLIENTS: usize = 40;
    const EACH: usize = 40;
    let authority = Authority::new();
    let tls = json!({ "certificates": [authority.certificate("tickets", &[NAME])] });
    let plain = crate::harness::process::free_address();
    let edge = Edge::setup()
        .listener(json!({ "tls": tls }))
        .listener_at(plain, json!({ "h2c": true }))
        .ticket(json!({ "total": STOCK, "deadline": "30s" }))
        .start();
    let address = edge.address();
    let authority = &authority;
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let crowds: Vec<_> = (0..CLIENTS)
            .map(|client_number| {
                scope.spawn(move || match client_number % 4 {
                    0 => {
                        let mut connection = authority.connect(address, NAME);
                        (0..EACH).map(|_| connection.ask(&purchase())).collect::<Vec<_>>()
                    }
                    1 => {
                        let mut connection = crate::harness::Connection::to(plain);
                        (0..EACH).map(|_| connection.ask(&purchase())).collect()
                    }
                    kind => runtime().block_on(async {
                        let (send, _driver) =
                            if kind == 2 { secure_client(authority, address).await } else { client(plain).await };
                        // All at once, each on a stream of its own.
                        let all: Vec<_> = (0..EACH)
                            .map(|_| {
                                let send = send.clone();
                                tokio::spawn(async move { ask(&send, request(Method::POST, "/buy/ticket")).await })
                            })
                            .collect();
                        let mut answers = Vec::new();
                        for answer in all {
                            answers.push(answer.await.unwrap().unwrap());
                        }
                        answers
                    }),
                })
            })
            .collect();
        crowds.into_iter().flat_map(|crowd| crowd.join().unwrap()).collect()
    });
    let outcomes: Vec<Outcome> = answers.iter().map(Outcome::of).collect();
    assert_eq!(order_ids(&outcomes).len(), STOCK);
    assert_eq!(count(&outcomes, "sold-out"), CLIENTS * EACH - STOCK);
    assert_eq!(edge.sold(), STOCK as u64);
}

#[test]
fn limits_hold_on_every_stream() {
    let limits = json!({ "requests_per_second": 1, "burst": 5 });
    let edge = h2c().set("limits", limits).ticket(json!({ "total": 100 })).start();
    runtime().block_on(async {
        let (send, driver) = client(edge.address()).await;
        let mut statuses = Vec::new();
        for _ in 0..10 {
            statuses.push(ask(&send, request(Method::POST, "/buy/ticket")).await.unwrap().status);
        }
        assert!(statuses.iter().filter(|status| **status == 201).count() >= 5, "{statuses:?}");
        assert!(statuses.iter().filter(|status| **status == 429).count() >= 3, "{statuses:?}");
        assert_eq!(send.current_max_send_streams(), 128);

        // Longer than a head of HTTP/1 may be.
        let mut long = request(Method::GET, "/sales/ticket");
        for n in 0..40 {
            long.headers_mut().append("x-long", format!("{n}{}", "x".repeat(1000)).parse().unwrap());
        }
        let refused = ask(&send, long).await;
        let status = refused.as_ref().map(|answer| answer.status);
        assert!(matches!(status, Ok(431) | Err(_)), "{refused:?}");
        drop((send, driver));
    });
}

/// A backend that waits for the rest of a request is not to blame, and goes on being asked.
#[test]
fn a_client_that_does_not_send_its_body_gets_408_and_harms_no_backend() {
    let backend = Backend::start(|request| {
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        if request.body(length).len() < length {
            return After::Close;
        }
        request.answer("backend");
        After::KeepOpen
    });
    let server = json!({ "address": backend.address(), "max_fails": 1, "fail_timeout": "1h" });
    let edge = h2c().proxies_to(json!({ "servers": [server], "timeouts": { "read": "300ms" } })).start();
    runtime().block_on(async {
        let (send, _driver) = client(edge.address()).await;
        let mut upload = request(Method::POST, "/");
        upload.headers_mut().insert("content-length", 10.into());
        let (answer, _body) = send.clone().send_request(upload, false).unwrap();
        let answer = timeout(PATIENCE, answer).await.expect("in time").unwrap();
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(ask(&send, request(Method::GET, "/")).await.unwrap().text(), "backend");
    });
    assert_eq!(edge.metric("spikegate_upstream_failures_total", ""), 0);
}

/// Streams that are opened and reset at once (CVE-2023-44487): however many there are, the backend gets few of them,
/// and others are served meanwhile.
#[test]
fn rapid_resets_end_the_connection_and_trouble_nobody() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let backend = Backend::start(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        let _ = request.rest_of_connection();
        After::Close
    });
    let edge = h2c()
        .ticket(json!({ "total": 9 }))
        .upstream("slow", json!({ "servers": [{ "address": backend.address() }], "timeouts": { "read": "30s" } }))
        .route(json!({ "path": "/slow", "upstream": "slow" }))
        .start();
    runtime().block_on(async {
        let (send, driver) = client(edge.address()).await;
        let flood = async {
            for _ in 0..100_000 {
                let mut send = send.clone().ready().await?;
                let (_, mut stream) = send.send_request(request(Method::GET, "/slow"), true)?;
                stream.send_reset(Reason::CANCEL);
                tokio::task::yield_now().await;
            }
            Ok::<(), h2::Error>(())
        };
        let refused = timeout(PATIENCE, flood).await.expect("in time").expect_err("nobody may go on like that");
        let reason = driver.await.unwrap().err().and_then(|error| error.reason());
        println!("{refused}; {reason:?}; the backend was asked {} times", asked.load(Ordering::Relaxed));
        // Whoever still sends when the connection ends gets a reset, which may overtake the reason.
        assert!(reason.is_none_or(|reason| reason == Reason::ENHANCE_YOUR_CALM), "{reason:?}");
    });
    assert!(asked.load(Ordering::Relaxed) <= 1000, "{}", asked.load(Ordering::Relaxed));
    assert_eq!(edge.ask(&purchase()).status, 201);
}

/// PING, SETTINGS and unknown frames, each of which costs the edge work.
#[test]
fn frames_that_bring_nothing_end_the_connection() {
    let edge = h2c().ticket(json!({ "total": 9 })).start();
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat();
    for frame in [&ping[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 0, 0xee, 0, 0, 0, 0, 0]] {
        let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 0, 0, 4, 0, 0, 0, 0, 0][..]].concat();
        let few = [&begin[..], &frame.repeat(500)].concat();
        let mut connection = crate::harness::Connection::to(edge.address());
        connection.send(&few);
        assert!(connection.try_send(&ping).is_ok());
        let all = [&begin[..], &frame.repeat(2_000)].concat();
        let heard = crate::harness::client::everything(edge.address(), &all);
        assert!(heard.len() < 17 * 1_100, "{} bytes of answers to {:?}", heard.len(), &frame[..4]);
    }
    assert_eq!(edge.ask(&purchase()).status, 201);
}

#[test]
fn silent_clients_are_disconnected() {
    let edge =
        h2c().set("client", json!({ "read": "300ms", "keepalive": "600ms" })).ticket(json!({ "total": 9 })).start();
    let address = edge.address();
    runtime().block_on(async {
        for said in [&b""[..], b"PRI * HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said).await.unwrap();
            let mut heard = Vec::new();
            // Closed with or without a word.
            let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("in time");
        }
        let (send, driver) = client(address).await;
        assert_eq!(ask(&send, request(Method::POST, "/buy/ticket")).await.unwrap().status, 201);
        // A connection with nothing under way is closed after the time for keeping it.
        let _ = timeout(PATIENCE, driver).await.expect("in time");
    });
    eventually("nobody is left", || (edge.metric("spikegate_connections", "") == 0).then_some(()));
}

#[test]
fn what_is_under_way_is_finished_when_the_edge_stops() {
    let backend = Backend::start(|request| {
        std::thread::sleep(Duration::from_millis(700));
        request.answer("slow and whole");
        After::KeepOpen
    });
    let mut edge = h2c()
        .set("shutdown", json!({ "grace": "30s" }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .start();
    runtime().block_on(async {
        let (send, driver) = client(edge.address()).await;
        let (_idle, idle_driver) = client(edge.address()).await;
        let under_way = tokio::spawn({
            let send = send.clone();
            async move { ask(&send, request(Method::GET, "/")).await }
        });
        eventually("it is at the backend", || {
            (edge.metric("spikegate_upstream_requests_total", "") == 1).then_some(())
        });
        edge.signal("TERM");
        let answer = under_way.await.unwrap().expect("it is finished");
        assert_eq!((answer.status, answer.text()), (200, "slow and whole"));
        for driver in [driver, idle_driver] {
            timeout(PATIENCE, driver).await.expect("in time").unwrap().expect("GOAWAY without a fault");
        }
        assert!(ask(&send, request(Method::GET, "/")).await.is_err(), "no more are taken");
    });
    // `wait` gives up before the grace of 30 s ends.
    let (status, _) = edge.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn requests_that_could_be_two_are_none() {
    let backend = Backend::named("backend");
    let edge = h2c().proxies_to(json!({ "servers": [{ "address": backend.address() }] })).start();
    runtime().block_on(async {
        let (send, _driver) = client(edge.address()).await;
        let with = |name: &'static str, value: &'static str| {
            let mut request = request(Method::GET, "/");
            request.headers_mut().insert(name, value.parse().unwrap());
            request
        };
        let status = async |request| ask(&send, request).await.map(|answer| answer.status);
        assert_eq!(status(with("host", NAME)).await.unwrap(), 200);
        assert_eq!(status(with("host", "other.example")).await.unwrap(), 400);
        assert!(status(with("content-length", "1, 2")).await.is_err());
        let mut connect = request(Method::CONNECT, "/");
        *connect.uri_mut() = "backend:80".parse().unwrap();
        assert_eq!(status(connect).await.unwrap(), StatusCode::METHOD_NOT_ALLOWED.as_u16());
        assert_eq!(status(request(Method::GET, "/")).await.unwrap(), 200, "and the connection goes on");
    });
}
