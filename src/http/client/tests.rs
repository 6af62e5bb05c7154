use proptest::prelude::*;

use super::*;

/// A head with these lines of one header.
struct Lines<'a>(&'static str, Vec<&'a [u8]>);

impl Head for Lines<'_> {
    fn method(&self) -> &str {
        "GET"
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn headers<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a [u8])) {
        if name.eq_ignore_ascii_case(self.0) {
            self.1.iter().for_each(|line| each(line));
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn networks(list: &[&str]) -> Networks {
    list.iter().map(|text| text.parse::<Network>().expect("a network")).collect()
}

/// Whom the proxies of 10.0.0.0/8 and 2001:db8:aa::/48 name.
fn named(header: AddressHeader, peer: &str, lines: &[&str]) -> String {
    let clients = Clients::new(networks(&["10.0.0.0/8", "2001:db8:aa::/48"]), header);
    let head = Lines(header.name(), lines.iter().map(|line| line.as_bytes()).collect());
    clients.of(address(peer), &head).address.to_string()
}

#[test]
fn the_newest_address_that_is_no_proxy_is_the_client() {
    let table: &[(&[&str], &str)] = &[
        (&["192.0.2.7"], "192.0.2.7"),
        (&["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        (&["6.6.6.6, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        (&["6.6.6.6", "192.0.2.7,10.0.0.2", "10.0.0.3"], "192.0.2.7"),
        (&["192.0.2.7:4711"], "192.0.2.7"),
        (&["[2001:db8::7]:4711"], "2001:db8::7"),
        (&["[2001:db8::7]"], "2001:db8::7"),
        (&["2001:db8::7"], "2001:db8::7"),
        (&["::ffff:192.0.2.7"], "192.0.2.7"),
        (&["192.0.2.7, ::ffff:10.0.0.2"], "192.0.2.7"),
        (&["192.0.2.7, 2001:db8:aa::2"], "192.0.2.7"),
        (&["192.0.2.7, , ,"], "192.0.2.7"),
        // All of them are proxies: the first of them asks for itself.
        (&["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        // Nobody is named: the proxy that says so is all that is known.
        (&[], "10.0.0.1"),
        (&[""], "10.0.0.1"),
        (&["unknown"], "10.0.0.1"),
        (&["192.0.2.7, unknown"], "10.0.0.1"),
        (&["192.0.2.7, _hidden, 10.0.0.2"], "10.0.0.2"),
        (&["192.0.2.7, 1.2.3"], "10.0.0.1"),
        (&["192.0.2.7, 1.2.3.4.5"], "10.0.0.1"),
        (&["192.0.2.7, 01.2.3.4"], "10.0.0.1"),
        (&["192.0.2.7 8.8.8.8"], "10.0.0.1"),
        (&["192.0.2.7:"], "10.0.0.1"),
        (&["192.0.2.7:port"], "10.0.0.1"),
        (&["[192.0.2.7]"], "10.0.0.1"),
        (&["[2001:db8::7"], "10.0.0.1"),
        (&["fe80::1%eth0"], "10.0.0.1"),
        (&["\"6.6.6.6, 192.0.2.7"], "192.0.2.7"),
    ];
    for (lines, expected) in table {
        assert_eq!(named(AddressHeader::XForwardedFor, "10.0.0.1", lines), *expected, "{lines:?}");
        assert_eq!(named(AddressHeader::XForwardedFor, "192.0.2.99", lines), "192.0.2.99", "not of a stranger");
    }
    assert_eq!(named(AddressHeader::XForwardedFor, "::ffff:10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
    assert_eq!(named(AddressHeader::XRealIp, "10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
}

#[test]
fn forwarded_is_read_as_its_rfc_has_it() {
    let table = [
        ("for=192.0.2.7", "192.0.2.7"),
        ("for=\"_gazonk\", For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("proto=https ; For = \"192.0.2.7:80\"", "192.0.2.7"),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
        ("for=192.0.2.43, for=10.0.0.2;by=\"a,b;c\"", "192.0.2.43"),
        ("for=192.0.2.43;by=\"a\\\",b\", for=10.0.0.2", "192.0.2.43"),
        ("for=\"192.0.2.7:_port\"", "192.0.2.7"),
        ("for=\"192.0.2.\\7\"", "192.0.2.7"),
        // What stands in front cannot hide what the proxy wrote.
        ("for=\", for=192.0.2.7", "192.0.2.7"),
        ("for=6.6.6.6;by=\"\\, for=192.0.2.7", "192.0.2.7"),
        ("for=unknown", "10.0.0.1"),
        ("for=_hidden", "10.0.0.1"),
        ("for=\"192.0.2.7", "10.0.0.1"),
        ("for=192.0.2.7;for=192.0.2.8", "10.0.0.1"),
        ("proto=http", "10.0.0.1"),
        ("192.0.2.7", "10.0.0.1"),
        (",;=\",;", "10.0.0.1"),
    ];
    for (line, expected) in table {
        assert_eq!(named(AddressHeader::Forwarded, "10.0.0.1", &[line]), expected, "{line}");
    }
}

#[test]
fn a_chain_is_followed_only_so_far() {
    let proxies = |count| format!("192.0.2.7, {}", vec!["10.0.0.2"; count].join(", "));
    assert_eq!(named(AddressHeader::XForwardedFor, "10.0.0.1", &[&proxies(63)]), "192.0.2.7");
    assert_eq!(named(AddressHeader::XForwardedFor, "10.0.0.1", &[&proxies(64)]), "10.0.0.2");
    let mut lines = vec!["10.0.0.2"; 16];
    lines.insert(0, "192.0.2.7");
    assert_eq!(named(AddressHeader::XForwardedFor, "10.0.0.1", &lines), "10.0.0.2");
    lines.remove(1);
    assert_eq!(named(AddressHeader::XForwardedFor, "10.0.0.1", &lines), "192.0.2.7");
}

#[test]
fn networks_are_read_and_know_their_own() {
    let network = |text: &str| text.parse::<Network>();
    for (text, shown) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ] {
        assert_eq!(network(text).expect("a network").to_string(), shown);
    }
    for text in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/", "10.0.0/8", "a/8", "::/129", "::/256"] {
        assert_eq!(network(text), Err(NetworkError::Malformed), "{text}");
    }
    assert_eq!(network("::ffff:10.0.0.0/8"), Err(NetworkError::Malformed));
    let meant = network("10.0.0.0/8").expect("a network");
    assert_eq!(network("10.1.2.3/8"), Err(NetworkError::Meant(meant)));
    let has = |network: &str, of: &str| network.parse::<Network>().expect("a network").contains(address(of));
    assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
    assert!(has("10.0.0.0/8", "::ffff:10.0.0.1"));
    assert!(has("10.0.0.7", "10.0.0.7") && !has("10.0.0.7", "10.0.0.6"));
    assert!(has("2001:db8::/33", "2001:db8:7fff::1") && !has("2001:db8::/33", "2001:db8:8000::1"));
    assert!(!has("::/0", "10.0.0.1") && !has("0.0.0.0/0", "2001:db8::1"));
}

#[test]
fn the_narrowest_network_decides() {
    let access = |allow: &[&str], deny: &[&str]| Access { allow: networks(allow), deny: networks(deny) };
    let may = |access: &Access, of: &str| access.allows(address(of));
    assert!(may(&access(&[], &[]), "192.0.2.7"));
    let only = access(&["10.0.0.0/8"], &[]);
    assert!(may(&only, "10.0.0.1") && !may(&only, "192.0.2.7") && !may(&only, "2001:db8::1"));
    let all_but = access(&[], &["10.0.0.0/8"]);
    assert!(!may(&all_but, "10.0.0.1") && may(&all_but, "192.0.2.7"));
    let both = access(&["10.0.0.0/8", "10.9.9.9"], &["10.9.0.0/16"]);
    assert!(may(&both, "10.0.0.1") && !may(&both, "10.9.0.1") && may(&both, "10.9.9.9") && !may(&both, "192.0.2.7"));
}

/// Anything that a header can hold.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => prop::sample::select(b"0123456789.:,;=\"\\[]_ forxFOR".to_vec()),
        1 => (0x20..=0xff_u8).prop_filter("not DEL", |byte| *byte != 0x7f),
    ];
    prop::collection::vec(byte, 0..80)
}

proptest! {
    /// Whatever a stranger sends, it is the stranger who asks.
    #[test]
    fn a_stranger_is_nobody_else(lines in prop::collection::vec(line(), 0..4)) {
        for header in [AddressHeader::XForwardedFor, AddressHeader::Forwarded, AddressHeader::XRealIp] {
            let clients = Clients::new(networks(&["10.0.0.0/8"]), header);
            let head = Lines(header.name(), lines.iter().map(Vec::as_slice).collect());
            let stranger = Client { address: address("192.0.2.99"), by_proxy: false };
            prop_assert_eq!(clients.of(stranger.address, &head), stranger);
        }
    }

    /// Whatever a client sends through proxies of ours, it is the client whom the first of them saw.
    #[test]
    fn a_client_cannot_hide_behind_what_it_sends(
        forged in line(),
        client in any::<[u8; 16]>(),
        is_ipv4: bool,
        port in prop::option::of(any::<u16>()),
        hops in 0..5_usize,
        own_line: bool,
    ) {
        let client = match (is_ipv4, client) {
            (true, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
            (false, all) => IpAddr::from(all),
        }
        .to_canonical();
        prop_assume!(!networks(&["10.0.0.0/8"]).contain(client));
        let node = match (client, port) {
            (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
            (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
            (IpAddr::V6(address), None) => format!("[{address}]"),
            (address, None) => address.to_string(),
        };
        for header in [AddressHeader::XForwardedFor, AddressHeader::Forwarded] {
            let entry = |node: &str| match header {
                AddressHeader::Forwarded => format!("for=\"{node}\";proto=https"),
                _ => node.to_owned(),
            };
            let mut written = entry(&node);
            (0..hops).for_each(|hop| written += &format!(", {}", entry(&format!("10.0.0.{hop}"))));
            let together = [&forged[..], b", ", written.as_bytes()].concat();
            let lines = if own_line { vec![&forged[..], written.as_bytes()] } else { vec![&together[..]] };
            let clients = Clients::new(networks(&["10.0.0.0/8"]), header);
            let seen = clients.of(address("10.0.0.99"), &Lines(header.name(), lines));
            prop_assert_eq!(seen, Client { address: client, by_proxy: true });
        }
    }
}
