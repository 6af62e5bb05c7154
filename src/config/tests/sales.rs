//! Every value of `sales` that is refused.

use super::*;

const SALE: &str = "{sales: {t: {HERE}}}";

#[test]
fn sales() {
    let id_rule = "a sale's id is 1 to 64 of a-z, 0-9, - and _, since it stands in paths";
    for id in ["Ticket", "a b", "a/b", "é", &"a".repeat(65)] {
        check(&format!("sales: {{{id}: }}"), &[&format!("sales.{id}: {id_rule}")]);
    }
    let path_rule = "must be a path such as /buy/ticket, without pattern, query, empty or dot segments";
    for path in ["", "buy", "/a?b", "/a#b", "/a b", "/a\tb", "/./a", "/a/..", "//a", "/a/*"] {
        check(&format!("sales: {{t: {{path: {path:?}}}}}"), &[&format!("sales.t.path: {path_rule}, is {path:?}")]);
    }
    let key_rule = "must be 1 to 200 visible ASCII characters without braces";
    for key in ["", "a b", "{a}", "é"] {
        check(&format!("sales: {{t: {{key: {key:?}}}}}"), &[&format!("sales.t.key: {key_rule}, is {key:?}")]);
    }
    let time_rule = "must be a time with an offset, such as 2026-12-01T20:00:00+08:00";
    for time in ["2026-12-01T20:00:00", "2026-12-01", "2026-13-01T20:00:00Z", "tomorrow", "1969-12-31T23:59:59Z"] {
        for setting in ["opens_at", "closes_at"] {
            check(
                &format!("sales: {{t: {{{setting}: {time:?}}}}}"),
                &[&format!("sales.t.{setting}: {time_rule}, is {time:?}")],
            );
        }
    }
    each(
        SALE,
        &[
            ("total: 0", "sales.t.total: must be 1 to 1000000000, is 0"),
            ("total: 10_000", "sales.t.total: must be 1 to 1000000000, is \"10_000\""),
            ("total: 1e4", "sales.t.total: must be 1 to 1000000000, is 10000.0"),
            ("total: 1000000001", "sales.t.total: must be 1 to 1000000000, is 1000000001"),
            ("local_stock: 0", "sales.t.local_stock: must be 1 to 100000, is 0"),
            ("local_stock: 100001", "sales.t.local_stock: must be 1 to 100000, is 100001"),
            ("queue: 0", "sales.t.queue: must be 1 to 1000000, is 0"),
            ("queue: 1000001", "sales.t.queue: must be 1 to 1000000, is 1000001"),
            ("deadline: 9ms", "sales.t.deadline: must be 10ms to 1m, is \"9ms\""),
            ("deadline: 61s", "sales.t.deadline: must be 10ms to 1m, is \"61s\""),
            ("hold: 999ms", "sales.t.hold: must be 1s to 7d, is \"999ms\""),
            ("hold: 169h", "sales.t.hold: must be 1s to 7d, is \"169h\""),
            (
                "hold: 3s",
                "sales.t.hold: must be longer than deadline (3s), or an order could expire before its buyer gets the answer",
            ),
            ("per_buyer: -1", "sales.t.per_buyer: must be 0 to 1000000, is -1"),
            ("per_buyer: 1", "sales.t.per_buyer: requires a buyer id: set `buyer`, or set this limit to 0"),
            ("seed_dialect: yes", "sales.t.seed_dialect: must be true or false, is \"yes\""),
            ("stat_log: ''", "sales.t.stat_log: must be the path of a file or folder, is \"\""),
            ("stat_log: false", "sales.t.stat_log: must be the path of a file or folder, is false"),
            ("path: /sales", "sales.t.path: must not be below /sales/, which the edge answers itself"),
            ("path: /sales/t", "sales.t.path: must not be below /sales/, which the edge answers itself"),
            (
                "opens_at: 2026-12-01T20:00:00+08:00, closes_at: 2026-12-01T12:00:00Z",
                "sales.t.closes_at: must be after opens_at, or nothing could be sold",
            ),
        ],
    );
    each(
        "{sales: {a: {stat_log: a.log}, b: {HERE}}}",
        &[
            ("path: /buy/a", "sales.b.path: is the same as sales.a.path, but a purchase must name one sale"),
            ("key: a", "sales.b.key: is the same as sales.a.key, but two sales cannot share one stock"),
            (
                "stat_log: a.log",
                "sales.b.stat_log: is the same as sales.a.stat_log, but its lines do not name the sale",
            ),
        ],
    );
    each(TOP, &[("sales2: ", "sales2: unknown key; did you mean `sales`?")]);
    check("sales: [t]", &["sales: must be a mapping of names to settings, is a list"]);
    check("sales: {t: 5}", &["sales.t: must be a mapping of keys to values, is 5"]);
    check("sales: {2026: }", &["sales: has a key that is not text but 2026; put it in quotes"]);
}

#[test]
fn buyers() {
    each(
        SALE,
        &[
            ("buyer: header", "sales.t.buyer: must be a mapping of keys to values, is \"header\""),
            ("buyer: {}", "sales.t.buyer: must have one of header, query and body"),
            (
                "buyer: {header: X-User, query: user}",
                "sales.t.buyer.query: cannot be combined with header: they could name two buyers",
            ),
            ("buyer: {header: X User}", "sales.t.buyer.header: must be the name of a header, is \"X User\""),
            ("buyer: {header: ''}", "sales.t.buyer.header: must be the name of a header, is \"\""),
            ("buyer: {header: 5}", "sales.t.buyer.header: must be the name of a header, is 5"),
            ("buyer: {header: Upgrade}", "sales.t.buyer.header: upgrade belongs to one connection, not to a buyer"),
            ("buyer: {header: Host}", "sales.t.buyer.header: host says something of the request, not of its buyer"),
            (
                "buyer: {header: Idempotency-Key}",
                "sales.t.buyer.header: idempotency-key names one purchase, not its buyer",
            ),
            (
                "buyer: {header: Cookie}",
                "sales.t.buyer.header: cookie holds credentials, and the buyer's id is kept in the ledger and its log",
            ),
            (
                "buyer: {query: 'a=b'}",
                "sales.t.buyer.query: must be a name of 1 to 64 letters, digits, -, _ and ., is \"a=b\"",
            ),
            ("buyer: {query: quantity}", "sales.t.buyer.query: quantity says how many, not who"),
            ("buyer: {body: quantity}", "sales.t.buyer.body: quantity says how many, not who"),
            (
                "buyer: {query: idempotency_key}",
                "sales.t.buyer.query: idempotency_key names one purchase, not its buyer",
            ),
            ("buyer: {body: ''}", "sales.t.buyer.body: must be a name of 1 to 64 letters, digits, -, _ and ., is \"\""),
        ],
    );
    check(
        "sales: {t: {buyer: {body: user}, per_buyer: 1, seed_dialect: true}}",
        &[
            "sales.t.buyer: cannot be in the body with seed_dialect, because a GET has no body: per_buyer would not hold",
        ],
    );
    // A place that could not be read is not called missing.
    check(
        "sales: {t: {per_buyer: 1, buyer: {header: Upgrade}}}",
        &["sales.t.buyer.header: upgrade belongs to one connection, not to a buyer"],
    );
}
