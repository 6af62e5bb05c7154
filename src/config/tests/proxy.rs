//! Every value of `upstreams` and `routes` that is refused.

use super::*;

const UPSTREAM: &str = "{sales: {t: }, upstreams: {u: {servers: [{address: '127.0.0.1:3001'}], HERE}}}";
const SERVER: &str = "{sales: {t: }, upstreams: {u: {servers: [{address: '127.0.0.1:3001'}, {HERE}]}}}";
const HEALTH_CHECK: &str =
    "{sales: {t: }, upstreams: {u: {servers: [{address: '127.0.0.1:3001'}], health_check: {HERE}}}}";
const ROUTE: &str = "{upstreams: {shop: {servers: [{address: '127.0.0.1:3001'}]}}, routes: [{HERE}]}";

#[test]
fn upstreams() {
    each(
        TOP,
        &[
            ("upstreams: [u]", "upstreams: must be a mapping of names to settings, is a list"),
            ("upstreams: {u: [a]}", "upstreams.u: must be a mapping of keys to values, is a list"),
            ("upstreams: {1: }", "upstreams: has a key that is not text but 1; put it in quotes"),
            ("upstreams: {u: {}}", "upstreams.u.servers: must have at least one entry"),
            ("upstreams: {u: {servers: []}}", "upstreams.u.servers: must have at least one entry"),
            ("upstreams: {u: {servers: a}}", "upstreams.u.servers: must be a list, is \"a\""),
            (
                "upstreams: {a b: {servers: [{address: '127.0.0.1:1'}]}}",
                "upstreams.a b: a name must be letters, digits, - and _, with . between them, because backends receive it as Host",
            ),
        ],
    );
    each(
        UPSTREAM,
        &[
            (
                "balance: wieghted",
                "upstreams.u.balance: must be one of weighted, round_robin, least_conn, random_two, ip_hash, hash, is \"wieghted\"; did you mean `weighted`?",
            ),
            (
                "balance: 1",
                "upstreams.u.balance: must be one of weighted, round_robin, least_conn, random_two, ip_hash, hash, is 1",
            ),
            ("resolve: 50ms", "upstreams.u.resolve: must be 100ms to 1d, is \"50ms\""),
            ("resolver: []", "upstreams.u.resolver: must have at least one entry"),
            (
                "resolver: [dns.local]",
                "upstreams.u.resolver[0]: must be an IP address, with or without a port, such as 10.0.0.2 or 127.0.0.1:5353, is \"dns.local\"",
            ),
            ("unresolved: skip", "upstreams.u.unresolved: must be one of error, wait, is \"skip\""),
            ("balance: hash", "upstreams.u.hash: is missing: balance hash needs { key: ... }"),
            ("balance: hash, hash: {}", "upstreams.u.hash.key: is missing"),
            ("hash: {key: uri}", "upstreams.u.hash: applies only to balance: hash"),
            ("balance: least_conn, hash: {key: uri}", "upstreams.u.hash: applies only to balance: hash"),
            (
                "balance: hash, hash: {key: header}",
                "upstreams.u.hash.key: must be client_address, uri, path, query:NAME, header:NAME or cookie:NAME, is \"header\"",
            ),
            (
                "balance: hash, hash: {key: 'cookie:a b'}",
                "upstreams.u.hash.key: must be client_address, uri, path, query:NAME, header:NAME or cookie:NAME, is \"cookie:a b\"",
            ),
            (
                "host_header: $host",
                "upstreams.u.host_header: must be upstream, client, or a host such as www.example.com, is \"$host\"",
            ),
            (
                "host_header: ",
                "upstreams.u.host_header: must be upstream, client, or a host such as www.example.com, is empty",
            ),
            ("timeouts: 5s", "upstreams.u.timeouts: must be a mapping of keys to values, is \"5s\""),
            ("timeouts: {connect: 0s}", "upstreams.u.timeouts.connect: must be 1ms to 7d, is \"0s\""),
            ("timeouts: {read: 8d}", "upstreams.u.timeouts.read: must be 1ms to 7d, is \"8d\""),
            ("timeouts: {send: 8d}", "upstreams.u.timeouts.send: must be 1ms to 7d, is \"8d\""),
            ("timeouts: {idle: 8d}", "upstreams.u.timeouts.idle: must be 1ms to 7d, is \"8d\""),
            ("tries: 0", "upstreams.u.tries: must be 1 to 16, is 0"),
            ("tries: 17", "upstreams.u.tries: must be 1 to 16, is 17"),
        ],
    );
    each(
        HEALTH_CHECK,
        &[
            ("", "upstreams.u.health_check.type: is missing"),
            ("type: ping", "upstreams.u.health_check.type: must be one of tcp, http, is \"ping\""),
            ("type: http", "upstreams.u.health_check.path: is missing"),
            (
                "type: http, path: healthz",
                "upstreams.u.health_check.path: must be a path such as /healthz or /healthz?full=1, is \"healthz\"",
            ),
            (
                "type: http, path: '/a?b c'",
                "upstreams.u.health_check.path: must be a path such as /healthz or /healthz?full=1, is \"/a?b c\"",
            ),
            (
                "type: tcp, path: /a",
                "upstreams.u.health_check.path: applies only to type: http; a tcp check sends no request",
            ),
            ("type: tcp, interval: 99ms", "upstreams.u.health_check.interval: must be 100ms to 1h, is \"99ms\""),
            ("type: tcp, timeout: 2m", "upstreams.u.health_check.timeout: must be 1ms to 1m, is \"2m\""),
            ("type: tcp, rise: 0", "upstreams.u.health_check.rise: must be 1 to 100, is 0"),
            ("type: tcp, fall: 101", "upstreams.u.health_check.fall: must be 1 to 100, is 101"),
        ],
    );
}

