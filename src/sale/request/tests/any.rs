//! Whatever bytes come, they are refused or make a purchase within bounds.

use std::ops::RangeInclusive;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::fuzz::is_within_bounds;
use super::*;

/// Bytes, with those often among them that mean something here.
fn bytes(length: RangeInclusive<usize>) -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&str; 16] =
        ["quantity", "idempotency_key", "buyer", "=", "&", "+", "%", "%ff", "%41", "1", "\"", "\\", "{", "}", ":", ","];
    let piece = prop_oneof![
        3 => proptest::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    vec(piece, length).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_refused_or_within_bounds(
        query in proptest::option::of(bytes(0..=20)),
        buyers in vec(bytes(0..=6), 0..3),
        keys in vec(bytes(0..=6), 0..3),
        media_type in proptest::sample::select(&[JSON, FORM, ""][..]),
        body in bytes(0..=20),
        source in proptest::sample::select(vec![BuyerSource::Anonymous, header(), BuyerSource::Query("buyer".into()), body()]),
    ) {
        let named = |name: &str, values: Vec<Vec<u8>>| {
            values.into_iter().map(|value| (name.as_bytes().to_vec(), value)).collect::<Vec<_>>()
        };
        let mut headers = named("X-User-Id", buyers);
        headers.extend(named("Idempotency-Key", keys));
        headers.extend(named("Content-Type", vec![media_type.as_bytes().to_vec()]));
        let head = Request { query, headers, body };
        match read(&head, &head.body, &settings(&source, false), false) {
            Ok(ask) => is_within_bounds(&ask),
            Err(RequestRefusal::Bad { detail, .. }) => prop_assert!(!detail.is_empty()),
            Err(RequestRefusal::MediaType) => prop_assert!(media_type.is_empty() && !head.body.is_empty()),
            Err(other @ (RequestRefusal::Method | RequestRefusal::TooLarge)) => prop_assert!(false, "{:?}", other),
        }
    }
}
