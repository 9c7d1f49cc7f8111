//! What a chat template may cost. It comes with a model and is run as a program, so its time, memory and depth are bounded:
//! minijinja counts instructions and bytes as fuel, and what it does not count itself is checked here before it is made.

use std::time::Duration;

use minijinja::{Error, ErrorKind, State};

/// Bytes of all templates of a model; the longest that are known have about 60,000.
pub(super) const MOST_SOURCE_BYTES: usize = 256 << 10;

/// Instructions, or blocks of [`BYTES_OF_FUEL`] bytes, besides those that the size of the input pays for.
const FUEL: u64 = 500_000;

/// Bytes that are made or read for one unit of fuel.
const BYTES_OF_FUEL: u64 = 64;

/// The time besides that for the input, which passes in a moment; a machine may be busy.
const TIME: Duration = Duration::from_secs(4);
const BYTES_A_SECOND: u64 = 1 << 20;

/// The fuel for messages and tools of so many bytes.
pub(super) fn fuel(input_bytes: usize) -> u64 {
    FUEL + input_bytes as u64
}

/// How long a template may take. Only what has no price in fuel takes so long: printing and comparing values that hold another many times
/// over, each of whose copies the engine goes through.
pub(super) fn time(input_bytes: usize) -> Duration {
    TIME + Duration::from_secs(input_bytes as u64 / BYTES_A_SECOND)
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
