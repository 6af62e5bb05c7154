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
                "upstreams.a b: a name is letters, digits, - _ and . between them, since backends see it as their Host",
            ),
        ],
    );
    each(
        UPSTREAM,
        &[
            (
                "balance: wieghted",
                "upstreams.u.balance: must be one of weighted, round_robin, ip_hash, is \"wieghted\"; did you mean `weighted`?",
            ),
            ("balance: 1", "upstreams.u.balance: must be one of weighted, round_robin, ip_hash, is 1"),
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
                "upstreams.u.health_check.path: belongs to type http; a tcp check asks for nothing",
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
                "address: '127.0.0.1:3001'",
                "upstreams.u.servers: 127.0.0.1:3001 stands there twice; its weight can be raised instead",
            ),
            ("address: '127.0.0.1:80'", "upstreams.u.servers: 127.0.0.1:80 is this edge itself (listen[0].address)"),
            ("address: '127.0.0.1:9180'", "upstreams.u.servers: 127.0.0.1:9180 is this edge itself (control.listen)"),
        ],
    );
    // What the resolver says is the system's to word.
    let yaml = SERVER.replace("HERE", "address: 'no-such-host.invalid:80'");
    let errors = Config::from_yaml(&yaml).expect_err("the name does not exist").to_string();
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
    each(
        ROUTE,
        &[
            ("upstream: shop", "routes[0].path: is missing"),
            ("path: /", "routes[0].upstream: is missing"),
            ("path: /, upstream: 5", "routes[0].upstream: must be the name of an upstream, is 5"),
            ("path: /, upstream: shpo", "routes[0].upstream: there is no upstream \"shpo\"; did you mean `shop`?"),
            ("path: /, upstream: 'a b'", "routes[0].upstream: there is no upstream \"a b\""),
            ("path: /, upstream: shop, hosts: []", "routes[0].hosts: must have at least one entry"),
            ("path: /, upstream: shop, hosts: a.com", "routes[0].hosts: must be a list, is \"a.com\""),
        ],
    );
    each(TOP, &[("routes: {path: /}", "routes: must be a list, is a mapping")]);
}

#[test]
fn routes_that_are_never_reached() {
    let check = |routes: &str, expected: &[&str]| {
        let upstream = "servers: [{address: '127.0.0.1:3001'}]";
        let routes = routes.replace('}', ", upstream: u}");
        super::check(&format!("{{upstreams: {{u: {{{upstream}}}}}, routes: [{routes}]}}"), expected);
    };
    let never = "is never reached: the first route that matches is taken, and";
    check("{path: /}, {path: /a}", &[&format!("routes[1]: {never} routes[0] takes all that it would; put it first")]);
    check(
        "{path: /a}, {hosts: [b.com], path: /a/b}",
        &[&format!("routes[1]: {never} routes[0] takes all that it would; put it first")],
    );
    check(
        "{hosts: [a.com], path: /}, {hosts: [B.com], path: /}, {hosts: [b.com, a.com], path: /x}",
        &[&format!("routes[2]: {never} routes[0] and routes[1] take all that it would; put it first")],
    );
    check("{path: /a}, {path: /ab}, {path: /}", &[]);
    check("{hosts: [a.com], path: /}, {hosts: [a.com, b.com], path: /}, {path: /}", &[]);
    // A route whose path cannot be read takes nothing away from others.
    let must = "must be / or a path such as /shop, without pattern, query, empty or dot segments, or / at its end";
    check("{path: x}, {path: /a}", &[&format!("routes[0].path: {must}, is \"x\"")]);
}
