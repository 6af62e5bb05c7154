//! Every value of `listen`, `threads`, `shutdown`, `client`, `control` and `ledger` that is refused.

use super::*;

const CONTROL: &str = "{sales: {t: }, control: {HERE}}";
const LEDGER: &str = "{sales: {t: }, ledger: {HERE}}";
const REDIS: &str = "{sales: {t: }, ledger: {redis: {HERE}}}";

#[test]
fn listen() {
    let must = "must be an IP address and a port, such as 0.0.0.0:80 or \"[::1]:80\"";
    for (address, is) in [
        ("80", "80"),
        ("':80'", "\":80\""),
        ("'*:80'", "\"*:80\""),
        ("'localhost:80'", "\"localhost:80\""),
        ("'0.0.0.0'", "\"0.0.0.0\""),
        ("'0.0.0.0:0'", "\"0.0.0.0:0\""),
        ("'0.0.0.0:65536'", "\"0.0.0.0:65536\""),
        ("", "empty"),
    ] {
        check(
            &format!("{{sales: {{t: }}, listen: [{{address: {address}}}]}}"),
            &[&format!("listen[0].address: {must}, is {is}")],
        );
    }
    each(
        TOP,
        &[
            ("listen: []", "listen: must have at least one entry"),
            ("listen: ", "listen: must have at least one entry"),
            ("listen: '0.0.0.0:80'", "listen: must be a list, is \"0.0.0.0:80\""),
            ("listen: ['0.0.0.0:80']", "listen[0]: must be a mapping of keys to values, is \"0.0.0.0:80\""),
            ("listen: [{}]", "listen[0].address: is missing"),
            (
                "listen: [{address: '0.0.0.0:80'}, {address: '1.1.1.1:81'}, {address: '127.0.0.1:80'}]",
                "listen[2].address: 127.0.0.1:80 is taken by listen[0].address (0.0.0.0:80) already",
            ),
            (
                "listen: [{address: '[::1]:80'}, {address: '127.0.0.1:80'}, {address: '[::1]:80'}]",
                "listen[2].address: [::1]:80 is taken by listen[0].address ([::1]:80) already",
            ),
            (
                "listen: [{address: '0.0.0.0:9180'}]",
                "listen[0].address: 0.0.0.0:9180 is taken by control.listen (127.0.0.1:9180) already",
            ),
        ],
    );
}

#[test]
fn threads_shutdown_and_client() {
    each(
        TOP,
        &[
            ("threads: 0", "threads: must be \"auto\" or 1 to 1024, is 0"),
            ("threads: 1025", "threads: must be \"auto\" or 1 to 1024, is 1025"),
            ("threads: -1", "threads: must be \"auto\" or 1 to 1024, is -1"),
            ("threads: 1.5", "threads: must be \"auto\" or 1 to 1024, is 1.5"),
            ("threads: all", "threads: must be \"auto\" or 1 to 1024, is \"all\""),
            ("threads: []", "threads: must be \"auto\" or 1 to 1024, is a list"),
            ("threads: !count 5", "threads: must be \"auto\" or 1 to 1024, is a value with a YAML tag"),
            ("threads: ", "threads: must be \"auto\" or 1 to 1024, is empty"),
            ("shutdown: 3s", "shutdown: must be a mapping of keys to values, is \"3s\""),
            ("shutdown: {grace: 61s}", "shutdown.grace: must be 0s to 1m, is \"61s\""),
            ("client: 75s", "client: must be a mapping of keys to values, is \"75s\""),
            ("client: {keepalive: 0s}", "client.keepalive: must be 1ms to 7d, is \"0s\""),
            ("client: {read: 8d}", "client.read: must be 1ms to 7d, is \"8d\""),
            ("client: {send: 1us}", "client.send: must be 1ms to 7d, is \"1us\""),
        ],
    );
}

#[test]
fn lengths_of_time() {
    let must = "must be a time with a unit, such as 5s, 100ms or 1m 30s";
    let wrong = ["5", "1.5", "'5'", "5 parsecs", "''", "5s 3", "1 month", "true", "[5s]", "{s: 5}", ""];
    let is = [
        "5",
        "1.5",
        "\"5\"",
        "\"5 parsecs\"",
        "\"\"",
        "\"5s 3\"",
        "\"1 month\"",
        "true",
        "a list",
        "a mapping",
        "empty",
    ];
    for (value, is) in wrong.iter().zip(is) {
        check(&format!("{{sales: {{t: }}, ledger: {{sync: {value}}}}}"), &[&format!("ledger.sync: {must}, is {is}")]);
    }
}

