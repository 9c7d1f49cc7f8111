//! Memory for blocks of keys and values, cut from regions in huge pages that all layers share.
//!
//! Far into a sequence decoding reads mostly these: 94 MB a token for SmolLM2 135M at position 4,096. Xeon with AMX, November 2026,
//! one thread / two: 8.5 / 15.8 GiB/s from pages of 4 KiB, 9.6 / 17.9 from here. A region goes when its last piece does.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use half::f16;

use crate::arena::Region;
use planish_format::memory::OutOfMemory;

/// Bytes of a region; only pages that are written take memory.
const REGION: usize = 4 << 20;
/// What the memory is for.
pub(crate) const WHAT: &str = "keys and values";
/// Every piece starts at a multiple of this.
const LINE: usize = 64;

/// The region that is being cut, and how many bytes of it were given out.
static CURRENT: Mutex<(Weak<Region>, usize)> = Mutex::new((Weak::new(), 0));

/// Numbers whose bytes may be zero.
pub(crate) trait Plain: Copy + bytemuck::Zeroable {}

impl Plain for f32 {}
impl Plain for f16 {}
impl Plain for i8 {}

/// Values with one owner.
pub(crate) enum Piece<T> {
    /// On the heap, given back at once.
    Own(Box<[T]>),
    /// A part of a region.
    Cut { values: *mut [T], _region: Arc<Region> },
}

// SAFETY: the values have one owner as those of a box, and a region may be used from all threads.
unsafe impl<T: Send> Send for Piece<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Piece<T> {}

impl<T: Plain> Piece<T> {
    /// So many zeros in a region. It should live about as long as its neighbours: what it leaves is not used again.
    pub fn zeros(len: usize) -> Result<Piece<T>, OutOfMemory> {
        let bytes = len.saturating_mul(size_of::<T>());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let open = current.0.upgrade();
        let open = open.filter(|region| region.len() - current.1.min(region.len()) >= bytes);
        let region = match open {
            Some(region) => region,
            None => {
                let size = REGION.max(bytes);
                OutOfMemory::look(WHAT, size)?;
                let region = Region::new(size).ok_or_else(|| OutOfMemory::new(WHAT, size))?;
                let region = Arc::new(region);
                *current = (Arc::downgrade(&region), 0);
                region
            }
        };
        let start = current.1;
        current.1 = (start + bytes).next_multiple_of(LINE);
        let values = std::ptr::slice_from_raw_parts_mut(region.part(start, bytes).cast::<T>(), len);
        let _region = region;
        Ok(Piece::Cut { values, _region })
    }
}

impl<T> Default for Piece<T> {
    fn default() -> Piece<T> {
        Piece::Own(Box::default())
    }
}

impl<T> Deref for Piece<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Piece::Own(values) => values,
            // SAFETY: aligned zeros, or what was written over them, that no other piece has.
            Piece::Cut { values, .. } => unsafe { &**values },
        }
    }
}

impl<T> DerefMut for Piece<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Piece::Own(values) => values,
            // SAFETY: as above.
            Piece::Cut { values, .. } => unsafe { &mut **values },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zeros_aligned_and_apart() {
        let lengths = [1, 63, 0, 100_000, REGION, 5, 3 * REGION / 4, 3 * REGION / 4, 17];
        let mut pieces: Vec<Piece<f16>> = lengths.iter().map(|&len| Piece::zeros(len).unwrap()).collect();
        assert!(Piece::<f16>::zeros(usize::MAX).is_err() && Piece::<f16>::zeros(1 << 50).is_err());
        for (number, piece) in pieces.iter_mut().enumerate() {
            assert_eq!((piece.len(), piece.as_ptr() as usize % LINE), (lengths[number], 0));
            assert!(piece.iter().all(|value| value.to_bits() == 0), "piece {number}");
            piece.fill(f16::from_f32(number as f32 + 1.0));
        }
        pieces.swap_remove(3);
        for piece in &pieces {
            assert!(piece.iter().all(|value| value == &piece[0]));
        }
    }
}