#[test]
fn servers() {
    let must = "must be a host and a port, such as 127.0.0.1:3001, \"[::1]:3001\" or backend.local:3001";
    for address in
        ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:80", ":80", "a b:80", "http://a:80", "a:+80", "a:"]
    {
        check(
            &SERVER.replace("HERE", &format!("address: '{address}'")),
            &[&format!("upstreams.u.servers[1].address: {must}, is {address:?}")],
        );
    }
    each(
        SERVER,
        &[
            ("", "upstreams.u.servers[1].address: is missing"),
            ("address: '127.0.0.1:2', weight: 0", "upstreams.u.servers[1].weight: must be 1 to 65535, is 0"),
            ("address: '127.0.0.1:2', weight: 65536", "upstreams.u.servers[1].weight: must be 1 to 65535, is 65536"),
            ("address: '127.0.0.1:2', weight: '1'", "upstreams.u.servers[1].weight: must be 1 to 65535, is \"1\""),
            ("address: '127.0.0.1:2', max_fails: -1", "upstreams.u.servers[1].max_fails: must be 0 to 1000, is -1"),
            (
                "address: '127.0.0.1:2', fail_timeout: 2h",
                "upstreams.u.servers[1].fail_timeout: must be 10ms to 1h, is \"2h\"",
            ),
            (
                "address: '127.0.0.1:2', max_conns: 1000001",
                "upstreams.u.servers[1].max_conns: must be 0 to 1000000, is 1000001",
            ),
            (
                "address: '127.0.0.1:2', slow_start: 2h",
                "upstreams.u.servers[1].slow_start: must be 0s to 1h, is \"2h\"",
            ),
            ("address: '127.0.0.1:2', backup: 1", "upstreams.u.servers[1].backup: must be true or false, is 1"),
            ("address: '127.0.0.1:2', down: 'no'", "upstreams.u.servers[1].down: must be true or false, is \"no\""),
            (
                "address: '127.0.0.1:3001'",
                "upstreams.u.servers: 127.0.0.1:3001 is listed twice; raise its weight instead",
            ),
            ("address: '127.0.0.1:80'", "upstreams.u.servers: 127.0.0.1:80 is this edge itself (listen[0].address)"),
            ("address: '127.0.0.1:9180'", "upstreams.u.servers: 127.0.0.1:9180 is this edge itself (control.listen)"),
        ],
    );
    check(
        "{sales: {t: }, upstreams: {u: {servers: [{address: '127.0.0.1:3001', backup: true}]}}}",
        &["upstreams.u.servers: must have at least one server that is not a backup"],
    );
    // What the resolver says is the system's to word.
    let yaml = SERVER.replace("HERE", "address: 'no-such-host.invalid:80'");
    let mut config = Config::from_yaml(&yaml).expect("a file is read without a network");
    let errors = config.resolve().expect_err("the name does not exist").to_string();
    let expected = "upstreams.u.servers[1].address: no-such-host.invalid:80 cannot be resolved: ";
    assert!(errors.starts_with(expected) && errors.lines().count() == 1, "{errors}");
}

