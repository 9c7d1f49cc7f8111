//! Weights in huge pages, one after the other in the order in which they come: a model's order of use, so that what is fetched
//! ahead of the end of one matrix is the start of the next.
//!
//! 76 MB of 4-bit matrices of SmolLM2 135M, Xeon, November 2026, one thread / two: 12 / 39 GB/s from pages of 4 KiB, 23 / 44 from
//! here, with fetches farther ahead. Copying takes 30 ms; what is mapped is given back as it goes.

use planish_ops::PlainMatrix;
use std::alloc::{Layout, alloc_zeroed};
use std::sync::Arc;

use bytes::Bytes;
use planish_format::PackedMatrix;

use crate::huge::{HUGE_PAGE, advise, has_huge_pages};
use crate::interleaved::{self, InterleaveWords, Interleaved, LANES, group_bytes};
use crate::matrix::CpuMatrix;
use crate::share::SharedSlice;
use crate::{Cpu, Pool, Precision};
use planish_format::memory::available_memory;

/// Bytes asked of the system at once; only pages that are written take memory.
const REGION: usize = 64 << 20;
/// Every piece starts at a multiple of this.
const LINE: usize = 64;
/// Bytes from which on all threads copy.
const WORTH_SHARING: usize = 128 << 10;
/// Memory that must be left when weights are copied.
const SPARE: usize = 256 << 20;

/// Weights in huge pages. They live as long as any matrix that was made here.
#[derive(Default)]
pub struct Arena {
    region: Option<Arc<Region>>,
    used: usize,
}

impl Arena {
    /// The same matrix, copied here by all threads; what held it before may be dropped. As it was where the system has no huge
    /// pages or little memory.
    ///
    /// With [`Precision::Rounded`] it is interleaved where this machine has kernels for that: then products with one row are
    /// at their fastest.
    pub fn keep(&mut self, cpu: &Cpu, matrix: CpuMatrix, precision: Precision) -> CpuMatrix {
        let pool = cpu.pool();
        let bytes = matrix.bytes() + 3 * LINE;
        if self.room() < bytes && !self.grow(bytes) {
            return matrix;
        }
        let kernels = cpu
            .set()
            .interleaved
            .as_ref()
            .filter(|_| precision == Precision::Rounded);
        match matrix {
            CpuMatrix::Interleaved(_) => matrix,
            CpuMatrix::Packed(matrix) if kernels.is_some_and(|kernels| (kernels.fits)(&matrix)) => {
                let interleave_words = kernels.map_or(interleaved::interleave_words as InterleaveWords, |kernels| {
                    kernels.interleave_words
                });
                CpuMatrix::Interleaved(self.interleave(pool, &matrix, interleave_words))
            }
            CpuMatrix::Packed(mut matrix) => {
                for part in [&mut matrix.codes, &mut matrix.scales, &mut matrix.biases] {
                    *part = self.copy(pool, part);
                }
                CpuMatrix::Packed(matrix)
            }
            CpuMatrix::Plain(matrix) => CpuMatrix::Plain(PlainMatrix {
                data: self.copy(pool, &matrix.data),
                ..matrix
            }),
        }
    }

    fn room(&self) -> usize {
        self.region.as_ref().map_or(0, |region| region.len - self.used)
    }

    /// Begins a new region, if the system has the memory.
    fn grow(&mut self, bytes: usize) -> bool {
        let enough = has_huge_pages() && available_memory().is_some_and(|available| available >= bytes + SPARE);
        let region = enough.then(|| Region::new(bytes.max(REGION))).flatten();
        let is_new = region.is_some();
        if let Some(region) = region {
            (self.region, self.used) = (Some(Arc::new(region)), 0);
        }
        is_new
    }

    fn copy(&mut self, pool: &Pool, from: &Bytes) -> Bytes {
        self.fill(from.len(), |into| copy(pool, from, into))
    }

    fn interleave(&mut self, pool: &Pool, matrix: &PackedMatrix, interleave_words: InterleaveWords) -> Interleaved {
        let shape = interleaved::shape(matrix);
        let block_bytes = shape.groups() * group_bytes(shape.packing);
        let blocks = shape.rows / LANES;
        let data = self.fill(blocks * block_bytes, |into| {
            let into = SharedSlice::new(into);
            pool.chunks(blocks, |_, block| {
                // SAFETY: every block is given to one call.
                interleaved::interleave(matrix, block, interleave_words, unsafe {
                    into.part(block, block_bytes)
                });
            });
        });
        Interleaved { shape, data }
    }

