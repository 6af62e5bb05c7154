//! Every value of `buyer`, `buyer_limits` and `admission` that is refused.

use super::*;

const TOKEN: &str = "{sales: {t: {buyer: {from: jwt, HERE}}}}";
const SECRET: &str = "a-secret-of-thirty-two-characters-or-more";

/// A file with this content.
fn file(content: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), content).expect("written");
    let path = file.path().display().to_string();
    (file, path)
}

#[test]
fn tokens() {
    let (_secret, secret) = file(SECRET);
    let (_short, short) = file("short");
    let (_pem, pem) = file("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
    let hs = format!("audience: a, algorithms: [HS256], secret_file: '{secret}'");
    let rows = [
        ("".to_owned(), vec!["sales.t.buyer.algorithms: is missing", "sales.t.buyer.audience: is missing"]),
        (
            format!("audience: a, algorithms: [none], secret_file: '{secret}'"),
            vec!["sales.t.buyer.algorithms[0]: must be one of HS256, EdDSA, RS256, is \"none\""],
        ),
        (
            format!("{hs}, header: Cookie"),
            vec!["sales.t.buyer.header: cookie holds many cookies; say which: cookie: NAME"],
        ),
        (format!("{hs}, cookie: 'a=b'"), vec!["sales.t.buyer.cookie: must be the name of a cookie, is \"a=b\""]),
        (
            format!("{hs}, header: X-Token, cookie: b"),
            vec!["sales.t.buyer.cookie: cannot be combined with header: the token stands in one place"],
        ),
        (format!("{hs}, claim: exp"), vec!["sales.t.buyer.claim: exp describes the token, not the buyer"]),
        (format!("{hs}, leeway: 6m"), vec!["sales.t.buyer.leeway: must be 0s to 5m, is \"6m\""]),
        (format!("{hs}, query: b"), vec!["sales.t.buyer.query: unknown key"]),
        (
            "audience: a, algorithms: [HS256, RS256]".to_owned(),
            vec![
                "sales.t.buyer.algorithms: has HS256, but secret_file and jwks_file have no key for it",
                "sales.t.buyer.algorithms: has RS256, but public_key_files and jwks_file have no key for it",
            ],
        ),
        (
            format!("audience: a, algorithms: [HS256], secret_file: '{pem}'"),
            vec!["sales.t.buyer.secret_file: is a PEM key, which is not a secret: anyone can have a public key"],
        ),
        (
            format!("audience: a, algorithms: [HS256], secret_file: '{short}'"),
            vec![
                "sales.t.buyer.secret_file: must contain 32 to 1024 visible ASCII characters (its content is not shown because it may be a secret)",
            ],
        ),
        (
            format!("audience: a, algorithms: [RS256], public_key_files: ['{pem}']"),
            vec!["sales.t.buyer.public_key_files[0]: must contain a public Ed25519 or RSA key in PEM"],
        ),
        (
            format!("audience: a, algorithms: [RS256], jwks_file: '{pem}'"),
            vec!["sales.t.buyer.jwks_file: must contain a JSON Web Key Set (RFC 7517)"],
        ),
        (
            "audience: a, algorithms: [RS256], jwks_file: /nowhere/jwks".to_owned(),
            vec!["sales.t.buyer.jwks_file: cannot be read: No such file or directory (os error 2)"],
        ),
    ];
    for (setting, expected) in rows {
        check(&TOKEN.replace("HERE", &setting), &expected);
    }
    let config = read(&TOKEN.replace("HERE", &hs));
    let BuyerSource::Token(token) = &config.sales[0].buyer else { panic!("a token proves it") };
    assert_eq!(token.place, TokenLocation::Header("authorization".to_owned()));
    assert_eq!((token.rules.claim.as_str(), token.rules.leeway), ("sub", 30 * SECOND));
    assert!(!format!("{config:?}").contains(SECRET), "it can be logged");
}

#[test]
fn proxies_and_limits() {
    each(
        "{sales: {t: {HERE}}}",
        &[
            (
                "buyer: {from: proxy, header: X}",
                "sales.t.buyer.from: must be one of client, trusted_proxies, jwt, is \"proxy\"",
            ),
            (
                "buyer: {from: trusted_proxies, header: X-User}",
                "sales.t.buyer: comes from trusted_proxies, but trusted_proxies is empty, so no purchase would succeed",
            ),
            (
                "buyer: {header: X-Forwarded-For}",
                "sales.t.buyer.header: x-forwarded-for is set by the edge and identifies an address, not a buyer",
            ),
            (
                "buyer_limits: {concurrent: 1}",
                "sales.t.buyer_limits: requires a buyer id: set `buyer`, or set this limit to 0",
            ),
            ("admission: {}", "sales.t.admission.key_files: is missing"),
            ("admission: {key_files: []}", "sales.t.admission.key_files: must have at least one entry"),
            (
                "admission: {key_files: [/nowhere/key]}",
                "sales.t.admission.key_files[0]: cannot be read: there is no such file",
            ),
        ],
    );
    check(
        "{trusted_proxies: [10.0.0.1], sales: {t: {buyer: {from: trusted_proxies}}}}",
        &["sales.t.buyer.header: is missing"],
    );
}
