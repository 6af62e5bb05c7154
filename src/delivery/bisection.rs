//! Finds the events that a receiver refuses: splits a refused batch in two and tries each half.

use std::ops::Range;

/// The events still to be posted, in order; without I/O.
#[derive(Debug)]
pub struct Bisection {
    /// Ranges to post; the last one is next.
    left: Vec<Range<usize>>,
}

impl Bisection {
    /// All `count` events, not tried yet.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self { left: Vec::from_iter((count > 0).then_some(0..count)) }
    }

    /// The events to post next; none if all were accepted or set aside. `fitting` says how many events of a range, from
    /// its first on, fit into one POST, at least one.
    pub fn next(&mut self, fitting: impl FnOnce(Range<usize>) -> usize) -> Option<Range<usize>> {
        let range = self.left.pop()?;
        let end = range.start + fitting(range.clone()).clamp(1, range.len());
        if end < range.end {
            self.left.push(end..range.end);
        }
        let next = range.start..end;
        self.left.push(next.clone());
        Some(next)
    }

    /// Removes the events that [`Self::next`] returned.
    pub fn done(&mut self) {
        self.left.pop();
    }

    /// Records that the events that [`Self::next`] returned were refused. Returns true if it was a single event, which
    /// then is still next; otherwise its first half is next.
    pub fn refused(&mut self) -> bool {
        let Some(range) = self.left.pop() else { return false };
        let alone = range.len() == 1;
        if alone {
            self.left.push(range);
        } else {
            let middle = range.start + range.len() / 2;
            self.left.push(middle..range.end);
            self.left.push(range.start..middle);
        }
        alone
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Posts `count` events to a receiver that refuses every batch that contains one of `poison`. Returns the accepted
    /// events, the ones set aside, and the number of POSTs.
    fn deliver(count: usize, fitting: usize, poison: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let (mut taken, mut aside, mut posts) = (Vec::new(), Vec::new(), 0);
        let mut bisection = Bisection::of(count);
        while let Some(range) = bisection.next(|_| fitting) {
            posts += 1;
            if !range.clone().any(|event| poison.contains(&event)) {
                taken.extend(range);
                bisection.done();
            } else if bisection.refused() {
                aside.extend(range);
                bisection.done();
            }
        }
        (taken, aside, posts)
    }

    #[test]
    fn one_event_is_found_among_512_with_few_posts() {
        let (taken, aside, posts) = deliver(512, 512, &[300]);
        assert_eq!(aside, [300]);
        assert_eq!(taken, (0..512).filter(|event| *event != 300).collect::<Vec<_>>());
        assert_eq!(posts, 1 + 2 * 9, "the batch, and two halves for each time that 512 is halved");
    }

    #[test]
    fn nothing_is_nothing_to_do() {
        assert_eq!(deliver(0, 1, &[]), (vec![], vec![], 0));
    }

    proptest! {
        #[test]
        fn whatever_is_refused_the_rest_arrives_in_order(
            count in 1usize..200,
            fitting in 1usize..300,
            poison in proptest::collection::btree_set(0usize..200, 0..12),
        ) {
            let poison: Vec<usize> = poison.into_iter().filter(|event| *event < count).collect();
            let (taken, aside, _) = deliver(count, fitting, &poison);
            prop_assert_eq!(taken, (0..count).filter(|event| !poison.contains(event)).collect::<Vec<_>>());
            prop_assert_eq!(aside, poison);
        }
    }
}
