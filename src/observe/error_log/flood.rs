//! Limits the lines of one site in the source to ten per second, then counts.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use log::{Level, Record};

/// Lines per second of one site.
const LINES: u64 = 10;

/// Sites that are tracked. A site that finds no slot is not limited.
const SITES: usize = 256;

/// How far from its first slot a site is searched.
const STEPS: usize = 8;

/// The longest text kept of a suppressed line.
const WORDS_MAX: usize = 200;

/// Recent lines per site.
pub struct Flood {
    sites: [CallSite; SITES],
    held: AtomicU64,
}

/// A site in the source.
struct CallSite {
    /// Its hash; 0 marks a free slot.
    key: AtomicU64,
    /// The second of its last line, as a Unix time, and the number of lines in it.
    second: AtomicU64,
    lines: AtomicU64,
    /// Suppressed lines that are not reported yet.
    held: AtomicU64,
    /// The first of them.
    first: Mutex<Option<First>>,
}

#[derive(Clone)]
struct First {
    level: Level,
    target: String,
    words: String,
}

/// What happens to a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Passage {
    /// It is written. Reports how many of its site were suppressed since the last one.
    Free {
        /// How many.
        held: u64,
    },
    /// It is suppressed and counted.
    Held,
}

/// Suppressed lines of a site.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub level: Level,
    pub target: String,
    /// The text of the first one.
    pub words: String,
    /// The number of others.
    pub held: u64,
}

impl Flood {
    pub const fn new() -> Self {
        Self { sites: [const { CallSite::new() }; SITES], held: AtomicU64::new(0) }
    }

    /// Suppressed lines so far.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether a line is written in this second.
    pub fn pass(&self, record: &Record<'_>, now_s: u64) -> Passage {
        let Some(site) = self.site(record) else { return Passage::Free { held: 0 } };
        if site.second.swap(now_s, Ordering::Relaxed) != now_s {
            site.lines.store(0, Ordering::Relaxed);
        }
        if site.lines.fetch_add(1, Ordering::Relaxed) < LINES {
            let held = site.held.swap(0, Ordering::Relaxed);
            if held > 0 {
                *site.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            return Passage::Free { held };
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        if site.held.fetch_add(1, Ordering::Relaxed) == 0 {
            let words = record.args().to_string().chars().take(WORDS_MAX).collect();
            let first = First { level: record.level(), target: record.target().to_owned(), words };
            *site.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        }
        Passage::Held
    }

    /// Suppressed lines of sites that have been silent since before this second; they count as reported from now on.
    /// `is_more` is set if other sites have suppressed lines.
    pub fn told(&self, before_s: u64, is_more: &mut bool) -> Vec<Told> {
        let mut all = Vec::new();
        for site in self.sites.iter().filter(|site| site.held.load(Ordering::Relaxed) > 0) {
            if site.second.load(Ordering::Relaxed) >= before_s {
                *is_more = true;
                continue;
            }
            let first = site.first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let held = site.held.swap(0, Ordering::Relaxed);
            // A line that is being suppressed right now is reported next time.
            if let (Some(First { level, target, words }), 1..) = (first, held) {
                all.push(Told { level, target, words, held: held - 1 });
            }
        }
        all
    }

    fn site(&self, record: &Record<'_>) -> Option<&CallSite> {
        let mut hasher = std::hash::DefaultHasher::new();
        (record.file(), record.line(), record.target()).hash(&mut hasher);
        let key = hasher.finish().max(1);
        (0..STEPS).find_map(|step| {
            let site = &self.sites[(key as usize).wrapping_add(step) % SITES];
            let taken = site.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
            (taken.is_ok() || taken == Err(key)).then_some(site)
        })
    }
}

impl CallSite {
    const fn new() -> Self {
        Self {
            key: AtomicU64::new(0),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            held: AtomicU64::new(0),
            first: Mutex::new(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(flood: &Flood, line: u32, now_s: u64) -> Passage {
        flood.pass(
            &Record::builder().file(Some("a.rs")).line(Some(line)).args(format_args!("line {line}")).build(),
            now_s,
        )
    }

    #[test]
    fn ten_lines_a_second_are_written_and_the_others_counted() {
        let flood = Flood::new();
        for second in 1..4 {
            for line in 0..100 {
                let held = if second > 1 && line == 0 { 90 } else { 0 };
                let expected = if line < LINES { Passage::Free { held } } else { Passage::Held };
                assert_eq!(pass(&flood, 7, second), expected, "{second} {line}");
                if line == 50 {
                    assert_eq!(pass(&flood, 8, second), Passage::Free { held: 0 }, "another site");
                }
            }
        }
        assert_eq!(flood.held(), 270);
        let mut is_more = false;
        assert_eq!(flood.told(3, &mut is_more), []);
        assert!(is_more, "they may go on in this second");
        is_more = false;
        let told = flood.told(4, &mut is_more);
        let words = "line 7".to_owned();
        assert_eq!(told, [Told { level: Level::Info, target: String::new(), words, held: 89 }]);
        assert!(!is_more && flood.told(5, &mut is_more).is_empty(), "told once");
        assert_eq!(pass(&flood, 7, 5), Passage::Free { held: 0 });
    }

    #[test]
    fn more_places_than_there_is_room_for_are_all_written() {
        let flood = Flood::new();
        for line in 0..10_000 {
            assert_eq!(pass(&flood, line, 1), Passage::Free { held: 0 });
        }
    }
}
