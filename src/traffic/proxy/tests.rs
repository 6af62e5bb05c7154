mod stand;

use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::config::{ClientTimeouts, HealthCheck, HostHeader, Probe, Route};
use stand::{PATIENCE, Stand, answering, backend, header, nobody, upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A backend that counts its requests.
fn counting(answer: &'static str) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let address = backend(move |mut connection| {
        while connection.head().is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
            connection.send(answer);
        }
    });
    (address, count)
}

fn loads(counts: &[Arc<AtomicUsize>]) -> Vec<usize> {
    counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

/// 1,000 requests from 20 clients, half of them with kept connections; all must succeed.
fn thousand(stand: &Stand) {
    std::thread::scope(|scope| {
        for n in 0..20 {
            scope.spawn(move || {
                let mut kept = stand.client();
                for _ in 0..50 {
                    let answer = if n % 2 == 0 {
                        stand.get("/")
                    } else {
                        kept.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
                        kept.answer()
                    };
                    assert_eq!(answer.status(), 200);
                }
            });
        }
    });
}

#[test]
fn four_backends_count_exactly_their_shares() {
    let (addresses, counts): (Vec<_>, Vec<_>) = (0..4).map(|_| counting(OK)).unzip();
    thousand(&Stand::new(upstream(&addresses)));
    assert_eq!(loads(&counts), [100, 200, 300, 400]);
}

#[test]
fn a_dead_backend_costs_no_request_and_leaves_the_others_their_shares() {
    let (mut addresses, counts): (Vec<_>, Vec<_>) = (0..3).map(|_| counting(OK)).unzip();
    addresses.push(nobody());
    thousand(&Stand::new(upstream(&addresses)));
    for (weight, count) in (1..).zip(loads(&counts)) {
        assert!((count as f64 - 1_000.0 * f64::from(weight) / 6.0).abs() < 1.0, "{:?}", loads(&counts));
    }
}

#[test]
fn a_refused_connection_is_no_reason_to_refuse_a_post() {
    let (address, count) = counting(OK);
    let stand = Stand::new(upstream(&[address, nobody()]));
    for _ in 0..3 {
        let answer = stand.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(loads(&[count]), [3]);
}

#[test]
fn only_what_may_be_sent_twice_is() {
    // Takes the request and hangs up.
    let rude = || {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let address = backend(move |mut connection| {
            connection.head();
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (address, count)
    };
    let ask = |method: &str| {
        let ((polite, polite_count), (rude, rude_count)) = (counting(OK), rude());
        // The heavier one is asked first.
        let stand = Stand::new(upstream(&[polite, rude]));
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody");
        let status = stand.ask(&request).status();
        (status, loads(&[rude_count, polite_count]))
    };
    assert_eq!(ask("GET"), (200, vec![1, 1]));
    assert_eq!(ask("PUT"), (200, vec![1, 1]));
    assert_eq!(ask("DELETE"), (200, vec![1, 1]));
    assert_eq!(ask("POST"), (502, vec![1, 0]));
    assert_eq!(ask("PATCH"), (502, vec![1, 0]));
}

#[test]
fn tries_are_bounded() {
    let mut settings = upstream(&[answering(OK), nobody(), nobody(), nobody()]);
    settings.tries = 2;
    settings.servers[0].weight = 1;
    assert_eq!(Stand::new(settings).get("/").status(), 502);
}

#[test]
fn failures_are_told_apart_and_leak_nothing() {
    let silent = backend(|mut connection| {
        connection.head();
        connection.head();
    });
    let babbling = answering("HELO there\r\n\r\n");
    for (address, status, body) in [
        (nobody(), 502, "502 Bad Gateway\n"),
        (babbling, 502, "502 Bad Gateway\n"),
        (silent, 504, "504 Gateway Timeout\n"),
    ] {
        let answer = Stand::new(upstream(&[address])).get("/");
        assert_eq!((answer.status(), answer.body.as_str()), (status, body));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.header("server"), None);
        assert!(answer.head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", answer.head);
    }
}

#[test]
fn a_head_request_gets_the_head_of_a_failure_only() {
    let stand = Stand::new(upstream(&[nobody()]));
    let mut client = stand.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head().expect("a head");
    assert_eq!(header(&head, "content-length"), Some("16"));
    assert_eq!(client.rest(), "");
}

#[test]
fn no_backend_is_503_until_the_checks_find_one() {
    let well = Arc::new(AtomicUsize::new(0));
    let is_well = well.clone();
    let address = backend(move |mut connection| {
        while let Some(head) = connection.head() {
            let checked = head.starts_with("GET /health HTTP/1.1\r\n") && header(&head, "host") == Some("load_rule");
            let down = checked && is_well.load(Ordering::Relaxed) == 0;
            connection.send(if down { "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n" } else { OK });
        }
    });
    let mut settings = upstream(&[address]);
    settings.health_check = Some(HealthCheck {
        probe: Probe::Http { path: "/health".to_owned() },
        interval: Duration::from_millis(20),
        timeout: PATIENCE,
        rise: 2,
        fall: 3,
    });
    let stand = Stand::new(settings);
    let becomes = |status| {
        let begin = Instant::now();
        while stand.get("/").status() != status {
            assert!(begin.elapsed() < PATIENCE, "never {status}");
        }
    };
    becomes(503);
    well.store(1, Ordering::Relaxed);
    becomes(200);
}

#[test]
fn a_check_without_an_answer_fails_in_time() {
    let silent = backend(|mut connection| drop(connection.rest()));
    let mut settings = upstream(&[silent, answering(OK)]);
    settings.health_check = Some(HealthCheck {
        probe: Probe::Http { path: "/".to_owned() },
        interval: Duration::from_millis(10),
        timeout: Duration::from_millis(50),
        rise: 1,
        fall: 1,
    });
    let stand = Stand::new(settings);
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    assert!((0..10).all(|_| stand.get("/").status() == 200));
    assert!(begin.elapsed() < Duration::from_secs(2), "nobody waited for the silent one");
}

#[test]
fn a_check_for_a_connection_finds_who_refuses() {
    let mut settings = upstream(&[answering(OK), nobody()]);
    settings.tries = 1;
    settings.servers[1].max_fails = 0;
    settings.health_check = Some(HealthCheck {
        probe: Probe::Tcp,
        interval: Duration::from_millis(10),
        timeout: PATIENCE,
        rise: 1,
        fall: 2,
    });
    let stand = Stand::new(settings);
    std::thread::sleep(Duration::from_millis(300));
    assert!((0..10).all(|_| stand.get("/").status() == 200));
}

#[test]
fn an_unknown_route_keeps_the_connection() {
    let stand = Stand::with(upstream(&[answering(OK)]), |config| {
        config.routes[0].path = "/shop".to_owned();
        config.routes[0].hosts = vec!["shop.example".to_owned()];
    });
    let mut client = stand.client();
    for (target, host, status) in [
        ("/other", "shop.example", 404),
        ("/shop/1", "elsewhere.example", 404),
        ("/shop/1", "SHOP.example:80", 200),
        ("/shopping", "shop.example", 404),
        ("/shop?a=/b", "shop.example", 200),
    ] {
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status(), status, "{target} {host}");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    client.send("GET /other HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.body.as_str(), answer.header("server")), ("404 Not Found\n", None));
}

#[test]
fn an_answer_is_not_lost_behind_an_unread_body() {
    let route = |path: &str, max_body| Route { path: path.to_owned(), max_body, ..Route::default() };
    let stand = Stand::with(upstream(&[nobody()]), |config| {
        config.routes = vec![route("/shop", None), route("/small", Some(1_000_000))];
    });
    for path in ["/other", "/shop", "/small"] {
        let mut client = stand.client();
        client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"));
        (0..30).for_each(|_| client.send(&"x".repeat(100_000)));
        let answer = client.answer();
        assert!(matches!(answer.status(), 404 | 413 | 502), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn http_1_0_is_understood() {
    // Chunks are not sent to a client that does not know them; the body ends with the connection.
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let open_ended = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world";
    for answer in [chunked, open_ended] {
        for keep in ["", "Connection: Keep-Alive\r\n"] {
            let answer = Stand::new(upstream(&[answering(answer)])).ask(&format!("GET / HTTP/1.0\r\n{keep}\r\n"));
            assert_eq!((answer.status(), answer.body.as_str()), (200, "hello world"), "{}", answer.head);
            assert_eq!(answer.header("transfer-encoding"), None);
            assert_eq!(answer.header("connection"), Some("close"));
        }
        let answer = Stand::new(upstream(&[answering(answer)])).get("/");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    }

    // A connection is kept if, and only if, the client asks.
    let stand = Stand::new(upstream(&[answering(OK)]));
    let mut client = stand.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let begin = Instant::now();
    let answer = client.rest();
    assert!(answer.contains("Connection: close\r\n") && answer.ends_with("ok"), "{answer}");
    assert!(begin.elapsed() < PATIENCE / 2);
    let mut client = stand.client();
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.body.as_str(), answer.header("connection")), ("ok", Some("keep-alive")));
    }
}

#[test]
fn a_backend_learns_who_asked_for_what() {
    let echo = || {
        backend(|mut connection| {
            let head = connection.head().expect("a request");
            connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()));
        })
    };
    let stand = Stand::new(upstream(&[echo()]));
    let seen = stand
        .ask("GET /a?b HTTP/1.1\r\nHost: shop.example\r\nX-Real-IP: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\r\n")
        .body;
    assert!(seen.starts_with("GET /a?b HTTP/1.1\r\n"), "{seen}");
    for (name, value) in [
        ("host", "load_rule"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example"),
    ] {
        assert_eq!(header(&seen, name), Some(value), "{name}");
    }
    // An HTTP/1.0 client without Host, and a target in absolute form.
    let seen = stand.ask("GET / HTTP/1.0\r\n\r\n").body;
    assert_eq!((header(&seen, "host"), header(&seen, "x-forwarded-host")), (Some("load_rule"), None));
    let seen = stand.ask("GET http://shop.example/a HTTP/1.1\r\nHost: shop.example\r\n\r\n").body;
    assert!(seen.starts_with("GET /a HTTP/1.1\r\n") && header(&seen, "host") == Some("load_rule"), "{seen}");

    let mut settings = upstream(&[echo()]);
    settings.host_header = HostHeader::Client;
    let seen = Stand::new(settings).get("/").body;
    assert_eq!(header(&seen, "host"), Some("shop.example"));
}

#[test]
fn a_websocket_passes_both_ways_and_may_be_silent() {
    let address = backend(|mut connection| {
        let head = connection.head().expect("a request");
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ");
        while let [byte] = connection.bytes(1)[..] {
            let text = char::from(byte.to_ascii_uppercase()).to_string();
            connection.send(&text);
        }
    });
    let mut settings = upstream(&[address]);
    settings.timeouts.read = PATIENCE;
    let stand = Stand::with(settings, |config| config.client.read = Duration::from_secs(1));
    let mut client = stand.client();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().expect("a head").starts_with("HTTP/1.1 101 "));
    assert_eq!(client.bytes(6), b"hello ");
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1_300));
        client.send("ping");
        assert_eq!(client.bytes(4), b"PING");
    }
    client.stream.shutdown(Shutdown::Write).expect("closed");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_client_may_wait_for_100_continue() {
    let address = backend(|mut connection| {
        let head = connection.head().expect("a request");
        assert_eq!(header(&head, "expect"), Some("100-continue"));
        connection.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(connection.bytes(4), b"body");
        connection.send(OK);
    });
    let stand = Stand::new(upstream(&[address]));
    let mut client = stand.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert!(client.head().expect("a head").starts_with("HTTP/1.1 100 Continue\r\n"));
    client.send("body");
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn bodies_stream_in_both_directions() {
    // Each side sends its next piece only when the other's has arrived.
    let address = backend(|mut connection| {
        connection.head().expect("a request");
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..5 {
            assert_eq!(connection.bytes(8), b"3\r\nabc\r\n");
            connection.send("3\r\nxyz\r\n");
        }
        assert_eq!(connection.bytes(5), b"0\r\n\r\n");
        connection.send("0\r\n\r\n");
    });
    let stand = Stand::new(upstream(&[address]));
    let mut client = stand.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for n in 0..5 {
        client.send("3\r\nabc\r\n");
        if n == 0 {
            assert!(client.head().expect("a head").starts_with("HTTP/1.1 200 OK\r\n"));
        }
        assert_eq!(client.bytes(8), b"3\r\nxyz\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.bytes(5), b"0\r\n\r\n");
}

#[test]
fn an_answer_that_breaks_off_is_not_made_to_look_whole() {
    let address = backend(|mut connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    });
    let (other, count) = counting(OK);
    let mut settings = upstream(&[other, address]);
    settings.servers[1].max_fails = 0;
    let answer = Stand::new(settings).get("/");
    assert_eq!((answer.status(), answer.body.as_str()), (200, "5\r\nhello\r\n"));
    assert_eq!(loads(&[count]), [0]);
}

#[test]
fn a_connection_that_the_backend_closed_while_idle_is_no_failure() {
    // Closes when the second request has come, as a backend does whose idle time is over at that very moment.
    let address = backend(|mut connection| {
        connection.head();
        connection.send(OK);
        connection.head();
    });
    let stand = Stand::new(upstream(&[address]));
    let mut client = stand.client();
    for _ in 0..4 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().status(), 200);
    }
    // It is for a POST, which may not be sent again.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().status(), 502);
}

#[test]
fn an_idle_client_is_sent_away_in_time() {
    let stand = Stand::with(upstream(&[answering(OK)]), |config| {
        config.client = ClientTimeouts { keepalive: Duration::from_millis(300), read: PATIENCE, send: PATIENCE };
    });
    let mut client = stand.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    let begin = Instant::now();
    assert_eq!(client.rest(), "");
    assert!(begin.elapsed() >= Duration::from_millis(290) && begin.elapsed() < PATIENCE / 2);
}

#[test]
fn a_client_that_stops_in_mid_body_is_told_so() {
    let address = backend(|mut connection| drop(connection.rest()));
    let mut settings = upstream(&[address]);
    settings.timeouts.read = PATIENCE;
    let stand = Stand::with(settings, |config| config.client.read = Duration::from_millis(200));
    let mut client = stand.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.answer().status(), 408);
    assert_eq!(stand.ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status(), 400);
}

