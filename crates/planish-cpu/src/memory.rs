//! Memory that runs out is an error with the size that was wanted and what is free, for all that grows with a model, its context or
//! its batch.
//!
//! A system that promises more than it has ends a process without a word when the promise is called in. So what is free is looked at
//! too, once for every few allocations.

use std::alloc::{Layout, alloc_zeroed};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Zeroable;

use crate::huge::available_memory;

/// Bytes taken between two looks at what is free.
const LOOK_EVERY: usize = 16 << 20;
/// What must be left for all that is not counted here.
const SPARE: usize = 32 << 20;

/// Bytes that were taken since the last look.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// What the memory was for.
    pub what: &'static str,
    /// Bytes that were wanted.
    pub wanted: usize,
    /// Bytes that were free, where the system tells.
    pub free: Option<usize>,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of memory: {} need {}", self.what, Size(self.wanted))?;
        match self.free {
            Some(free) => write!(f, " more, and {} are free", Size(free)),
            None => write!(f, " more"),
        }
    }
}

impl std::error::Error for OutOfMemory {}

/// Bytes in a unit that suits them.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..10_000 => write!(f, "{bytes} bytes"),
            bytes @ 10_000..10_000_000 => write!(f, "{:.0} kB", bytes as f64 / 1e3),
            bytes @ 10_000_000..10_000_000_000 => write!(f, "{:.0} MB", bytes as f64 / 1e6),
            bytes => write!(f, "{:.1} GB", bytes as f64 / 1e9),
        }
    }
}

impl OutOfMemory {
    pub(crate) fn new(what: &'static str, wanted: usize) -> OutOfMemory {
        let free = available_memory();
        OutOfMemory { what, wanted, free }
    }
}

/// That so many bytes may be taken.
pub(crate) fn look(what: &'static str, bytes: usize) -> Result<(), OutOfMemory> {
    let taken = TAKEN.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
    if taken < LOOK_EVERY {
        return Ok(());
    }
    TAKEN.store(0, Ordering::Relaxed);
    match available_memory() {
        Some(free) if free < bytes.saturating_add(SPARE) => Err(OutOfMemory {
            what,
            wanted: bytes,
            free: Some(free),
        }),
        _ => Ok(()),
    }
}

/// So many zeros.
pub(crate) fn zeros<T: Zeroable>(what: &'static str, len: usize) -> Result<Vec<T>, OutOfMemory> {
    let bytes = len.saturating_mul(size_of::<T>());
    if bytes == 0 {
        return Ok(Vec::new());
    }
    look(what, bytes)?;
    let layout = Layout::array::<T>(len).map_err(|_| OutOfMemory::new(what, bytes))?;
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(OutOfMemory::new(what, bytes));
    }
    // SAFETY: memory of just this layout, whose zeros are values of the type.
    Ok(unsafe { Vec::from_raw_parts(memory.cast(), len, len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_or_an_error_with_the_size() {
        assert_eq!(zeros::<f32>("tests", 3), Ok(vec![0.0; 3]));
        assert_eq!(zeros::<u8>("tests", 0), Ok(Vec::new()));
        for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4, 1 << 50] {
            let error = zeros::<f32>("tests", len).unwrap_err();
            assert_eq!((error.what, error.wanted), ("tests", len.saturating_mul(4)));
        }
        let error = OutOfMemory {
            what: "keys and values",
            wanted: 12_345_678_900,
            free: Some(1_234_567),
        };
        assert_eq!(
            error.to_string(),
            "out of memory: keys and values need 12.3 GB more, and 1235 kB are free"
        );
    }
}