    /// A new piece; there must be room for it.
    fn fill(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Bytes {
        let Some(region) = &self.region else {
            return Bytes::new();
        };
        let start = self.used;
        // SAFETY: nothing from `used` on was given out before.
        write(unsafe { region.fresh(start, len) });
        self.used = (start + len).next_multiple_of(LINE);
        let region = Arc::clone(region);
        Bytes::from_owner(Piece { region, start, len })
    }
}

/// By all threads where it is much: the system clears pages when they are first written.
fn copy(pool: &Pool, from: &[u8], to: &mut [u8]) {
    if from.len() < WORTH_SHARING {
        return to.copy_from_slice(from);
    }
    let to = SharedSlice::new(to);
    pool.run(|slot, slots| {
        let range = from.len() * slot / slots..from.len() * (slot + 1) / slots;
        // SAFETY: the ranges of the slots do not overlap.
        unsafe { to.range(range.clone()) }.copy_from_slice(&from[range]);
    });
}

/// Zeros in huge pages, of which pieces are written and given out one after the other.
pub(crate) struct Region {
    memory: *mut [u8],
    start: usize, // the first whole page
    len: usize,   // from there on
}

// SAFETY: owned memory; pieces are written by whom `fresh` gives them to, and only read once they are shared.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// `None` if the system has no memory for it.
    pub fn new(len: usize) -> Option<Region> {
        let layout = Layout::array::<u8>(len.checked_add(HUGE_PAGE)?).ok()?;
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            return None;
        }
        let memory = std::ptr::slice_from_raw_parts_mut(memory, layout.size());
        // SAFETY: zeros that nobody else knows yet.
        advise(unsafe { &mut *(memory as *mut [std::mem::MaybeUninit<u8>]) });
        let start = memory.cast::<u8>().align_offset(HUGE_PAGE).min(HUGE_PAGE);
        Some(Region { memory, start, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn part(&self, start: usize, len: usize) -> *mut [u8] {
        assert!(start + len <= self.len);
        // SAFETY: inside of the memory.
        std::ptr::slice_from_raw_parts_mut(unsafe { self.memory.cast::<u8>().add(self.start + start) }, len)
    }

    /// # Safety
    /// No other slice of these bytes may live.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps pieces apart")]
    unsafe fn fresh(&self, start: usize, len: usize) -> &mut [u8] {
        // SAFETY: zeros or bytes that are there, and nobody else's by the caller's promise.
        unsafe { &mut *self.part(start, len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated as a box of bytes is, and no piece is left.
        drop(unsafe { Box::from_raw(self.memory) });
    }
}

/// A part of a region that is not written any more.
struct Piece {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it was written before it became a piece and is not written again.
        unsafe { &*self.region.part(self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use planish_format::FloatType;

    use super::*;

    #[test]
    fn matrices_stay_the_same_and_apart() {
        let Ok(cpu) = Cpu::new(2) else {
            panic!("PLANISH_CPU names one that is not here")
        };
        let mut arena = Arena::default();
        let matrix = |seed: usize, rows: usize| PlainMatrix {
            rows,
            cols: 3,
            float_type: FloatType::F16,
            data: (0..rows * 6)
                .map(|at| (at * 31 + seed) as u8)
                .collect::<Vec<_>>()
                .into(),
        };
        let sizes = [1, 7, 40_000, 100_000, 0, 12_000_000, 3];
        let kept: Vec<CpuMatrix> = sizes
            .iter()
            .enumerate()
            .map(|(seed, &rows)| arena.keep(&cpu, CpuMatrix::Plain(matrix(seed, rows)), Precision::Rounded))
            .collect();
        drop(arena);
        for (seed, (kept, &rows)) in kept.iter().zip(&sizes).enumerate() {
            let CpuMatrix::Plain(kept) = kept else {
                panic!("still plain")
            };
            assert_eq!((kept.rows, kept.cols), (rows, 3));
            assert!(kept.data == matrix(seed, rows).data, "matrix {seed}");
        }
    }
}