#[test]
fn routes() {
    let must = "must be / or a path such as /shop, without pattern, query, empty or dot segments, or / at its end";
    for path in ["", "a", "/a/", "//", "/a//b", "/a/../b", "/.", "/a?b", "/a#b", "/a b", "/a/*", "~ ^/a", "/é", "/a{b"]
    {
        check(
            &ROUTE.replace("HERE", &format!("path: '{path}', upstream: shop")),
            &[&format!("routes[0].path: {must}, is {path:?}")],
        );
    }
    for host in ["a.com:80", "*.a.com", "a..com", "a.com.", "http://a.com", "é.com", "", "[::1", "[a]"] {
        let must = "must be a host without port or wildcard, such as www.example.com";
        check(
            &ROUTE.replace("HERE", &format!("hosts: [b.com, '{host}'], path: /, upstream: shop")),
            &[&format!("routes[0].hosts[1]: {must}, is {host:?}")],
        );
    }
    let size = "must be a size with a unit, such as 512B, 16KiB or 1MiB";
    each(
        ROUTE,
        &[
            ("upstream: shop", "routes[0].path: is missing"),
            ("path: /", "routes[0].upstream: is missing"),
            ("path: /, upstream: 5", "routes[0].upstream: must be the name of an upstream, is 5"),
            ("path: /, upstream: shpo", "routes[0].upstream: there is no upstream \"shpo\"; did you mean `shop`?"),
            ("path: /, upstream: 'a b'", "routes[0].upstream: there is no upstream \"a b\""),
            ("path: /, upstream: shop, max_body: 1", &format!("routes[0].max_body: {size}, is 1")),
            ("path: /, upstream: shop, max_body: 1MB", &format!("routes[0].max_body: {size}, is \"1MB\"")),
            ("path: /, upstream: shop, max_body: 1025GiB", "routes[0].max_body: must be 0B to 1024GiB, is \"1025GiB\""),
            ("path: /, upstream: shop, max_body: -1KiB", &format!("routes[0].max_body: {size}, is \"-1KiB\"")),
            (
                "path: /, upstream: shop, limits: {burst: 5}",
                "routes[0].limits.burst: has no effect without requests_per_second",
            ),
            (
                "path: /, upstream: shop, limits: {concurrent: -1}",
                "routes[0].limits.concurrent: must be 0 to 1000000, is -1",
            ),
            ("path: /, upstream: shop, hosts: []", "routes[0].hosts: must have at least one entry"),
            ("path: /, upstream: shop, hosts: a.com", "routes[0].hosts: must be a list, is \"a.com\""),
        ],
    );
    each(TOP, &[("routes: {path: /}", "routes: must be a list, is a mapping")]);
}

