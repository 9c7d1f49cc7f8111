//! What the layers remember of one sequence (keys and values of attention, states of recurrences), whatever device holds it.

use std::any::Any;

use planish_ops::{Ops, REWIND};

use crate::Error;
use crate::blocks::BlockState;

/// What every layer remembers of one sequence. Memory is taken as it fills.
pub struct Cache {
    length: usize,
    capacity: usize,
    rewinds: bool,               // whether every state can forget its last positions only
    windowed: bool,              // whether layers drop what no position sees any more
    oldest: usize,               // shortest length that the sequence can go back to, besides none
    expected: usize,             // what the sequence will grow to at least
    rotated_for: Option<usize>,  // shortest length of the sequence that stored keys were rotated for
    states: Box<dyn Any + Send>, // Vec<Vec<BlockState<O>>> of the device that made it: (steps, branches)
}

impl Cache {
    pub(crate) fn new<O: Ops>(states: Vec<Vec<BlockState<O>>>, capacity: usize, windowed: bool) -> Cache {
        Cache {
            length: 0,
            capacity,
            windowed,
            oldest: 0,
            expected: 0,
            rotated_for: None,
            rewinds: states.iter().flatten().all(BlockState::rewinds),
            states: Box::new(states),
        }
    }

    /// Positions stored.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the last position alone can be forgotten.
    pub fn rewinds(&self) -> bool {
        self.rewinds
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all positions from `length` on; keeps all if there are not so many. Returns how many are kept: none if
    /// positions had to be forgotten and layers have a state of fixed size, which cannot go back, or have dropped what they
    /// would need from outside of their window (1024 positions back they can).
    pub fn truncate(&mut self, length: usize) -> usize {
        if length < self.length {
            let possible = self.rewinds && length >= self.oldest;
            self.length = if possible { length } else { 0 };
        }
        if self.length == 0 {
            (self.oldest, self.expected, self.rotated_for) = (0, 0, None);
        }
        self.length
    }

    /// The sequence will be so long at least.
    pub(crate) fn expect(&mut self, length: usize) {
        self.expected = length;
    }

    /// The shortest length of the sequence that stored keys were rotated for.
    pub(crate) fn rotated_for(&self) -> Option<usize> {
        self.rotated_for
    }

    /// The length to rotate for when `positions` are added.
    pub(crate) fn rotate_for(&mut self, positions: usize) -> usize {
        let length = self.expected.max(self.length + positions);
        let shortest = self.rotated_for.get_or_insert(length);
        *shortest = length.min(*shortest);
        length
    }

    /// A pass failed on its way: some states may have moved on.
    pub(crate) fn fail(&mut self) {
        if !self.rewinds {
            self.length = 0;
        }
    }

    /// Panics if another kind of device made this cache.
    pub(crate) fn states<O: Ops>(&mut self) -> &mut [Vec<BlockState<O>>] {
        let states: &mut Vec<_> = self
            .states
            .downcast_mut()
            .expect("a cache is used with the model that made it");
        states
    }

    pub(crate) fn advance(&mut self, positions: usize) {
        if self.windowed {
            self.oldest = self.oldest.max(self.length.saturating_sub(REWIND));
        }
        self.length += positions;
    }

    pub(crate) fn check_room(&self, positions: usize) -> Result<(), Error> {
        let needed = self.length + positions;
        match needed > self.capacity {
            true => Err(Error::CacheFull {
                needed,
                capacity: self.capacity,
            }),
            false => Ok(()),
        }
    }
}
