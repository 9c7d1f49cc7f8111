//! Products of strips of rows by `vdpbf16ps`, for processors without tiles: Zen 4 and later, Cooper Lake.

use std::arch::x86_64::*;

use super::attention::{STRIP, StripProduct, StripUnit, TILE, TILE_COLS, TILE_DEPTH};

/// Rows whose sums stay in registers, with those of 4 tiles.
const ROWS: usize = 4;

/// Whether the processor multiplies bf16 (the rest of AVX-512 is given).
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

/// Nothing to set up.
pub(crate) struct Dots;

impl StripUnit for Dots {
    unsafe fn start() -> Dots {
        Dots
    }

    unsafe fn multiply(&self, product: &StripProduct) {
        for row in (0..STRIP).step_by(ROWS) {
            let mut tile = 0;
            // SAFETY: the caller's promise; rows and tiles are those of the product.
            unsafe {
                while tile + 4 <= product.tiles {
                    block::<4>(product, row, tile);
                    tile += 4;
                }
                while tile < product.tiles {
                    block::<1>(product, row, tile);
                    tile += 1;
                }
            }
        }
    }
}

/// `ROWS` rows of `T` tiles of columns: sums in registers, one pass over the depth.
///
/// # Safety
/// As [`StripUnit::multiply`]; the rows and tiles must be there.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn block<const T: usize>(product: &StripProduct, row: usize, tile: usize) {
    // SAFETY: all addresses are inside of what the fields of the product say; registers are 64 bytes of plain numbers.
    unsafe {
        let left = product.left.add(row * product.left_stride);
        let cols = product.tiles * TILE_COLS;
        let output = product.output.add(row * cols + tile * TILE_COLS);
        let mut sums = [[_mm512_setzero_ps(); T]; ROWS];
        if product.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (t, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(output.add(r * cols + t * TILE_COLS));
                }
            }
        }
        for step in 0..product.steps {
            let right = product.right.add((step * product.tiles + tile) * TILE);
            for pair in 0..TILE_DEPTH / 2 {
                let values: [__m512i; T] =
                    std::array::from_fn(|t| _mm512_loadu_si512(right.add(t * TILE + pair * TILE_DEPTH).cast()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let both = left.add(r * product.left_stride + step * TILE_DEPTH + 2 * pair);
                    let factor = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(
                        both.cast::<i32>().read_unaligned(),
                    ));
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = _mm512_dpbf16_ps(*sum, factor, std::mem::transmute::<__m512i, __m512bh>(value));
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (t, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(output.add(r * cols + t * TILE_COLS), *sum);
            }
        }
    }
}
