//! Which positions of sequences were computed once and are remembered by several.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

/// The positions of a sequence, by who computed them: what a fork shares has the same number in both.
#[derive(Clone, Debug)]
pub struct Lineage {
    parts: SmallVec<[(u64, usize); 2]>, // number, first position
}

fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Lineage {
    /// Of a sequence that shares nothing.
    pub(crate) fn new() -> Lineage {
        Lineage {
            parts: SmallVec::from_slice(&[(number(), 0)]),
        }
    }

    /// Of one that shares so many positions with this one.
    pub(crate) fn fork(&self, length: usize) -> Lineage {
        let mut fork = self.clone();
        fork.cut(length);
        fork
    }

    /// Positions from here on will be others than before.
    pub(crate) fn cut(&mut self, length: usize) {
        self.parts.retain(|(_, first)| *first < length);
        self.parts.push((number(), length));
    }

    /// The positions of a sequence of so many, with their numbers.
    pub fn parts(&self, length: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
        let ends = self.parts.iter().skip(1).map(|&(_, first)| first).chain([length]);
        let parts = self.parts.iter().zip(ends);
        parts.map(move |(&(number, first), end)| (number, first..end.min(length).max(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_share_what_was_there() {
        let numbers = |lineage: &Lineage, length| -> Vec<(u64, Range<usize>)> { lineage.parts(length).collect() };
        let mut one = Lineage::new();
        let two = one.fork(10);
        let (of_one, of_two) = (numbers(&one, 30), numbers(&two, 20));
        assert_eq!(of_one[0].1, 0..30);
        assert_eq!((of_two[0].0, of_two[0].1.clone()), (of_one[0].0, 0..10));
        assert_eq!(of_two[1].1, 10..20);
        // What it goes on with after it was cut is nobody else's.
        one.cut(5);
        let after = numbers(&one, 12);
        assert_eq!((after[0].0, after[0].1.clone()), (of_one[0].0, 0..5));
        assert!(after[1].0 != of_one[0].0 && after[1].1 == (5..12));
        assert_eq!(numbers(&one.fork(0), 3).len(), 1);
    }
}
