//! The backends that a request may go to, and which of them is next.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use super::backend::{Backend, Pick};
use super::rendezvous;
use super::slow_start::WHOLE;
use super::smooth::{Table, Weighted};
use crate::config::{self, Balance, HashKey};

/// A backend and what the settings say of it now.
pub struct Member {
    pub server: config::Server,
    pub backend: Arc<Backend>,
}

/// The backends of one rank, backups or all others, at one time; never changed, only replaced.
pub struct Tier {
    /// Those that may be tried when they rest.
    all: Vec<Arc<Member>>,
    /// Those that requests go to, in the order of the table.
    usable: Vec<Usable>,
    table: Table,
}

/// A backend that requests go to, with the weight that it has now.
#[derive(Clone)]
pub struct Usable {
    pub member: Arc<Member>,
    pub weight: u32,
}

/// What is looked at to choose a backend for a request.
pub struct Asked<'a, Key, Random> {
    pub balance: &'a Balance,
    pub client: IpAddr,
    /// The hash of this of the request, if it has it.
    pub key: Key,
    /// A number below this one, by chance.
    pub random: Random,
    /// The ids of the backends where it has been.
    pub tried: &'a [usize],
    /// None if nobody rests, so that no trial can be due.
    pub now_ms: Option<u64>,
}

/// Why there is no backend.
pub enum Unpicked {
    /// All are gone, out, or were tried.
    Nobody,
    /// Some could be asked if they had not as many requests as they may have.
    Full,
    /// This tier has been replaced, and the next one is about to be there.
    Replaced,
}

impl Tier {
    /// A tier without backends.
    pub fn empty() -> Self {
        Self { all: Vec::new(), usable: Vec::new(), table: Table::new(&[]) }
    }

    /// The tier that follows this one, of which nobody gets a backend any more.
    pub fn followed_by(&self, all: Vec<Arc<Member>>, usable: Vec<Usable>) -> Self {
        let weighted: Vec<Weighted> = usable.iter().map(|one| (one.member.backend.id(), one.weight)).collect();
        Self { table: self.table.replace(&weighted), all, usable }
    }

    /// Whether it has these backends, with these weights.
    pub fn is(&self, all: &[Arc<Member>], usable: &[Usable]) -> bool {
        let same = |one: &Usable, other: &Usable| Arc::ptr_eq(&one.member, &other.member) && one.weight == other.weight;
        self.all.len() == all.len()
            && self.all.iter().zip(all).all(|(one, other)| Arc::ptr_eq(one, other))
            && self.usable.len() == usable.len()
            && self.usable.iter().zip(usable).all(|(one, other)| same(one, other))
    }

