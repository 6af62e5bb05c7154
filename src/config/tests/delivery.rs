//! Every value of `delivery` that is refused.

use super::*;

const DELIVERY: &str = "{sales: {t: }, upstreams: {orders: {servers: [{address: '127.0.0.1:1'}]}}, delivery: {HERE}}";

#[test]
fn delivery() {
    each(
        DELIVERY,
        &[
            ("path: /x", "delivery.upstream: is missing"),
            ("upstream: order", "delivery.upstream: there is no upstream \"order\"; did you mean `orders`?"),
            ("upstream: [orders]", "delivery.upstream: must be the name of an upstream, is a list"),
            (
                "upstream: orders, path: hooks",
                "delivery.path: must be a path such as /hooks/spikegate, without pattern, query, empty or dot segments, \
                 is \"hooks\"",
            ),
            ("upstream: orders, timeout: 99ms", "delivery.timeout: must be 100ms to 1m, is \"99ms\""),
            ("upstream: orders, timeout: 61s", "delivery.timeout: must be 100ms to 1m, is \"61s\""),
            (
                "upstream: orders, secret_file: ''",
                "delivery.secret_file: must be the path of a file or folder, is \"\"",
            ),
            ("upstream: orders, secret_file: /", "delivery.secret_file: cannot be read: Is a directory (os error 21)"),
            ("upstream: orders, retries: 5", "delivery.retries: unknown key"),
        ],
    );
    check(&DELIVERY.replace("{HERE}", "orders"), &["delivery: must be a mapping of keys to values, is \"orders\""]);
    let unsold = DELIVERY.replace("sales: {t: }", "routes: [{path: /, upstream: orders}]");
    check(&unsold.replace("HERE", "upstream: orders"), &["delivery: requires a sale: there is nothing to deliver"]);
}

#[test]
fn a_poor_secret_is_told_without_being_shown() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "swordfish").expect("it is written");
    let yaml = DELIVERY.replace("HERE", &format!("upstream: orders, secret_file: {}", file.path().display()));
    check(
        &yaml,
        &["delivery.secret_file: must contain 16 to 256 visible ASCII characters \
           (its content is not shown because it may be a secret)"],
    );
    std::fs::write(file.path(), "swordfish-swordfish\n").expect("it is written");
    assert_eq!(read(&yaml).delivery.map(|delivery| delivery.secret_file), Some(file.path().to_owned()));
}

#[test]
fn checking_the_settings_makes_no_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("data/delivery.secret");
    read(&DELIVERY.replace("HERE", &format!("upstream: orders, secret_file: {}", path.display())));
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
}
