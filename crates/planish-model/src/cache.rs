//! What the layers remember of one sequence (keys and values of attention), whatever device holds it.

use std::any::Any;

use planish_ops::Ops;

use crate::Error;
use crate::blocks::BlockState;

/// What every layer remembers of one sequence. Memory is taken as it fills.
pub struct Cache {
    length: usize,
    capacity: usize,
    states: Box<dyn Any + Send>, // Vec<Vec<BlockState<O>>> of the device that made it: (steps, branches)
}

impl Cache {
    pub(crate) fn new<O: Ops>(states: Vec<Vec<BlockState<O>>>, capacity: usize) -> Cache {
        Cache {
            length: 0,
            capacity,
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

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all positions from `length` on; keeps all if there are not so many.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
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
