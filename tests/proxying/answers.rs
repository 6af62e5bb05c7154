//! What a route does to an answer: compression, headers, an error page of the operator; and answers from files.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::backend::After;
use crate::harness::edge::Setup;
use crate::harness::process::free_address;
use crate::harness::{Answer, Backend, Edge, Request};

/// An edge in front of `backend`, with these settings besides.
fn edge(backend: &Backend, settings: &[(&str, Value)]) -> Edge {
    let setup = Edge::setup().proxies_to(json!({ "servers": [{ "address": backend.address() }] }));
    settings.iter().fold(setup, |setup, (name, value)| setup.set(name, value.clone())).start()
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// What curl gets of a target, and the coding that it came in.
fn curl(edge: &Edge, target: &str, accept: &str) -> (Vec<u8>, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--compressed", "--dump-header", "/dev/stderr"])
        .args(["--header", &format!("Accept-Encoding: {accept}")])
        .arg(format!("http://{}{target}", edge.address()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap().to_lowercase();
    assert!(output.status.success(), "{said}");
    let coding = said.lines().find_map(|line| line.strip_prefix("content-encoding: ")).unwrap_or("none");
    (output.stdout, coding.to_owned())
}

#[test]
fn answers_are_compressed_as_the_client_likes_it_and_are_the_same() {
    // In many pieces, some of them tiny, and of unknown length for every other request.
    let text: Vec<u8> = (0..40_000_u32).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
    let sent = text.clone();
    let backend = Backend::start(move |request| {
        let kind = if request.line.contains("/picture") { "image/png" } else { "text/plain" };
        let begin = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nETag: \"a\"\r\n");
        if request.line.contains("/chunked") {
            request.send(format!("{begin}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
            for piece in sent.chunks(7_777) {
                request.send(format!("{:x}\r\n", piece.len()).as_bytes());
                request.send(piece);
                request.send(b"\r\n");
            }
            request.send(b"0\r\n\r\n");
        } else if request.line.contains("/small") {
            request.send(format!("{begin}Content-Length: 5\r\n\r\nsmall").as_bytes());
        } else {
            request.send(format!("{begin}Content-Length: {}\r\n\r\n", sent.len()).as_bytes());
            sent.chunks(33_333).for_each(|piece| request.send(piece));
        }
        After::KeepOpen
    });
    let edge = edge(&backend, &[("compression", json!({ "min_length": "100B" }))]);
    for target in ["/whole", "/chunked"] {
        for (accept, coding) in
            [("gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), ("gzip, br, zstd", "zstd"), ("", "none")]
        {
            let (got, by) = curl(&edge, target, accept);
            assert_eq!(by, coding, "{target} {accept:?}");
            assert!(got == text, "{target} {accept:?}: {} bytes of {}", got.len(), text.len());
        }
    }
    assert_eq!(curl(&edge, "/picture", "gzip").1, "none");
    assert_eq!(curl(&edge, "/small", "gzip").1, "none");

    // All on one connection, so that every answer ends where it says.
    let mut connection = edge.connect();
    let asks = |target: &str| Request::get(target).header("Accept-Encoding", "gzip");
    for _ in 0..3 {
        let answer = connection.ask(&asks("/whole"));
        assert_eq!((answer.header("etag"), answer.header("vary")), (Some("W/\"a\""), Some("Accept-Encoding")));
        assert!(answer.body.len() * 3 < text.len(), "{} bytes of {}", answer.body.len(), text.len());
        let plain = connection.ask(&Request::get("/chunked"));
        assert_eq!((plain.header("etag"), plain.header("vary")), (Some("\"a\""), Some("Accept-Encoding")));
        assert!(plain.body == text);
    }
    let old = edge.ask(&asks("/chunked").http10());
    assert_eq!((old.header("content-encoding"), old.body == text), (None, true), "HTTP/1.0 gets it plain");
}

#[test]
fn an_answer_that_breaks_off_is_not_made_whole_by_its_compression() {
    let backend = Backend::start(|request| {
        request.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n");
        request.send(&[b'a'; 50_000]);
        After::Close
    });
    let edge = edge(&backend, &[("compression", json!({}))]);
    let mut connection = edge.connect();
    connection.send(&Request::get("/").header("Accept-Encoding", "gzip").bytes());
    let error = connection.try_answer().expect_err("half of an answer");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn headers_and_paths_are_changed_as_a_route_says() {
    let backend = Backend::start(|request| {
        let has = |name: &str| {
            let value = request.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
            value.map_or("none".to_owned(), |(_, value)| value.clone())
        };
        let seen = [has("x-api"), has("cookie"), has("x-forwarded-prefix")].join(" ");
        let body = format!("{} {seen}", request.line);
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: backend/1.2\r\nX-Frame-Options: ALLOW\r\nContent-Length: {}",
            body.len()
        );
        request.send(format!("{head}\r\n\r\n{body}").as_bytes());
        After::KeepOpen
    });
    let edge = Edge::setup()
        .route(json!({
            "path": "/api", "upstream": "load_rule", "rewrite": "/v2",
            "request_headers": { "set": { "X-Api": "yes" }, "remove": ["Cookie"] },
            "response_headers": { "set": { "X-Frame-Options": "DENY" }, "remove": ["Server"] },
        }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .start();
    let mut connection = edge.connect();
    let forged = Request::get("/api/a?b=c").header("Cookie", "a=b").header("X-Api", "forged");
    let answer = connection.ask(&forged);
    assert_eq!(answer.text(), "GET /v2/a?b=c HTTP/1.1 yes none /api");
    assert_eq!((answer.header("server"), answer.header("x-frame-options")), (None, Some("DENY")));
    let answer = connection.ask(&Request::get("/other").header("Cookie", "a=b"));
    assert_eq!(answer.text(), "GET /other HTTP/1.1 none a=b none");
    assert_eq!((answer.header("server"), answer.header("x-frame-options")), (Some("backend/1.2"), Some("ALLOW")));
}

#[test]
fn a_page_says_what_went_wrong() {
    let folder = TempDir::with_prefix("spikegate-pages-").unwrap();
    write(folder.path(), "sorry.html", "<h1>Sorry</h1>");
    write(folder.path(), "gone.json", "{\"gone\":true}");
    let backend = Backend::start(|request| {
        let status = if request.line.contains("/gone") { "404 Not Found" } else { "503 Service Unavailable" };
        request.send(format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nown").as_bytes());
        After::KeepOpen
    });
    let edge = Edge::setup()
        .upstream("nobody", json!({ "servers": [{ "address": free_address() }] }))
        .route(json!({
            "path": "/nobody", "upstream": "nobody", "response_headers": { "set": { "X-Route": "nobody" } },
        }))
        .proxies_to(json!({ "servers": [{ "address": backend.address() }] }))
        .set(
            "error_pages",
            json!([
                { "status": [404], "file": folder.path().join("gone.json"), "intercept": true },
                { "status": [502, 503], "file": folder.path().join("sorry.html") },
            ]),
        )
        .start();
    let told = |answer: &Answer| {
        (answer.status, answer.header("content-type").unwrap_or("none").to_owned(), answer.text().to_owned())
    };
    let nobody = edge.ask(&Request::get("/nobody"));
    assert_eq!(told(&nobody), (502, "text/html; charset=utf-8".into(), "<h1>Sorry</h1>".into()));
    assert_eq!(nobody.header("x-route"), Some("nobody"));
    assert_eq!(told(&edge.ask(&Request::get("/gone"))), (404, "application/json".into(), "{\"gone\":true}".into()));
    assert_eq!(told(&edge.ask(&Request::get("/"))), (503, "none".into(), "own".into()), "the backend's own page stays");
    // A backend that answers is well, whatever it answers.
    for _ in 0..5 {
        assert_eq!(edge.ask(&Request::get("/gone")).status, 404);
    }
    assert_eq!(edge.ask(&Request::get("/")).status, 503);
}

fn site() -> (TempDir, Setup) {
    let folder = TempDir::with_prefix("spikegate-site-").unwrap();
    write(folder.path(), "secret.txt", "secret");
    let root = folder.path().join("site");
    write(&root, "index.html", "<h1>Home</h1>");
    write(&root, "docs/index.html", "<h1>Docs</h1>");
    write(&root, "style.css", "body {}\n".repeat(20_000));
    write(&root, "empty.txt", "");
    write(&root, "maintenance.html", "<h1>Back soon</h1>");
    write(&root, ".git/config", "secret");
    symlink("../secret.txt", root.join("way-out.txt")).unwrap();
    symlink("index.html", root.join("home.html")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let route = |settings: Value| {
        let mut route = json!({ "files": { "root": root } });
        route.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        route
    };
    let setup = Edge::setup()
        .route(route(json!({ "path": "/site", "rewrite": "/" })))
        .route(route(json!({ "path": "/", "files": {
            "root": root, "fallback": { "file": "maintenance.html", "status": 503, "retry_after": "2m" },
        } })))
        .set("compression", json!({}));
    (folder, setup)
}

#[test]
fn files_are_served_and_nothing_outside_of_their_folder() {
    let (_folder, setup) = site();
    let edge = setup.start();
    let mut connection = edge.connect();
    for (path, kind, body) in [
        ("/site/", "text/html; charset=utf-8", "<h1>Home</h1>"),
        ("/site/home.html", "text/html; charset=utf-8", "<h1>Home</h1>"),
        ("/site/docs/?a=b", "text/html; charset=utf-8", "<h1>Docs</h1>"),
        ("/site/%69ndex.html", "text/html; charset=utf-8", "<h1>Home</h1>"),
        ("/site/empty.txt", "text/plain; charset=utf-8", ""),
    ] {
        let answer = connection.ask(&Request::get(path));
        assert_eq!((answer.status, answer.header("content-type"), answer.text()), (200, Some(kind), body), "{path}");
    }
    let folder = connection.ask(&Request::get("/site/docs"));
    assert_eq!((folder.status, folder.header("location")), (301, Some("/site/docs/")));
    for path in [
        "/site/none.html",
        "/site/../secret.txt",
        "/site/%2e%2e/secret.txt",
        "/site/..%2fsecret.txt",
        "/site/way-out.txt",
        "/site/.git/config",
        "/site/loop",
        "/site//etc/passwd",
        "/site/style.css/",
        "/site/index.html%00.css",
        "/site/%ff",
    ] {
        let answer = connection.ask(&Request::get(path));
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("secret"), "{path}");
    }
    let posted = connection.ask(&Request::post("/site/"));
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));

    // Large ones whole, to whoever wants them compressed, too.
    let large = "body {}\n".repeat(20_000);
    assert!(connection.ask(&Request::get("/site/style.css")).text() == large);
    let (got, coding) = curl(&edge, "/site/style.css", "br");
    assert_eq!((got.len(), coding.as_str()), (large.len(), "br"));
    let head = connection.ask(&Request::new("HEAD", "/site/style.css"));
    assert_eq!((head.status, head.header("content-length")), (200, Some(large.len().to_string().as_str())));

    // Who has it is told so.
    let first = connection.ask(&Request::get("/site/"));
    let (tag, date) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    for (name, value) in [("If-None-Match", tag), ("If-None-Match", "*"), ("If-Modified-Since", date)] {
        assert_eq!(connection.ask(&Request::get("/site/").header(name, value)).status, 304, "{name}");
    }
    let other = Request::get("/site/").header("If-None-Match", "\"other\"").header("If-Modified-Since", date);
    assert_eq!(connection.ask(&other).status, 200);
}

#[test]
fn a_page_tells_of_a_maintenance_and_tickets_are_sold_meanwhile() {
    let (_folder, setup) = site();
    let edge = setup.ticket(json!({ "total": 1 })).start();
    for path in ["/cart", "/cart/", "/way-out.txt", "/../secret.txt"] {
        let answer = edge.ask(&Request::get(path).header("If-None-Match", "*"));
        assert_eq!((answer.status, answer.text()), (503, "<h1>Back soon</h1>"), "{path}");
        assert_eq!((answer.header("retry-after"), answer.header("cache-control")), (Some("120"), Some("no-store")));
    }
    assert_eq!(edge.ask(&Request::get("/style.css")).status, 200, "what the page needs is there");
    assert_eq!(edge.ask(&crate::harness::purchase::purchase()).status, 201);
}