#[test]
fn control() {
    let token = "must be 16 to 256 visible ASCII characters";
    let hidden = "(what it is instead is not shown: it may be a secret)";
    for value in ["swordfish", "'swordfish with spaces'", "swordfish-swordfish-é", "1234567890123456789", "[a]", ""] {
        check(&CONTROL.replace("HERE", &format!("token: {value}")), &[&format!("control.token: {token} {hidden}")]);
    }
    each(
        CONTROL,
        &[
            (
                "listen: 9180",
                "control.listen: must be an IP address and a port, such as 0.0.0.0:80 or \"[::1]:80\", is 9180",
            ),
            (
                "listen: '0.0.0.0:9180'",
                "control.listen: is off loopback, so control.token or control.token_file is needed: \
                 whoever reaches it can close sales and give tickets away",
            ),
            (
                "token: swordfish-swordfish, token-file: x",
                "control.token-file: unknown key; did you mean `token_file`?",
            ),
            (
                "token_file: /nowhere/token",
                "control.token_file: cannot be read: No such file or directory (os error 2)",
            ),
            ("token_file: ''", "control.token_file: must be the path of a file or folder, is \"\""),
        ],
    );

    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().display();
    std::fs::write(file.path(), "swordfish\n").expect("the token is written");
    check(
        &format!("{{sales: {{t: }}, control: {{token_file: '{path}'}}}}"),
        &[&format!("control.token_file: {token} in that file (what is there is not shown: it may be a secret)")],
    );
    std::fs::write(file.path(), "swordfish-swordfish\n").expect("the token is written");
    check(
        &format!("{{sales: {{t: }}, control: {{token: swordfish-swordfish, token_file: '{path}'}}}}"),
        &["control.token_file: cannot stand beside token: there is one token"],
    );
}

#[test]
fn ledger() {
    each(
        LEDGER,
        &[
            ("sync: 9ms", "ledger.sync: must be 10ms to 10s, is \"9ms\""),
            ("sync: 11s", "ledger.sync: must be 10ms to 10s, is \"11s\""),
            ("sync: -5s", "ledger.sync: must be 10ms to 10s, is \"-5s\""),
            ("embedded: data", "ledger.embedded: must be a mapping of keys to values, is \"data\""),
            ("embedded: {path: 1}", "ledger.embedded.path: must be the path of a file or folder, is 1"),
            ("redis: ", "ledger.redis.url: is missing"),
            (
                "redis: {url: 'redis://db'}, embedded: ",
                "ledger.redis: cannot stand beside embedded: one store sells, or tickets would be sold twice",
            ),
            (
                "redis: {url: 'redis://db', redis://:swordfish@db: }",
                "ledger.redis: has a key that is no setting's name (not shown: it may be a secret)",
            ),
        ],
    );
    each(
        REDIS,
        &[
            ("url: 'redis://db', connect_timeout: 5ms", "ledger.redis.connect_timeout: must be 10ms to 1m, is \"5ms\""),
            ("url: 'redis://db', response_timeout: 2m", "ledger.redis.response_timeout: must be 10ms to 1m, is \"2m\""),
            (
                "url: 'redis://db', response_timeout: 3s",
                "ledger.redis.response_timeout: must be less than sales.t.deadline (3s), \
                 or a purchase could not be told its outcome in time",
            ),
        ],
    );
    for url in [
        "127.0.0.1:6379",
        "rediss://:swordfish@db",
        "http://:swordfish@db",
        "redis://",
        "redis://:swordfish@",
        "redis://:sword/fish@db",
        "redis://:sword?fish@db",
        "redis://:sword#fish@db",
        "redis://:swordfish@db/65536",
        "redis://:swordfish@db/0?protocol=resp3",
        "redis://:swordfish@db:0",
        "redis://:swordfish@db:65536",
        "redis://:swordfish@db/tickets",
        "redis+unix://run/redis.sock",
        "redis+unix:///",
    ] {
        let must = "must be redis://[user:password@]host[:port][/db] or redis+unix:///path";
        let hidden = "(what it is instead is not shown: it may be a secret)";
        check(&REDIS.replace("HERE", &format!("url: '{url}'")), &[&format!("ledger.redis.url: {must} {hidden}")]);
    }
}
