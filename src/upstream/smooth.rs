//! Smooth weighted round robin as an immutable table and one counter: exact, without a lock, and continued without a
//! jump when the set of backends changes.
//!
//! The sequence is Nginx's (commit 52327e0627f4, "smooth weighted round-robin"): at each request every backend's
//! current weight grows by its weight, the largest is taken (the first of equals) and pays the sum of all weights back.
//! A current weight divided by that sum is what the backend is *owed*: the requests that are due to it by its share,
//! less those it was given. From nothing owed, weights 5, 1, 1 give a a b a c a a, and then the same again.
//!
//! From any other start the sequence has a beginning of its own and then repeats with the sum of the weights as its
//! period; both parts are worked out when the table is made, so that a pick is one addition and one look-up.

use std::sync::atomic::{AtomicU64, Ordering};

/// One request, in the unit in which debts are counted: fine enough that rounding stays below a millionth of a request
/// over a thousand changes, coarse enough that a debt times the largest sum of weights fits an `i64`.
const REQUEST: i64 = 1 << 32;

/// The largest sum of weights that a table is made for. Weights that add up to more, after division by their greatest
/// common divisor, are scaled down to it, each to at least 1; a share is then off by at most 1/65,536 of the requests.
const MAX_TOTAL: u64 = 65_536;

/// More rounds than any start needs before the sequence repeats; only a guard against a table without an end.
const MAX_ROUNDS: usize = 1_000;

/// Set in the counter of a table that has been replaced. No counter gets there by counting.
const FROZEN: u64 = 1 << 63;

/// A backend's id, which stays its own in the tables that follow, and its weight, at least 1.
pub type Weighted = (usize, u32);

/// A sequence of backends and how far it has been used.
pub struct Table {
    sequence: Sequence,
    used: Used,
}

/// Every request changes this counter, so it has a cache line (two, for the prefetcher) to itself.
#[repr(align(128))]
struct Used(AtomicU64);

impl Table {
    /// A table for `backends`, in the order in which ties are decided; nothing is owed to anyone.
    pub fn new(backends: &[Weighted]) -> Self {
        Self::from(Sequence::new(
            backends.iter().map(|&(backend, weight)| Share { backend, weight, owed: 0 }).collect(),
        ))
    }

    /// The position of the next backend, or `None` if this table has been replaced: the caller takes the new one.
    ///
    /// Must not be called on a table without backends.
    pub fn next(&self) -> Option<usize> {
        let n = self.used.0.fetch_add(1, Ordering::Relaxed);
        (n & FROZEN == 0).then(|| self.sequence.at(n))
    }

    /// Ends this table and makes the one that follows it, for `backends`.
    ///
    /// Nobody gets a backend from this table any more, so what each is owed is known exactly. A backend that stays
    /// keeps it; what those that leave were owed is spread over those that stay, by weight; one that comes starts with
    /// nothing owed.
    pub fn replace(&self, backends: &[Weighted]) -> Self {
        let n = self.used.0.fetch_or(FROZEN, Ordering::Relaxed) & !FROZEN;
        Self::from(self.sequence.followed_by(n, backends))
    }
}

impl From<Sequence> for Table {
    fn from(sequence: Sequence) -> Self {
        Self { sequence, used: Used(AtomicU64::new(0)) }
    }
}

/// The infinite sequence of a set of backends, each told by its position.
struct Sequence {
    /// As it begins.
    shares: Vec<Share>,
    /// What comes once.
    beginning: Vec<usize>,
    /// What comes again and again.
    cycle: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Share {
    backend: usize,
    weight: u32,
    /// In units of 1/[`REQUEST`]; the sum over all shares is 0.
    owed: i64,
}

impl Sequence {
    fn new(mut shares: Vec<Share>) -> Self {
        reduce(&mut shares);
        let mut walk = Walk::new(&shares);
        let mut beginning = Vec::new();
        let mut cycle = Vec::new();
        if shares.is_empty() {
            return Self { shares, beginning, cycle };
        }
        // A period is as long as the sum of the weights, since each backend then gets as many requests as its weight.
        let period: usize = shares.iter().map(|share| share.weight as usize).sum();
        for _ in 0..MAX_ROUNDS {
            let before = walk.current.clone();
            cycle = (0..period).map(|_| walk.step()).collect();
            if walk.current == before {
                break;
            }
            beginning.append(&mut cycle.clone());
        }
        Self { shares, beginning, cycle }
    }