#[test]
fn what_becomes_of_requests_and_answers() {
    const ANSWERS: &str = "{sales: {t: }, HERE}";
    let way = "says how a message is sent, and is the connection's own";
    let size = "must be a size with a unit, such as 512B, 16KiB or 1MiB, is";
    each(
        ROUTE,
        &[
            (
                "path: /, upstream: shop, rewrite: v2",
                "routes[0].rewrite: must be / or a path such as /v2, without query and without / at its end, is \"v2\"",
            ),
            ("path: /, upstream: shop, compress: on", "routes[0].compress: must be true or false, is \"on\""),
            (
                "path: /, upstream: shop, request_headers: {set: {Host: a}}",
                "routes[0].request_headers.set.Host: is set by upstreams.NAME.host_header",
            ),
            (
                "path: /, upstream: shop, request_headers: {remove: [content-length]}",
                &format!("routes[0].request_headers.remove[0]: {way}"),
            ),
            (
                "path: /, upstream: shop, response_headers: {set: {Transfer-Encoding: a}}",
                &format!("routes[0].response_headers.set.Transfer-Encoding: {way}"),
            ),
            (
                "path: /, upstream: shop, response_headers: {set: {a b: c}}",
                "routes[0].response_headers.set.a b: is not the name of a header",
            ),
            (
                "path: /, upstream: shop, response_headers: {set: {a: \"b\\nc\"}}",
                "routes[0].response_headers.set.a: must be text that a header can carry, without control characters, is \"b\\nc\"",
            ),
            ("path: /, files: {}", "routes[0].files.root: is missing"),
            (
                "path: /, files: {root: /nowhere}",
                "routes[0].files.root: cannot be read: No such file or directory (os error 2)",
            ),
            ("path: /, files: {root: /etc/passwd}", "routes[0].files.root: must be a folder"),
            (
                "path: /, files: {root: /tmp, index: ../a}",
                "routes[0].files.index: must be the name of a file below the root, such as index.html, is \"../a\"",
            ),
            (
                "path: /, files: {root: /tmp, index: ''}",
                "routes[0].files.index: must be the name of a file below the root, such as index.html, is \"\"",
            ),
            ("path: /, files: {root: /tmp, fallback: {status: 503}}", "routes[0].files.fallback.file: is missing"),
            (
                "path: /, files: {root: /tmp, fallback: {file: a, status: 600}}",
                "routes[0].files.fallback.status: must be 200 to 599, is 600",
            ),
            (
                "path: /, files: {root: /tmp}, upstream: shop",
                "routes[0].files: cannot be combined with upstream: only one of them can answer",
            ),
        ],
    );
    each(
        ANSWERS,
        &[
            (
                "compression: {algorithms: [deflate]}",
                "compression.algorithms[0]: must be one of zstd, br, gzip, is \"deflate\"",
            ),
            ("compression: {algorithms: []}", "compression.algorithms: must have at least one entry"),
            ("compression: {levels: {gzip: 10}}", "compression.levels.gzip: must be 1 to 9, is 10"),
            ("compression: {min_length: 1000}", &format!("compression.min_length: {size} 1000")),
            ("compression: {min_length: 1KB}", &format!("compression.min_length: {size} \"1KB\"")),
            ("compression: {min_length: 2MiB}", "compression.min_length: must be 0B to 1MiB, is \"2MiB\""),
            (
                "compression: {types: [html]}",
                "compression.types[0]: must be a media type such as text/html, or text/* for all of a kind, is \"html\"",
            ),
            ("error_pages: [{status: [404]}]", "error_pages[0].file: is missing"),
            (
                "error_pages: [{status: [404], file: /etc/passwd}]",
                "error_pages[0].file: must be a file that ends with .html, .htm, .json or .txt, is \"/etc/passwd\"",
            ),
            (
                "error_pages: [{status: [404], file: /nowhere.html}]",
                "error_pages[0].file: cannot be read: No such file or directory (os error 2)",
            ),
        ],
    );
}

#[test]
fn routes_that_are_never_reached() {
    let check = |routes: &str, expected: &[&str]| {
        let upstream = "servers: [{address: '127.0.0.1:3001'}]";
        let routes = routes.replace('}', ", upstream: u}");
        super::check(&format!("{{upstreams: {{u: {{{upstream}}}}}, routes: [{routes}]}}"), expected);
    };
    let never = "is never reached: the first route that matches is used, and";
    check("{path: /}, {path: /a}", &[&format!("routes[1]: {never} routes[0] matches all of its requests; move it up")]);
    check(
        "{path: /a}, {hosts: [b.com], path: /a/b}",
        &[&format!("routes[1]: {never} routes[0] matches all of its requests; move it up")],
    );
    check(
        "{hosts: [a.com], path: /}, {hosts: [B.com], path: /}, {hosts: [b.com, a.com], path: /x}",
        &[&format!("routes[2]: {never} routes[0] and routes[1] match all of its requests; move it up")],
    );
    check("{path: /a}, {path: /ab}, {path: /}", &[]);
    check("{hosts: [a.com], path: /}, {hosts: [a.com, b.com], path: /}, {path: /}", &[]);
    // A route whose path cannot be read takes nothing away from others.
    let must = "must be / or a path such as /shop, without pattern, query, empty or dot segments, or / at its end";
    check("{path: x}, {path: /a}", &[&format!("routes[0].path: {must}, is \"x\"")]);
}

#[test]
fn sizes_have_units() {
    let max_body = |value: &str| {
        read(&ROUTE.replace("HERE", &format!("path: /, upstream: shop, max_body: {value}"))).routes[0].max_body
    };
    assert_eq!(read(&ROUTE.replace("HERE", "path: /, upstream: shop")).routes[0].max_body, Some(1 << 20));
    assert_eq!([max_body("0"), max_body("0KiB")], [None; 2]);
    assert_eq!([max_body("1B"), max_body("64KiB"), max_body("2 GiB")], [Some(1), Some(64 << 10), Some(2 << 30)]);
}
