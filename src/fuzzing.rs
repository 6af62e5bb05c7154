//! What is fuzzed: a function for each reader of bytes that others wrote, which panics where something does not hold.
//!
//! The targets in `fuzz/` call these, and so does a test, with every input of `fuzz/corpus`; the checks stand beside
//! what they check. No product is built with the feature `fuzzing`.

pub use crate::auth::jwt::fuzz::check as jwt;
pub use crate::config::fuzz::check as config;
pub use crate::http::client::forwarded::fuzz::check as forwarded;
pub use crate::sale::request::fuzz::check as request;
pub use crate::traffic::front::head::fuzz::check as head;
pub use crate::traffic::front::head::fuzz::chunked::check as chunked;
pub use crate::traffic::front::proxy_protocol::fuzz::check as proxy_header;

use crate::delivery::fuzz::can_be_told;

/// Bytes as the file of an embedded ledger. What is read from them can be delivered.
pub fn journal(bytes: &[u8]) {
    crate::stores::embedded::journal::fuzz::check(bytes, can_be_told);
}

/// Bytes as a reply of Redis. What is read from them can be delivered.
pub fn reply(bytes: &[u8]) {
    crate::stores::redis::reply::fuzz::check(bytes, can_be_told);
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::path::Path;

    type Check = fn(&[u8]);

    /// Each is the name of a binary in `fuzz/` and of a folder in `fuzz/corpus`.
    const TARGETS: [(&str, Check); 9] = [
        ("chunked", super::chunked),
        ("config", super::config),
        ("forwarded", super::forwarded),
        ("head", super::head),
        ("journal", super::journal),
        ("jwt", super::jwt),
        ("proxy_header", super::proxy_header),
        ("reply", super::reply),
        ("request", super::request),
    ];

    #[test]
    fn what_was_found_once_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (target, check) in TARGETS {
            let mut inputs = 0;
            for input in std::fs::read_dir(corpus.join(target)).expect("the corpus is there") {
                let path = input.expect("it can be listed").path();
                let bytes = std::fs::read(&path).expect("it can be read");
                assert!(catch_unwind(|| check(&bytes)).is_ok(), "see above; it was {}", path.display());
                inputs += 1;
            }
            assert!(inputs > 0, "no input for {target}");
        }
    }
}