#[test]
fn stopping_waits_for_requests_under_way_and_for_nothing_else() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let address = backend(move |mut connection| {
        while let Some(head) = connection.head() {
            if head.contains("/slow") {
                let _ = wait.lock().expect("one at a time").recv();
            }
            connection.send(OK);
        }
    });
    let mut settings = upstream(&[address]);
    settings.timeouts.read = PATIENCE;
    let mut stand = Stand::new(settings);
    let mut idle = stand.client();
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer().status(), 200);
    let mut busy = stand.client();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));

    let address = stand.address;
    let stopping = std::thread::spawn(move || {
        let begin = Instant::now();
        stand.finish(PATIENCE);
        begin.elapsed()
    });
    assert_eq!(idle.rest(), "");
    std::thread::sleep(Duration::from_millis(200));
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody is let in any more");
    go.send(()).expect("the backend waits");
    let answer = busy.answer();
    assert_eq!((answer.status(), answer.body.as_str()), (200, "ok"));
    let took = stopping.join().expect("stopped");
    assert!(took >= Duration::from_millis(200) && took < PATIENCE / 2, "{took:?}");
}

#[test]
fn stopping_does_not_wait_longer_than_it_may() {
    let address = backend(|mut connection| drop(connection.rest()));
    let mut settings = upstream(&[address]);
    settings.timeouts.read = PATIENCE;
    let mut stand = Stand::new(settings);
    let mut busy = stand.client();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    stand.finish(Duration::from_millis(300));
    assert!(begin.elapsed() < PATIENCE / 2);
    assert_eq!(busy.rest(), "");
}