    /// A backend for a request. Whoever rests and whose time is over is tried first, by one request at a time.
    pub fn pick<Key, Random>(&self, asked: &Asked<'_, Key, Random>) -> Result<Pick, Unpicked>
    where
        Key: Fn(&HashKey) -> Option<u64>,
        Random: Fn(u64) -> u64,
    {
        let is_untried = |member: &Member| !asked.tried.contains(&member.backend.id());
        let is_open = |member: &Member| is_untried(member) && member.has_room();
        let hash = match asked.balance {
            Balance::IpHash => Some(rendezvous::client_key(asked.client)),
            Balance::Hash(key) => (asked.key)(key),
            _ => None,
        };
        loop {
            let trial = if hash.is_none() { self.trial(is_open, asked.now_ms) } else { None };
            let member = match (trial, hash, asked.balance) {
                (Some(trial), ..) => Some(trial),
                (None, Some(hash), _) => self.by_hash(hash, is_open, asked.now_ms),
                (None, None, Balance::LeastConn) => self.least(is_open)?,
                (None, None, Balance::RandomTwo) => self.better_of_two(is_open, &asked.random),
                _ => self.in_turn(is_open)?,
            };
            let Some(member) = member else {
                let is_full = self.usable.iter().any(|one| is_untried(&one.member));
                return Err(if is_full { Unpicked::Full } else { Unpicked::Nobody });
            };
            // Another request may have taken the last room there: then it is not open any more.
            if let Some(pick) = member.backend.take(member.server.max_conns) {
                return Ok(pick);
            }
        }
    }

    /// A resting backend whose time is over.
    fn trial(&self, is_open: impl Fn(&Member) -> bool, now_ms: Option<u64>) -> Option<&Member> {
        let now_ms = now_ms?;
        let mut due = self.all.iter().filter(|member| member.backend.trial_is_due(now_ms) && is_open(member));
        due.find(|member| member.begin_trial(now_ms)).map(|member| &**member)
    }

    /// The next of the sequence that is open.
    fn in_turn(&self, is_open: impl Fn(&Member) -> bool) -> Result<Option<&Member>, Unpicked> {
        loop {
            if !self.usable.iter().any(|one| is_open(&one.member)) {
                return Ok(None);
            }
            // The others are looked at again from time to time: whoever was open may be full by now.
            for _ in 0..4 * self.usable.len() {
                let member = self.next()?;
                if is_open(&member.member) {
                    return Ok(Some(&member.member));
                }
            }
        }
    }

    fn next(&self) -> Result<&Usable, Unpicked> {
        self.table.next().map(|position| &self.usable[position]).ok_or(Unpicked::Replaced)
    }

    /// The open one with the fewest requests under way for its weight, as Nginx's `least_conn`. Equals, such as idle
    /// ones, have their turns by weight; if that of none comes soon, the first of them is taken.
    fn least(&self, is_open: impl Fn(&Member) -> bool) -> Result<Option<&Member>, Unpicked> {
        let open = self.usable.iter().filter(|one| is_open(&one.member));
        let Some((load, least)) = open.map(|one| (one.load(), one)).min_by(|(one, _), (other, _)| one.cmp(other))
        else {
            return Ok(None);
        };
        for _ in 0..self.usable.len() {
            let next = self.next()?;
            if is_open(&next.member) && next.load() <= load {
                return Ok(Some(&next.member));
            }
        }
        Ok(Some(&least.member))
    }

    /// The less loaded of two open ones, which are drawn by weight (Mitzenmacher, "The power of two choices in
    /// randomized load balancing", 2001; Nginx's `random two least_conn`).
    fn better_of_two(&self, is_open: impl Fn(&Member) -> bool, random: impl Fn(u64) -> u64) -> Option<&Member> {
        let draw = |other: Option<&Usable>| {
            let is_other = |one: &Usable| other.is_some_and(|other| std::ptr::eq(one, other));
            let among = || self.usable.iter().filter(|one| is_open(&one.member) && !is_other(one));
            let total = among().map(|one| u64::from(one.weight)).sum();
            let mut drawn = if total > 0 { random(total) } else { 0 };
            let mut last = None;
            for one in among() {
                last = Some(one);
                match drawn.checked_sub(u64::from(one.weight)) {
                    Some(rest) => drawn = rest,
                    None => break,
                }
            }
            last
        };
        let one = draw(None)?;
        let better = draw(Some(one)).filter(|other| other.load() < one.load()).unwrap_or(one);
        Some(&better.member)
    }

    /// The backend that wins for this hash.
    fn by_hash(&self, hash: u64, is_open: impl Fn(&Member) -> bool, now_ms: Option<u64>) -> Option<&Member> {
        let score = |member: &Member, weight| rendezvous::score(hash, member.backend.key(), weight);
        let usable = self.usable.iter().filter(|one| is_open(&one.member));
        let usable = best(usable.map(|one| (&*one.member, score(&one.member, one.weight))));
        let trial = now_ms.and_then(|now_ms| {
            // A resting backend is tried by its own clients only.
            let resting = self.all.iter().filter(|member| member.backend.trial_is_due(now_ms) && is_open(member));
            best(resting.map(|member| (&**member, score(member, member.server.weight * WHOLE))))
                .filter(|(_, score)| usable.is_none_or(|(_, usable)| *score > usable))
                .filter(|(member, _)| member.begin_trial(now_ms))
        });
        trial.or(usable).map(|(member, _)| member)
    }
}

fn best<'a>(among: impl Iterator<Item = (&'a Member, f64)>) -> Option<(&'a Member, f64)> {
    among.max_by(|(_, one), (_, other)| one.total_cmp(other))
}

impl Member {
    fn has_room(&self) -> bool {
        let most = self.server.max_conns;
        most == 0 || self.backend.under_way() < u64::from(most)
    }

    /// Takes the trial that is due here, if nobody else was faster.
    fn begin_trial(&self, now_ms: u64) -> bool {
        self.backend.begin_trial(now_ms, self.server.fail_timeout)
    }
}

impl Usable {
    fn load(&self) -> Load {
        Load { under_way: self.member.backend.under_way(), weight: self.weight }
    }
}

/// Requests under way for a weight.
struct Load {
    under_way: u64,
    weight: u32,
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        let scaled = |load: &Self, weight: u32| u128::from(load.under_way) * u128::from(weight);
        scaled(self, other.weight).cmp(&scaled(other, self.weight))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Load {}
