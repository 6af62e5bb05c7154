//! The same backend for the same key of a request, by weighted rendezvous hashing.
//!
//! Every backend gets a score for the key, and the highest wins (Thaler and Ravishankar, "Using name-based mappings
//! to increase hit rates", 1998). The score is `weight / -ln(h)` with `h` uniform in (0, 1), which makes a backend win
//! in proportion to its weight (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005). So a backend
//! that leaves moves its own keys only, and gets them back when it returns; one that joins takes its share and no more;
//! and a weight that changes moves no more keys than it must. It needs no table, as ketama and Maglev do, and a look at
//! every backend, some 10 ns each.

use std::net::{IpAddr, SocketAddr};

/// What is hashed of a client: the first three octets of an IPv4 address, as Nginx's `ip_hash` does, so that clients
/// behind one network stay together; an IPv6 address whole. An IPv4 address in IPv6 form counts as IPv4.
pub fn client_key(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            hash(&[a, b, c])
        }
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

/// What is hashed of a backend: its address, so that all edges with the same backends choose alike.
pub fn backend_key(backend: SocketAddr) -> u64 {
    let port = u64::from(backend.port());
    match backend.ip().to_canonical() {
        IpAddr::V4(address) => mix(hash(&address.octets()) ^ port),
        IpAddr::V6(address) => mix(hash(&address.octets()) ^ port),
    }
}

/// The score of a backend for a key; the highest is chosen. Positive, and never NaN for a weight of at least 1.
pub fn score(key: u64, backend_key: u64, weight: u32) -> f64 {
    // The upper 52 bits, shifted by a half, lie strictly between 0 and 1.
    let h = ((mix(key ^ backend_key) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    f64::from(weight) / -h.ln()
}

/// The key of these bytes, the same on all edges.
pub fn hash(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    bytes.chunks(8).fold(mix(bytes.len() as u64), |hash, chunk| mix(hash ^ word(chunk)))
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: [u32; 4] = [1, 2, 3, 4];

    fn backend(i: usize) -> u64 {
        backend_key(SocketAddr::from(([127, 0, 0, 1], 3001 + i as u16)))
    }

    fn choose(client: IpAddr, among: &[usize]) -> usize {
        let score = |i: usize| score(client_key(client), backend(i), WEIGHTS[i]);
        *among.iter().max_by(|&&a, &&b| score(a).total_cmp(&score(b))).expect("somebody")
    }

    fn clients() -> impl Iterator<Item = IpAddr> {
        (0..40_000_u32).map(|i| IpAddr::from([10, (i >> 8) as u8, i as u8, 7]))
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut counts = [0_u32; 4];
        clients().for_each(|client| counts[choose(client, &[0, 1, 2, 3])] += 1);
        for (count, weight) in counts.iter().zip(WEIGHTS) {
            let due = f64::from(weight) * 4_000.0;
            assert!((f64::from(*count) - due).abs() < due * 0.05, "{counts:?}");
        }
    }

    #[test]
    fn only_the_clients_of_a_backend_that_left_move() {
        for client in clients() {
            let (with, without) = (choose(client, &[0, 1, 2, 3]), choose(client, &[0, 1, 3]));
            assert!(with == without || with == 2, "{client}: {with} {without}");
        }
    }

    #[test]
    fn a_backend_that_joins_takes_its_share_and_nobody_else_moves() {
        for n in 1..16_usize {
            let choose = |key: u64, among: usize| {
                let score = |i: &usize| score(key, backend(*i), 1);
                (0..among).max_by(|a, b| score(a).total_cmp(&score(b))).expect("somebody")
            };
            let keys = (0..20_000_u64).map(|key| hash(format!("user-{key}").as_bytes()));
            let moved: Vec<usize> =
                keys.filter(|&key| choose(key, n) != choose(key, n + 1)).map(|key| choose(key, n + 1)).collect();
            assert!(moved.iter().all(|&to| to == n), "only to the new one");
            let due = 20_000.0 / (n + 1) as f64;
            assert!((moved.len() as f64 - due).abs() < due * 0.1, "{n}: {} of {due}", moved.len());
        }
    }

    #[test]
    fn every_byte_counts() {
        let keys = ["", "a", "b", "ab", "ba", "a\0", "12345678", "123456789", "12345678\0", "87654321"];
        let hashes: std::collections::BTreeSet<u64> = keys.iter().map(|key| hash(key.as_bytes())).collect();
        assert_eq!(hashes.len(), keys.len());
    }

    #[test]
    fn a_network_stays_together_and_ipv6_is_told_apart() {
        let key = |text: &str| client_key(text.parse().expect("an address"));
        assert_eq!(key("192.0.2.1"), key("192.0.2.254"));
        assert_ne!(key("192.0.2.1"), key("192.0.3.1"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.9"));
        assert_ne!(key("2001:db8::1"), key("2001:db8::2"));
    }
}
