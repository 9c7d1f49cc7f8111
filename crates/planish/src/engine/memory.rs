//! How much memory sequences take, and how much there is for them.

use std::collections::HashMap;
use std::ops::Range;

use planish_generate::Session;
use planish_model::Model;

use super::schedule::{BLOCK, room};

/// Bytes for what sequences remember, where nobody tells how much memory there is.
const UNKNOWN_CACHE: u64 = 2 << 30;

/// Positions by who computed them: those of a number from where they begin to the end of the longest.
fn ranges<'a>(sessions: impl Iterator<Item = (&'a Session, usize)>) -> HashMap<u64, Range<usize>> {
    let mut ranges: HashMap<u64, Range<usize>> = HashMap::new();
    for (session, length) in sessions {
        for (number, part) in session.lineage().parts(length) {
            let range = ranges.entry(number).or_insert(part.clone());
            range.end = range.end.max(part.end);
        }
    }
    ranges
}

/// What sequences cost: bytes of a position, and of the states of fixed size that each has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    position: usize,
    state: usize,
}

impl Costs {
    pub(super) fn of(model: &Model) -> Costs {
        Costs {
            // A model of nothing but states has no bytes of a position: then positions stand for bytes.
            position: model.position_bytes().max(1),
            state: model.state_bytes(),
        }
    }

    /// As many positions as so many bytes hold.
    pub(super) fn positions(self, bytes: u64) -> usize {
        usize::try_from(bytes / self.position as u64).unwrap_or(usize::MAX)
    }

    /// As many positions as a sequence's states take.
    pub(super) fn state(self) -> usize {
        self.state.div_ceil(self.position)
    }

    /// Positions that memory is taken for: whole blocks, what sequences share once, and their states.
    pub(super) fn stored<'a>(self, sessions: impl Iterator<Item = (&'a Session, usize)>) -> usize {
        let mut states = 0;
        let ranges = ranges(sessions.inspect(|_| states += self.state()));
        // A block that is begun is of one sequence alone.
        let blocks = ranges
            .values()
            .map(|range| room(range.end) - range.start / BLOCK * BLOCK);
        blocks.sum::<usize>() + states
    }

    /// Bytes of what is remembered.
    pub(super) fn bytes<'a>(self, sessions: impl Iterator<Item = (&'a Session, usize)>) -> usize {
        let mut states = 0;
        let ranges = ranges(sessions.inspect(|_| states += self.state));
        ranges.values().map(Range::len).sum::<usize>() * self.position + states
    }
}

/// Bytes for what sequences remember, where nobody says how many.
pub(super) fn default_cache(model: &Model) -> u64 {
    let on_gpu = model.device_memory().is_some();
    match model.free_bytes() {
        Some(free) if on_gpu => free / 10 * 9,
        Some(free) => free / 4,
        None => UNKNOWN_CACHE,
    }
}