    fn at(&self, n: u64) -> usize {
        let n = n as usize;
        match self.beginning.get(n) {
            Some(&position) => position,
            None => self.cycle[(n - self.beginning.len()) % self.cycle.len()],
        }
    }

    /// The sequence for `backends` that goes on where this one is left after `n` requests.
    fn followed_by(&self, n: u64, backends: &[Weighted]) -> Self {
        let stays = |share: &&Share| backends.iter().any(|&(backend, _)| backend == share.backend);
        let now = self.after(n);
        let left: i64 = now.iter().filter(|share| !stays(share)).map(|share| share.owed).sum();
        let weight_of_stayers: i64 = now.iter().filter(stays).map(|share| i64::from(share.weight)).sum();

        let mut shares: Vec<Share> = backends
            .iter()
            .map(|&(backend, weight)| {
                let stayer = now.iter().find(|share| share.backend == backend);
                let owed =
                    stayer.map_or(0, |share| share.owed + proportion(left, i64::from(share.weight), weight_of_stayers));
                Share { backend, weight, owed }
            })
            .collect();
        balance(&mut shares);
        Self::new(shares)
    }

    /// What is owed to each after `n` requests.
    fn after(&self, n: u64) -> Vec<Share> {
        if self.shares.is_empty() {
            return Vec::new();
        }
        let n = n as usize;
        let steps = match n.checked_sub(self.beginning.len()) {
            Some(beyond) => self.beginning.len() + beyond % self.cycle.len(),
            None => n,
        };
        let mut walk = Walk::new(&self.shares);
        for _ in 0..steps {
            walk.step();
        }
        let mut shares = self.shares.clone();
        for (share, current) in shares.iter_mut().zip(&walk.current) {
            share.owed = current / walk.total;
        }
        balance(&mut shares);
        shares
    }
}

/// Nginx's loop. Its current weights are here in units of 1/[`REQUEST`], so that debts from an earlier set of backends,
/// which are fractions in the weights of this one, are kept.
struct Walk {
    current: Vec<i64>,
    weights: Vec<i64>,
    total: i64,
}

impl Walk {
    fn new(shares: &[Share]) -> Self {
        let weights: Vec<i64> = shares.iter().map(|share| i64::from(share.weight)).collect();
        let total = weights.iter().sum();
        Self { current: shares.iter().map(|share| share.owed * total).collect(), weights, total }
    }

    /// The position of the share whose turn it is.
    fn step(&mut self) -> usize {
        let mut best = 0;
        for i in 0..self.current.len() {
            self.current[i] += self.weights[i] * REQUEST;
            if self.current[i] > self.current[best] {
                best = i;
            }
        }
        self.current[best] -= self.total * REQUEST;
        best
    }
}

/// Brings weights to their smallest form, and below [`MAX_TOTAL`].
fn reduce(shares: &mut [Share]) {
    let divisor = shares.iter().fold(0, |divisor, share| gcd(divisor, share.weight)).max(1);
    let total: u64 = shares.iter().map(|share| u64::from(share.weight / divisor)).sum();
    for share in shares {
        let mut weight = u64::from(share.weight / divisor);
        if total > MAX_TOTAL {
            weight = (weight * MAX_TOTAL / total).max(1);
        }
        // At most the weight it was made from, which is a u32.
        share.weight = weight as u32;
    }
}

/// Makes the sum of what is owed 0 again after divisions were rounded: the first bears the difference, which is less
/// than one unit for each share.
fn balance(shares: &mut [Share]) {
    let sum: i64 = shares.iter().map(|share| share.owed).sum();
    if let Some(first) = shares.first_mut() {
        first.owed -= sum;
    }
}

/// `whole * part / parts`, without overflow in between.
fn proportion(whole: i64, part: i64, parts: i64) -> i64 {
    // Not more than `whole` in magnitude, since a part is never larger than the sum of the parts.
    (i128::from(whole) * i128::from(part) / i128::from(parts)) as i64
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
