//! A handle of what the layers remember of one sequence (keys and values of attention, states of recurrences). The memory itself
//! lies in the layers, by slots.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planish_ops::REWIND;

use crate::Error;

/// What every layer remembers of one sequence. Memory is taken as it fills, and given back some time after the drop.
pub struct Cache {
    slot: Slot,
    length: usize,
    capacity: usize,
    can_truncate: bool,         // whether every state can forget its last positions only
    windowed: bool,             // whether layers drop what no position sees any more
    oldest: usize,              // shortest length that the sequence can go back to, besides none
    expected: usize,            // what the sequence will grow to at least
    rope_length: Option<usize>, // shortest length of the sequence that stored keys were rotated for
}

/// The slots of a model.
#[derive(Default)]
pub(crate) struct Slots {
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    count: usize,        // slots that there are
    free: Vec<usize>,    // nothing is kept under these
    dropped: Vec<usize>, // the layers still keep something
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot that no sequence has. What its last one left is replaced from position 0 on.
    fn acquire(self: &Arc<Slots>) -> Slot {
        let mut state = self.lock();
        let known = state.free.pop().or_else(|| state.dropped.pop());
        let index = known.unwrap_or_else(|| {
            state.count += 1;
            state.count - 1
        });
        Slot {
            index,
            slots: Arc::clone(self),
        }
    }

    /// The slot of a sequence that is gone, which the layers are to clear; it is free then.
    pub(crate) fn take_dropped(&self) -> Option<usize> {
        let mut state = self.lock();
        let slot = state.dropped.pop()?;
        state.free.push(slot);
        Some(slot)
    }

    /// Slots that there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }
}

/// One slot, given back when dropped.
struct Slot {
    index: usize,
    slots: Arc<Slots>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().dropped.push(self.index);
    }
}

impl Cache {
    pub(crate) fn new(slots: &Arc<Slots>, capacity: usize, can_truncate: bool, windowed: bool) -> Cache {
        Cache {
            slot: slots.acquire(),
            length: 0,
            capacity,
            can_truncate,
            windowed,
            oldest: 0,
            expected: 0,
            rope_length: None,
        }
    }

    /// The same sequence once more, under a slot of its own in which the layers know nothing yet.
    pub(crate) fn twin(&self) -> Cache {
        Cache {
            slot: self.slot.slots.acquire(),
            ..*self
        }
    }

    /// Panics if another model made this cache.
    pub(crate) fn slot_of(&self, slots: &Arc<Slots>) -> usize {
        let own = Arc::ptr_eq(&self.slot.slots, slots);
        assert!(own, "a cache is used with the model that made it");
        self.slot.index
    }

    /// Positions stored.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the last positions alone can be forgotten.
    pub fn can_truncate(&self) -> bool {
        self.can_truncate
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
            let possible = self.can_truncate && length >= self.oldest;
            self.length = if possible { length } else { 0 };
        }
        if self.length == 0 {
            (self.oldest, self.expected, self.rope_length) = (0, 0, None);
        }
        self.length
    }

    /// The sequence will be so long at least.
    pub(crate) fn announce_length(&mut self, length: usize) {
        self.expected = length;
    }

    /// The shortest length of the sequence that stored keys were rotated for.
    pub(crate) fn rope_length(&self) -> Option<usize> {
        self.rope_length
    }

    /// The length to rotate for when `positions` are added.
    pub(crate) fn fix_rope_length(&mut self, positions: usize) -> usize {
        let length = self.expected.max(self.length + positions);
        let shortest = self.rope_length.get_or_insert(length);
        *shortest = length.min(*shortest);
        length
    }

    /// A pass failed on its way: some states may have moved on.
    pub(crate) fn fail(&mut self) {
        if !self.can_truncate {
            self.length = 0;
        }
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
