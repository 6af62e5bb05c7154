//! What is spoken on a listener.

use super::*;

const LISTENER: &str = "{sales: {t: }, listen: [{address: '0.0.0.0:80', HERE}]}";

fn listener(settings: &str) -> Listener {
    read(&LISTENER.replace("HERE", settings)).listen.remove(0)
}

#[test]
fn listeners_are_plain_unless_they_say_otherwise() {
    let plain: Listener = SocketAddr::from(([0, 0, 0, 0], 80)).into();
    for settings in ["", "h2c: false, redirect_https: false, proxy_protocol: false"] {
        assert_eq!(listener(settings), plain);
    }
    assert_eq!(listener("h2c: true"), Listener { http2: true, ..plain.clone() });
    let redirect = |code, port| Listener { redirect_https: Some(Redirect { code, port }), ..plain.clone() };
    assert_eq!(listener("redirect_https: true"), redirect(308, 443));
    assert_eq!(listener("redirect_https: {code: 301}"), redirect(301, 443));
    assert_eq!(listener("redirect_https: {code: 308, port: 8443}"), redirect(308, 8443));
    let from = |networks: &[&str]| {
        let from = networks.iter().map(|network| network.parse().expect("a network")).collect();
        Listener { proxy_protocol: Some(ProxyProtocol { from }), ..plain.clone() }
    };
    assert_eq!(listener("proxy_protocol: true"), from(&[]));
    let networks = from(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
    assert_eq!(listener("proxy_protocol: {from: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32']}"), networks);
}

#[test]
fn tls_has_certificates_and_speaks_http_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, other] = ["one", "other"].map(|name| certificate(folder.path(), name));
    let entry = |files: &CertificateFiles| {
        format!("{{certificate: {}, key: {}}}", files.certificate.display(), files.key.display())
    };
    let both = format!("certificates: [{}, {}]", entry(&one), entry(&other));
    let tls = |more: &str| listener(&format!("tls: {{{both}{more}}}"));
    let expected = Tls { certificates: vec![one.clone(), other], min_version: TlsVersion::Tls12 };
    assert_eq!((tls("").tls, tls("").http2), (Some(expected.clone()), true));
    assert_eq!(tls(", min_version: 1.2").tls, Some(expected.clone()));
    let modern = Tls { min_version: TlsVersion::Tls13, ..expected };
    assert_eq!(tls(", min_version: 1.3").tls, Some(modern.clone()));
    assert_eq!(tls(", min_version: '1.3'").tls, Some(modern));
    assert!(!listener(&format!("tls: {{{both}}}, http2: false")).http2);

    let wrong = format!("tls: {{certificates: [{{certificate: {}, key: /nowhere}}]}}", one.certificate.display());
    check(
        &LISTENER.replace("HERE", &wrong),
        &["listen[0].tls.certificates[0].key: cannot be read: No such file or directory (os error 2)"],
    );
    let refused = [
        (", min_version: 1.1", "listen[0].tls.min_version: must be one of 1.2, 1.3, is 1.1"),
        (", min_version: TLSv1.2", "listen[0].tls.min_version: must be one of 1.2, 1.3, is \"TLSv1.2\""),
        ("}, h2c: true, x: {", "listen[0].h2c: is HTTP/2 without TLS; use http2 with tls"),
        (
            "}, redirect_https: true, x: {",
            "listen[0].redirect_https: cannot be combined with tls: it redirects plain HTTP/1 to HTTPS",
        ),
    ];
    for (more, expected) in refused {
        let file = LISTENER.replace("HERE", &format!("tls: {{{both}{more}}}")).replace(", x: {}", "");
        check(&file, &[expected]);
    }
}

#[test]
fn every_value_that_is_refused() {
    let network = "must be a network or an address, such as 10.0.0.0/8 or 192.0.2.7";
    each(
        LISTENER,
        &[
            ("tls: true", "listen[0].tls: must be a mapping of keys to values, is true"),
            ("tls: {}", "listen[0].tls.certificates: is missing"),
            ("tls: {certificates: []}", "listen[0].tls.certificates: must have at least one entry"),
            ("tls: {certificates: [{key: /k}]}", "listen[0].tls.certificates[0].certificate: is missing"),
            ("tls: {certificates: [{certificate: /c}]}", "listen[0].tls.certificates[0].key: is missing"),
            ("http2: true", "listen[0].http2: has no effect without tls; use h2c for HTTP/2 without TLS"),
            ("h2c: 1", "listen[0].h2c: must be true or false, is 1"),
            ("redirect_https: 301", "listen[0].redirect_https: must be true, false or a mapping of settings, is 301"),
            ("redirect_https: {code: 302}", "listen[0].redirect_https.code: must be 301 or 308, is 302"),
            ("redirect_https: {port: 0}", "listen[0].redirect_https.port: must be 1 to 65535, is 0"),
            (
                "redirect_https: true, h2c: true",
                "listen[0].redirect_https: cannot be combined with h2c: it redirects plain HTTP/1 to HTTPS",
            ),
            ("proxy_protocol: v2", "listen[0].proxy_protocol: must be true, false or a mapping of settings, is \"v2\""),
            ("proxy_protocol: {}", "listen[0].proxy_protocol.from: is missing"),
            ("proxy_protocol: {from: []}", "listen[0].proxy_protocol.from: must have at least one entry"),
            ("proxy_protocol: {from: [all]}", &format!("listen[0].proxy_protocol.from[0]: {network}, is \"all\"")),
            (
                "proxy_protocol: {from: [10.0.0.0/33]}",
                &format!("listen[0].proxy_protocol.from[0]: {network}, is \"10.0.0.0/33\""),
            ),
        ],
    );
}
