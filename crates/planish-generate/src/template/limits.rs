//! What a chat template may cost. It comes with a model and is run as a program, so its time, memory and depth are bounded:
//! minijinja counts instructions and bytes as fuel, and what it does not count itself is checked here before it is made.

use minijinja::{Error, ErrorKind, State};

/// Bytes of all templates of a model; the longest that are known have about 60,000.
pub(super) const MOST_SOURCE_BYTES: usize = 256 << 10;

/// Instructions, or blocks of [`BYTES_OF_FUEL`] bytes, besides those that the size of the input pays for.
const FUEL: u64 = 500_000;

/// Bytes that are made or read for one unit of fuel.
const BYTES_OF_FUEL: u64 = 64;

/// The fuel for messages and tools of so many bytes.
pub(super) fn fuel(input_bytes: usize) -> u64 {
    FUEL + input_bytes as u64
}

/// Bytes that a call may still make.
pub(super) fn bytes_left(state: &State) -> usize {
    let left = state.fuel_levels().map_or(u64::MAX, |(_, left)| left);
    usize::try_from(left.saturating_mul(BYTES_OF_FUEL)).unwrap_or(usize::MAX)
}

/// Refuses to make so many bytes at once if they are too many.
pub(super) fn check(state: &State, bytes: usize) -> Result<(), Error> {
    match bytes <= bytes_left(state) {
        true => Ok(()),
        false => Err(ErrorKind::OutOfFuel.into()),
    }
}
