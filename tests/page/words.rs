//! The page has a text for every problem type that the edge and the order service return.

use std::collections::BTreeSet;

use super::texts;

/// Problem types that only operators get.
const OPERATORS: [&str; 4] = ["below-sold", "above-maximum", "change-id-reused", "unsupported"];

/// The names of all problems in a file of the program: what stands in quotes behind a status and a comma.
fn problems(path: &str) -> BTreeSet<String> {
    let source = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut words = source.split('"');
    let mut names = BTreeSet::new();
    let mut before = words.next().unwrap_or_default();
    for word in words {
        let status =
            before.trim_end().strip_suffix(',').and_then(|before| before.get(before.len().saturating_sub(3)..));
        let is_status =
            status.is_some_and(|status| status.parse().is_ok_and(|status: u16| (400..600).contains(&status)));
        if is_status && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
            names.insert(word.to_owned());
        }
        before = word;
    }
    names
}

#[test]
fn every_problem_has_its_words() {
    let mut names = problems("src/sale/reply.rs");
    assert!(names.len() > 15 && names.contains("sold-out"), "{names:?}");
    names.extend(
        ["payment-declined", "refund-due", "already-paid", "payment-under-way", "unavailable"].map(str::to_owned),
    );
    let texts = texts("en");
    for name in names.iter().filter(|name| !OPERATORS.contains(&name.as_str())) {
        let has = |family: &str| texts.get(format!("{family}.{name}")).is_some();
        assert!(has("refusal") || has("trouble"), "{name} has no text");
    }
}
