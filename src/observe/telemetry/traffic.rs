//! All answered requests, whichever way they took.

use super::Counter;

/// The label values of `spikegate_requests_total`; `none` if the client closed the connection before the answer.
pub const CODES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests by status class.
#[derive(Debug, Default)]
pub struct Codes([Counter; CODES.len()]);

impl Codes {
    /// Counts a request with this answer, or none.
    pub fn count(&self, status: Option<u16>) {
        let class = status.map_or(0, |status| usize::from(status / 100));
        // Backends may send any number; an invalid status counts as none.
        self.0.get(class).unwrap_or(&self.0[0]).add(1);
    }

    /// In the order of [`CODES`].
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CODES.into_iter().zip(self.0.iter().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_class() {
        let codes = Codes::default();
        for status in [None, Some(101), Some(200), Some(299), Some(308), Some(404), Some(503), Some(999), Some(0)] {
            codes.count(status);
        }
        let counts: Vec<_> = codes.counts().collect();
        assert_eq!(counts, [("none", 3), ("1xx", 1), ("2xx", 2), ("3xx", 1), ("4xx", 1), ("5xx", 1)]);
    }
}
