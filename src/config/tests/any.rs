//! Whatever the text: it is read or refused, and nothing panics.

use proptest::prelude::*;
use serde_yaml::{Mapping, Value};

use super::*;

/// Trees of known keys in all the wrong places, over values that are wrong in most.
fn any_tree() -> impl Strategy<Value = Value> {
    const KEYS: &[&str] = &[
        "listen",
        "address",
        "tls",
        "certificates",
        "certificate",
        "min_version",
        "http2",
        "h2c",
        "redirect_https",
        "code",
        "port",
        "proxy_protocol",
        "from",
        "threads",
        "shutdown",
        "grace",
        "client",
        "limits",
        "requests_per_second",
        "burst",
        "keepalive",
        "control",
        "token",
        "token_file",
        "ledger",
        "embedded",
        "redis",
        "url",
        "sync",
        "response_timeout",
        "upstreams",
        "servers",
        "weight",
        "balance",
        "timeouts",
        "tries",
        "hash",
        "slow_start",
        "max_conns",
        "backup",
        "resolve",
        "resolver",
        "unresolved",
        "health_check",
        "type",
        "path",
        "routes",
        "hosts",
        "upstream",
        "sales",
        "key",
        "total",
        "hold",
        "deadline",
        "per_buyer",
        "unpaid_per_buyer",
        "buyer",
        "header",
        "query",
        "body",
        "opens_at",
        "closes_at",
        "delivery",
        "tracing",
        "endpoint",
        "access_log",
        "error_log",
        "format",
        "fields",
        "refusals",
        "level",
        "request_id",
        "sample",
        "secret_file",
        "timeout",
        "",
        "é\u{7}",
    ];
    const TEXTS: &[&str] = &[
        "",
        "auto",
        "/",
        "//",
        "/a",
        "5s",
        "-5s",
        "7d",
        "9999999h",
        "127.0.0.1:1",
        "[::1]:80",
        "[",
        ":",
        "x:",
        ":1",
        "http",
        "tcp",
        "redis://",
        "redis://@:/",
        "redis+unix://",
        "2026-12-01T20:00:00Z",
        "-9999-12-31T00:00:00Z",
        "upstream",
        "u",
        "💥",
        "\0",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..70_000_u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(TEXTS).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let key = prop_oneof![
            9 => prop::sample::select(KEYS).prop_map(Value::from),
            1 => inner.clone(),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Mapping>())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = Config::from_yaml(&text);
    }

    #[test]
    fn any_text_of_yaml_marks_is_read_or_refused(text in "([a-z]{1,3}|[-:?,#&*!|>'\"%@`{}\\[\\] \n]){0,60}") {
        let _ = Config::from_yaml(&text);
    }

    #[test]
    fn any_tree_is_read_or_refused(tree in any_tree()) {
        if let Ok(text) = serde_yaml::to_string(&tree) {
            let _ = Config::from_yaml(&text);
        }
    }

    #[test]
    fn the_shipped_file_without_some_lines_is_read_or_refused(
        keep in prop::collection::vec(prop::bool::weighted(0.9), 200),
    ) {
        let lines = SHIPPED.lines().zip(keep).filter_map(|(line, keep)| keep.then_some(line));
        let _ = Config::from_yaml(&lines.collect::<Vec<_>>().join("\n"));
    }
}
