//! Memory that runs out is an error with the size that was wanted and what is free, for all that grows with a model, its context or
//! its batch.
//!
//! Where a function cannot say so, as deep inside of a product, it unwinds, without a word, to the next [`or_out_of_memory`] below it
//! on the stack: every way into the library that computes or converts has one.
//!
//! A system that promises more than it has ends a process without a word when the promise is called in. So what is free is looked at
//! too, once for every few allocations.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// With what is free now.
    pub fn new(what: &'static str, wanted: usize) -> OutOfMemory {
        let free = available_memory();
        OutOfMemory { what, wanted, free }
    }

    /// That so many bytes may be taken.
    ///
    /// # Errors
    /// Fewer are free.
    pub fn look(what: &'static str, bytes: usize) -> Result<(), OutOfMemory> {
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
}

/// Appends copies of `value` until there are so many, or leaves the vector so long. Unwinds where there is no memory for them.
pub fn resize<T: Clone>(what: &'static str, values: &mut Vec<T>, len: usize, value: T) {
    reserve(what, values, len.saturating_sub(values.len()));
    values.resize(len, value);
}

/// So many copies of `value`. Unwinds where there is no memory for them.
pub fn filled<T: Clone>(what: &'static str, len: usize, value: T) -> Vec<T> {
    let mut values = with_room(what, len);
    values.resize(len, value);
    values
}

/// An empty vector with room for so many values. Unwinds where there is no memory for them.
pub fn with_room<T>(what: &'static str, len: usize) -> Vec<T> {
    let mut values = Vec::new();
    reserve(what, &mut values, len);
    values
}

/// Room for so many values more. Unwinds where there is no memory for them.
pub fn reserve<T>(what: &'static str, values: &mut Vec<T>, more: usize) {
    if values.capacity() - values.len() >= more {
        return;
    }
    let bytes = more.saturating_mul(size_of::<T>());
    if let Err(error) = OutOfMemory::look(what, bytes) {
        unwind(error);
    }
    if values.try_reserve(more).is_err() {
        unwind(OutOfMemory::new(what, bytes));
    }
}

fn unwind(error: OutOfMemory) -> ! {
    // No hook is told: this is no mistake of the program.
    resume_unwind(Box::new(error))
}

/// Does the work, or says that memory ran out in it, on whichever of the threads that it waits for. What the work was about is as
/// after any error of it.
///
/// # Errors
/// One of the functions here found no memory.
///
/// # Panics
/// As the work does.
pub fn or_out_of_memory<T>(work: impl FnOnce() -> T) -> Result<T, OutOfMemory> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| match payload.downcast::<OutOfMemory>() {
        Ok(error) => *error,
        Err(payload) => resume_unwind(payload),
    })
}

/// Bytes that may still be taken before others must give way, in this process's group and its limits too. `None` where the system
/// does not tell.
#[cfg(target_os = "linux")]
pub fn available_memory() -> Option<usize> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |text: &str, key: &str| -> Option<usize> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let available = number(&read("/proc/meminfo")?, "MemAvailable:")? << 10;
    // Of a group, pages of files can be dropped, others cannot.
    let group = read("/sys/fs/cgroup/memory.max").and_then(|limit| {
        let limit: usize = limit.trim().parse().ok()?;
        Some(limit.saturating_sub(number(&read("/sys/fs/cgroup/memory.stat")?, "anon ")?))
    });
    // `ulimit -v`; a word stands there where there is no limit.
    let limit = read("/proc/self/limits").and_then(|limits| {
        let limit = number(&limits, "Max address space")?;
        let pages: usize = read("/proc/self/statm")?.split_whitespace().next()?.parse().ok()?;
        Some(limit.saturating_sub(pages << 12))
    });
    Some(
        available
            .min(group.unwrap_or(usize::MAX))
            .min(limit.unwrap_or(usize::MAX)),
    )
}

/// Bytes that may still be taken: the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn available_memory() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn what_ran_out_is_told_with_its_size_from_any_thread() {
        let error = OutOfMemory {
            what: "keys and values",
            wanted: 12_345_678_900,
            free: Some(1_234_567),
        };
        assert_eq!(
            error.to_string(),
            "out of memory: keys and values need 12.3 GB more, and 1235 kB are free"
        );
        for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4, 1 << 50] {
            let error = or_out_of_memory(|| filled("tests", len, 0f32)).unwrap_err();
            assert_eq!((error.what, error.wanted), ("tests", len.saturating_mul(4)));
            let rows = || (0..9).into_par_iter().map(|_| with_room::<f32>("tests", len).len());
            let error = or_out_of_memory(|| rows().max()).unwrap_err();
            assert_eq!(error.wanted, len.saturating_mul(4));
        }
        assert_eq!(or_out_of_memory(|| filled("tests", 3, 1u8)), Ok(vec![1; 3]));
        let mut values = vec![1u16; 4];
        resize("tests", &mut values, 2, 7);
        resize("tests", &mut values, 3, 7);
        assert_eq!(values, [1, 1, 7]);
    }

    #[test]
    fn other_panics_stay_panics() {
        let outcome = catch_unwind(|| or_out_of_memory(|| resume_unwind(Box::new("mistake"))));
        let payload = outcome.map(|_: Result<(), _>| ()).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"mistake"));
    }
}
