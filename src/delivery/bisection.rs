//! Finds the events that a receiver refuses: a batch that it refuses is cut in two, and each half is tried by itself.

use std::ops::Range;

/// What is still to be posted of a row of events, in their order; without I/O.
#[derive(Debug)]
pub struct Bisection {
    /// The next range is the last.
    left: Vec<Range<usize>>,
}

impl Bisection {
    /// All `count` events, untried.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self { left: Vec::from_iter((count > 0).then_some(0..count)) }
    }

    /// The events to be posted next; none if all were taken or set aside. `fitting` says how many of a range, from its
    /// first on, go into one POST, at least one.
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

    /// The events that [`Self::next`] gave are done with.
    pub fn done(&mut self) {
        self.left.pop();
    }

    /// The events that [`Self::next`] gave are refused. Says whether it is a single one, which then is still the next;
    /// otherwise its first half is the next.
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

    /// Posts `count` events to a receiver that refuses every batch with one of `poison` in it. Gives what it took, what
    /// was set aside, and the number of POSTs.
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
