//! Files that are wrong as a whole or in many places, and what no message may say.

use super::*;

#[test]
fn texts_that_are_no_yaml() {
    let cases = [
        ("a: [\n", "the file: did not find expected node content at line 2 column 1, while parsing a flow node"),
        (
            "@x",
            "the file: found character that cannot start any token, while scanning for the next token at line 1 column 1",
        ),
        ("a: *x", "the file: unknown anchor at line 1 column 4"),
        ("<<: 5", "the file: expected a mapping or list of mappings for merging, but found scalar"),
        (
            "sales:\n  t:\n    hold: 5m\n    path: /a\n    hold: 6m\n",
            "the file: has the key `hold` twice in the mapping that begins at line 3 column 5",
        ),
        ("a: 1\na: 2\n", "the file: has the key `a` twice in the mapping that begins at line 1 column 1"),
        ("a: 1\n---\na: 2\n", "the file: deserializing from YAML containing more than one document is not supported"),
    ];
    for (text, expected) in cases {
        check(text, &[expected]);
    }
}

#[test]
fn the_file_as_a_whole() {
    check("", &["routes: must have an entry unless sales has one"]);
    check("[1]", &["the file: must be a mapping of keys to values, is a list"]);
    check("{7: x, sales: {t: }}", &["the file: has a key that is not text but 7; put it in quotes"]);
}

#[test]
fn unknown_keys_at_every_level() {
    let yaml = "
listen: [{ address: 0.0.0.0:80, tlss: true, proxy_protocl: true }]
worker_threads: 4
shutdown: { grce: 1s }
client: { keep_alive: 75s }
control: { tokn: swordfish-swordfish }
ledger: { embedded: { pth: data }, fsync: true }
upstreams:
  u:
    servers: [{ address: 127.0.0.1:3001, wieght: 2 }]
    timeouts: { conect: 1s }
    health_check: { type: tcp, intervall: 5s }
    ballance: weighted
routes: [{ host: [a.com], path: /, upstream: u }]
sales: { t: { totl: 5, buyer: { header: X-User, cookie: id } } }
";
    let expected = [
        "listen[0].tlss: unknown key; did you mean `tls`?",
        "listen[0].proxy_protocl: unknown key; did you mean `proxy_protocol`?",
        "shutdown.grce: unknown key; did you mean `grace`?",
        "client.keep_alive: unknown key; did you mean `keepalive`?",
        "control.tokn: unknown key; did you mean `token`?",
        "ledger.embedded.pth: unknown key; did you mean `path`?",
        "ledger.fsync: unknown key; did you mean `sync`?",
        "upstreams.u.servers[0].wieght: unknown key; did you mean `weight`?",
        "upstreams.u.timeouts.conect: unknown key; did you mean `connect`?",
        "upstreams.u.health_check.intervall: unknown key; did you mean `interval`?",
        "upstreams.u.ballance: unknown key; did you mean `balance`?",
        "routes[0].host: unknown key; did you mean `hosts`?",
        "sales.t.buyer.cookie: unknown key",
        "sales.t.totl: unknown key; did you mean `total`?",
        "worker_threads: unknown key",
    ];
    check(yaml, &expected);
    check("{sales: {t: }, ledger: {redis: {url: 'redis://db', timeout: 1s}}}", &["ledger.redis.timeout: unknown key"]);
}

#[test]
fn everything_at_once() {
    let yaml = "
listen: [{ address: 80 }, { address: 0.0.0.0:80 }]
threads: none
ledger: { redis: { url: swordfish, response_timeout: 5 } }
upstreams: { u: { servers: [{ address: 127.0.0.1:3001, weight: 0 }, { weight: 2 }] } }
routes: [{ path: /, upstream: v }, { path: /a, upstream: u }]
sales: { t: { hold: 1s, deadline: 5, path: buy }, s: { total: none, per_buyer: 1 } }
";
    let expected = [
        "listen[0].address: must be an IP address and a port, such as 0.0.0.0:80 or \"[::1]:80\", is 80",
        "threads: must be \"auto\" or 1 to 1024, is \"none\"",
        "ledger.redis.url: must be redis://[user:password@]host[:port][/db] or redis+unix:///path \
         (its value is not shown because it may be a secret)",
        "ledger.redis.response_timeout: must be a time with a unit, such as 5s, 100ms or 1m 30s, is 5",
        "upstreams.u.servers[0].weight: must be 1 to 65535, is 0",
        "upstreams.u.servers[1].address: is missing",
        "routes[0].upstream: there is no upstream \"v\"; did you mean `u`?",
        "sales.t.path: must be a path such as /buy/ticket, without pattern, query, empty or dot segments, is \"buy\"",
        "sales.t.deadline: must be a time with a unit, such as 5s, 100ms or 1m 30s, is 5",
        "sales.s.total: must be 1 to 1000000000, is \"none\"",
        "routes[1]: is never reached: the first route that matches is used, \
         and routes[0] matches all of its requests; move it up",
        "sales.s.per_buyer: requires a buyer id: set `buyer`, or set this limit to 0",
    ];
    check(yaml, &expected);
}

#[test]
fn no_message_repeats_a_secret() {
    for yaml in [
        "{control: {token: 'swordfish'}}",
        "{control: {token: {swordfish:swordfish: }}}",
        "{control: {swordfish:swordfish-swordfish: }}",
        "control: {token: \"swordfish",
        "control: {token: swordfish: swordfish}",
        "control:\n  token: !!int swordfish\n",
        "control:\n  token: *swordfish\n",
        "{'swordfish ': 1, 'swordfish ': 2}",
        "ledger: {redis: {url: 'http://:swordfish@db'}}",
        "ledger: {redis: {redis://:swordfish@db: }}",
        "ledger: {redis: [redis://:swordfish@db]}",
    ] {
        let errors = Config::from_yaml(yaml).expect_err("it is wrong").to_string();
        assert!(!errors.contains("swordfish"), "{errors}");
    }
    let digits = "control: {token: 123456789012345678901234567890}";
    check(
        digits,
        &["the file: has a value at line 1 column 18 that is a number too large or not what its tag says; \
           if it is text, put it in quotes"],
    );
}

#[test]
fn long_values_are_cut_and_control_characters_are_escaped() {
    let long = "x".repeat(100);
    check(
        &format!("{{sales: {{t: }}, threads: {long}}}"),
        &[&format!("threads: must be \"auto\" or 1 to 1024, is \"{}\"...", "x".repeat(60))],
    );
    check(
        "{sales: {t: }, threads: \"\\e[2J\", upstreams: {\"\\e[2J\": {servers: [{address: '127.0.0.1:1'}]}}}",
        &[
            "threads: must be \"auto\" or 1 to 1024, is \"\\u{1b}[2J\"",
            "upstreams.\\u{1b}[2J: a name must be letters, digits, - and _, with . between them, because backends receive it as Host",
        ],
    );
}
