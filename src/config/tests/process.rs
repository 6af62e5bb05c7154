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
                "listen[2].address: 127.0.0.1:80 is already used by listen[0].address (0.0.0.0:80)",
            ),
            (
                "listen: [{address: '[::1]:80'}, {address: '127.0.0.1:80'}, {address: '[::1]:80'}]",
                "listen[2].address: [::1]:80 is already used by listen[0].address ([::1]:80)",
            ),
            (
                "listen: [{address: '0.0.0.0:9180'}]",
                "listen[0].address: 0.0.0.0:9180 is already used by control.listen (127.0.0.1:9180)",
            ),
        ],
    );
}

#[test]
fn threads_shutdown_and_client() {
    let network = "must be a network or an address, such as 10.0.0.0/8, \"2001:db8::/32\" or 192.0.2.1, or all";
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
            ("shutdown: {delay: 61s}", "shutdown.delay: must be 0s to 1m, is \"61s\""),
            ("client: 75s", "client: must be a mapping of keys to values, is \"75s\""),
            ("client: {keepalive: 0s}", "client.keepalive: must be 1ms to 7d, is \"0s\""),
            ("client: {read: 8d}", "client.read: must be 1ms to 7d, is \"8d\""),
            ("limits: 5", "limits: must be a mapping of keys to values, is 5"),
            ("limits: {connections: 0}", "limits.connections: must be 1 to 1000000, is 0"),
            ("limits: {connections_per_address: -1}", "limits.connections_per_address: must be 0 to 1000000, is -1"),
            ("limits: {requests_per_second: 50r/s}", "limits.requests_per_second: must be 0 to 100000, is \"50r/s\""),
            ("limits: {requests_per_second: 1, burst: 0}", "limits.burst: must be 1 to 1000000, is 0"),
            ("trusted_proxies: 10.0.0.1", "trusted_proxies: must be a list, is \"10.0.0.1\""),
            (
                "trusted_proxies: [10.0.0.1/8]",
                "trusted_proxies[0]: \"10.0.0.1/8\" has host bits set; the network is 10.0.0.0/8",
            ),
            ("client_address: forwarded", "client_address: has no effect without trusted_proxies"),
            (
                "trusted_proxies: [10.0.0.1], client_address: x-real",
                "client_address: must be one of x-forwarded-for, forwarded, x-real-ip, is \"x-real\"; did you mean `x-real-ip`?",
            ),
            ("allow: [all, 10.0.0.0/33]", &format!("allow[1]: {network}, is \"10.0.0.0/33\"")),
            ("deny: [10]", &format!("deny[0]: {network}, is 10")),
            ("allow: [10.0.0.0/8], deny: [10.0.0.7, 10.0.0.0/8]", "deny: has 10.0.0.0/8, which is in allow as well"),
            ("limits: {burst: 5}", "limits.burst: has no effect without requests_per_second"),
            (
                "limits: {requests_per_secnd: 5}",
                "limits.requests_per_secnd: unknown key; did you mean `requests_per_second`?",
            ),
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
    let hidden = "(its value is not shown because it may be a secret)";
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
        &[&format!("control.token_file: {token} in that file (its content is not shown because it may be a secret)")],
    );
    std::fs::write(file.path(), "swordfish-swordfish\n").expect("the token is written");
    check(
        &format!("{{sales: {{t: }}, control: {{token: swordfish-swordfish, token_file: '{path}'}}}}"),
        &["control.token_file: cannot be combined with token: there is only one token"],
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
                "ledger.redis: cannot be combined with embedded: only one store can sell, or tickets would be sold twice",
            ),
            (
                "redis: {url: 'redis://db', redis://:swordfish@db: }",
                "ledger.redis: has a key that is not the name of a setting (not shown because it may be a secret)",
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
                 or a purchase would time out before the ledger does",
            ),
            (
                "url: 'redis://db', durability: yes",
                "ledger.redis.durability: must be none, everysec or always, is \"yes\"",
            ),
            ("url: 'redis://db', replicas: {timeout: 500ms}", "ledger.redis.replicas.acknowledge: is missing"),
            (
                "url: 'redis://db', replicas: {acknowledge: 0, timeout: 1ms}",
                "ledger.redis.replicas.acknowledge: must be 1 to 10, is 0",
            ),
            (
                "url: 'redis://db', replicas: {acknowledge: 1, timeout: 1s}",
                "ledger.redis.replicas.timeout: must be less than ledger.redis.response_timeout (1s), \
                 which includes it",
            ),
            ("url: 'redis://db', master: m", "ledger.redis.master: applies only to sentinels; put it into url"),
            (
                "url: 'redis://db', sentinel_password: p",
                "ledger.redis.sentinel_password: applies only to sentinels; put it into url",
            ),
            (
                "url: 'redis://db', sentinels: ['s:1'], master: m",
                "ledger.redis.sentinels: cannot be combined with url: the primary is at one place",
            ),
            ("sentinels: [], master: m", "ledger.redis.sentinels: must have at least one entry"),
            ("sentinels: ['s:1']", "ledger.redis.master: is missing"),
            (
                "sentinels: [s], master: m",
                "ledger.redis.sentinels[0]: must be a host and a port, such as 10.0.0.1:26379, is \"s\"",
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
        let hidden = "(its value is not shown because it may be a secret)";
        check(&REDIS.replace("HERE", &format!("url: '{url}'")), &[&format!("ledger.redis.url: {must} {hidden}")]);
    }
}
