//! Which fault happens when. It is drawn from a seed: the same seed plans the same faults.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fault::{Fault, Weather};
use crate::harness::Tear;

/// Where all that is random in a story comes from. Every part of it draws from a source of its own, by its name, so
/// that none depends on how fast the others are.
pub struct Fate(StdRng);

impl Fate {
    pub fn of(seed: u64, name: &str) -> Self {
        // FNV-1a: a name is a number that is the same in every build.
        let mixed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mixed))
    }

    pub fn number(&mut self, range: Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    pub fn ms(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.number(range))
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.number(0..100) < percent
    }

    pub fn one_of<T: Clone>(&mut self, things: &[T]) -> T {
        things[self.number(0..things.len() as u64) as usize].clone()
    }

    /// One of two edges, or of two of anything else.
    pub fn either(&mut self) -> usize {
        self.number(0..2) as usize
    }

    /// Any way in which a network can be bad.
    pub fn weather(&mut self) -> Weather {
        let most = self.ms(20..300);
        self.one_of(&[
            Weather::RepliesLost,
            Weather::RepliesLate,
            Weather::RequestsLate,
            Weather::Overtaken,
            Weather::BlackHole,
            Weather::Jitter(most),
            Weather::ByteByByte,
            Weather::Cut,
        ])
    }

    pub fn tear(&mut self) -> Tear {
        self.one_of(&[Tear::Close, Tear::Reset, Tear::HideFromClient, Tear::HideFromTarget])
    }
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// The faults of a test, in the order of their times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub faults: Vec<Planned>,
    /// No fault lasts longer than this.
    pub time: Duration,
}

/// Plans a schedule, one fault after the other.
pub struct Plan {
    pub fate: Fate,
    at: Duration,
    schedule: Schedule,
}

impl Schedule {
    /// Calls `story` for more faults until the time is over.
    pub fn draw(seed: u64, name: &str, time: Duration, mut story: impl FnMut(&mut Plan)) -> Self {
        let schedule = Self { faults: Vec::new(), time };
        let mut plan = Plan { fate: Fate::of(seed, name), at: Duration::ZERO, schedule };
        while plan.at < time {
            let before = plan.at;
            story(&mut plan);
            assert!(plan.at > before, "a story takes time");
        }
        plan.schedule.faults.sort_by_key(|planned| planned.at);
        plan.schedule
    }
}

impl Plan {
    /// Lets time pass.
    pub fn after(&mut self, ms: Range<u64>) -> &mut Self {
        self.at += self.fate.ms(ms);
        self
    }

    /// A fault that lasts for a while. Time does not pass by it: others may come meanwhile.
    pub fn begins(&mut self, fault: Fault, lasts_ms: Range<u64>) -> Duration {
        let left = self.schedule.time.saturating_sub(self.at);
        let lasts = self.fate.ms(lasts_ms).min(left);
        if !left.is_zero() {
            self.schedule.faults.push(Planned { at: self.at, lasts, fault });
        }
        lasts
    }

    /// A fault, until its end.
    pub fn suffers(&mut self, fault: Fault, lasts_ms: Range<u64>) -> &mut Self {
        let lasts = self.begins(fault, lasts_ms);
        self.at += lasts;
        self
    }

    /// A fault that is over at once.
    pub fn meets(&mut self, fault: Fault) -> &mut Self {
        self.begins(fault, 0..1);
        self
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Planned { at, lasts, fault } in &self.faults {
            write!(f, "  {:7.3} s  {fault}", at.as_secs_f64())?;
            if lasts.is_zero() { writeln!(f)? } else { writeln!(f, ", for {lasts:?}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Schedule};
    use std::time::Duration;

    fn drawn(seed: u64) -> Schedule {
        Schedule::draw(seed, "a story", Duration::from_secs(5), |plan| {
            let edge = plan.fate.either();
            let weather = plan.fate.weather();
            plan.after(10..500).suffers(Fault::Network(edge, weather), 100..900);
        })
    }

    #[test]
    fn the_same_seed_plans_the_same_faults() {
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let schedule = drawn(7);
        assert!(schedule.faults.len() > 3, "{schedule}");
        assert!(schedule.faults.iter().all(|planned| planned.at + planned.lasts <= schedule.time), "{schedule}");
        assert!(schedule.faults.is_sorted_by_key(|planned| planned.at));
    }
}
