//! Mutable memory that the slots of a job share, each writing its own part.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Pool;

/// Values below which handing work to other threads costs more than it gains.
const WORTH_SHARING: usize = 16 * 1024;

/// A mutable slice that several slots of a job write, each to ranges of its own.
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: only a pointer to values that may be sent; `range` hands the duty of keeping ranges apart to its caller.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(values: &'a mut [T]) -> SharedSlice<'a, T> {
        SharedSlice {
            start: values.as_mut_ptr(),
            len: values.len(),
            owner: PhantomData,
        }
    }

    /// Values in all.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The values of a range.
    ///
    /// # Safety
    /// No two live slices of this memory may overlap.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps ranges apart")]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside of the slice this was made of; no overlap by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// One of the parts of equal length.
    ///
    /// # Safety
    /// As [`SharedSlice::range`].
    #[expect(clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    pub(crate) unsafe fn part(&self, index: usize, length: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.range(index * length..(index + 1) * length) }
    }
}

/// Calls `work` on shares of `0..rows` (of `cols` values each): one on this thread, or one a slot where it pays.
pub(crate) fn share_rows(pool: &Pool, rows: usize, cols: usize, work: impl Fn(Range<usize>) + Sync) {
    if rows < 2 || rows * cols < WORTH_SHARING {
        return work(0..rows);
    }
    pool.run(|slot, slots| work(rows * slot / slots..rows * (slot + 1) / slots));
}
