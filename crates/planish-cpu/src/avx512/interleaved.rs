//! Interleaved weights: a lane for each of 16 rows, x broadcast.
//!
//! `y = sum over blocks of scale * x_scale * (256 * (codes . high) + codes . low) + bias * sum_x`, where x is rounded to 16 bits in
//! planes of high and low bytes (input.rs). The sums of a block are exact integers, so that a row of x gets the same bits alone, among
//! others and from a tile unit. x is in the order of "quads" (arrange.rs): the j-th lowest codes of a word's four bytes meet the j-th
//! quad of x.

use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::{FloatType, PackedMatrix};

use crate::input::INT16_ROWS;
use crate::interleaved::{self, LANES};
use crate::table::{InterleavedKernels, InterleavedProduct};

use super::arrange;
use super::lanes::{FAR, NEAR};
use super::tile::transpose;

/// Bytes of a register.
pub(crate) const LINE: usize = 64;
/// Rows of x for which codes are unpacked once.
const TOGETHER: usize = 4;

/// Lines of scales and biases: both of half precision, both brain floats, or halves and their multiples.
pub(crate) const HALVES: u8 = 0;
pub(crate) const BRAIN_FLOATS: u8 = 1;
pub(crate) const ZERO_POINTS: u8 = 2;

/// For the row of the table. More than 16 rows of x gain more from tiles of weights in order.
pub(crate) const KERNELS: InterleavedKernels = InterleavedKernels {
    fits,
    most_rows: 16,
    round: arrange::int16,
    product: |product, rows, _| multiply(product, rows),
    interleave_words,
    deinterleave_words,
};

fn fits(matrix: &PackedMatrix) -> bool {
    is_x86_feature_detected!("gfni")
        && arrange::fits(matrix.packing)
        && (interleaved::fits(matrix) || interleaved::has_zero_points(matrix))
}

/// The products of the given rows, whole blocks of them.
pub(crate) fn multiply(product: &InterleavedProduct<'_>, rows: Range<usize>) {
    assert!(rows.start.is_multiple_of(LANES) && rows.end.is_multiple_of(LANES));
    let shape = product.matrix.shape;
    // SAFETY: the table of instruction sets offers this function only where the features are there, matrices are checked
    // before they are multiplied, and x has the shape's columns.
    unsafe {
        match shape.packing.bits() {
            2 => of_type::<2>(product, rows),
            4 => of_type::<4>(product, rows),
            _ => of_type::<8>(product, rows),
        }
    }
}

/// As [`multiply`], by the type of scales.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,gfni")]
unsafe fn of_type<const BITS: u32>(product: &InterleavedProduct<'_>, rows: Range<usize>) {
    // SAFETY: passed on from the caller.
    unsafe {
        match product.matrix.shape.scale_type {
            FloatType::F16 => blocks::<BITS, HALVES>(product, rows),
            FloatType::BF16 => blocks::<BITS, BRAIN_FLOATS>(product, rows),
            FloatType::F32 => blocks::<BITS, ZERO_POINTS>(product, rows),
        }
    }
}

/// Blocks of rows one after the other, each with all rows of x.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,gfni")]
unsafe fn blocks<const BITS: u32, const SCALES: u8>(product: &InterleavedProduct<'_>, rows: Range<usize>) {
    for row in rows.step_by(LANES) {
        let m = product.input.shape.m;
        for first in (0..m).step_by(TOGETHER) {
            // SAFETY: passed on from the caller.
            unsafe {
                match m - first {
                    1 => block::<BITS, SCALES, 1>(product, row, first),
                    2 => block::<BITS, SCALES, 2>(product, row, first),
                    3 => block::<BITS, SCALES, 3>(product, row, first),
                    _ => block::<BITS, SCALES, TOGETHER>(product, row, first),
                }
            }
        }
    }
}

/// A block of rows from `row` on, with M rows of x from `first` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,gfni")]
unsafe fn block<const BITS: u32, const SCALES: u8, const M: usize>(
    product: &InterleavedProduct<'_>,
    row: usize,
    first: usize,
) {
    let (matrix, input) = (product.matrix, &product.input);
    let shape = input.shape;
    let group = shape.packing.group();
    let mut at = matrix.data.as_ptr().wrapping_add(row / LANES * matrix.block_bytes());
    let (tile, within) = (input.of_tile(first / INT16_ROWS), first % INT16_ROWS);
    let mut codes = tile.codes[within * shape.block..].as_ptr();
    let mut x_scales = tile.scales[within..].as_ptr();
    let mut x_sums = tile.sums[within..].as_ptr();
    let mut sums = [_mm512_setzero_ps(); M];
    for _ in 0..shape.groups() {
        // SAFETY: the block's groups follow one another; x has as many columns and M rows.
        unsafe {
            let scales = Scales::read::<SCALES>(at.wrapping_add(group * BITS as usize / 32 * LINE));
            for _ in 0..group / shape.block {
                let (high, low) = match shape.block {
                    64 => dots::<BITS, M, 16>(&mut at, codes, shape.tile_rows()),
                    _ => dots::<BITS, M, 8>(&mut at, codes, shape.tile_rows()),
                };
                codes = codes.add(shape.block_bytes());
                for m in 0..M {
                    sums[m] = scales.add_block(sums[m], high[m], low[m], _mm512_set1_ps(*x_scales.add(m)));
                    sums[m] = scales.add_bias(sums[m], _mm512_set1_ps(*x_sums.add(m)));
                }
                x_scales = x_scales.add(shape.tile_rows());
                x_sums = x_sums.add(shape.tile_rows());
            }
            at = at.add(LINE);
        }
    }
    for (m, sum) in sums.into_iter().enumerate() {
        // SAFETY: the rows are those given to this call, and 16 of them are left.
        unsafe { _mm512_storeu_ps(product.output.at(first + m, row), sum) };
    }
}

/// Scales and biases of a group, of 16 rows.
pub(crate) struct Scales {
    scale: __m512,
    bias: __m512,
}

impl Scales {
    /// # Safety
    /// There must be a line.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn read<const SCALES: u8>(at: *const u8) -> Scales {
        // SAFETY: passed on from the caller.
        unsafe {
            let scale = expand::<SCALES>(_mm256_loadu_si256(at.cast()));
            let bias = expand::<SCALES>(_mm256_loadu_si256(at.add(LINE / 2).cast()));
            let bias = if SCALES == ZERO_POINTS {
                _mm512_mul_ps(bias, scale)
            } else {
                bias
            };
            Scales { scale, bias }
        }
    }

    /// Adds a block's products with the planes of x.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn add_block(&self, sum: __m512, high: __m512i, low: __m512i, x_scale: __m512) -> __m512 {
        let products = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low);
        _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(products), x_scale), self.scale, sum)
    }

    /// Adds the biases, times the sum of x over the block.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn add_bias(&self, sum: __m512, x_sum: __m512) -> __m512 {
        _mm512_fmadd_ps(self.bias, x_sum, sum)
    }
}

/// Integer products of a block of codes, `QUADS` quads, with the planes of M rows of x, for 16 rows of weights. Moves on to the
/// next codes.
///
/// # Safety
/// Codes and x must have the block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,gfni")]
unsafe fn dots<const BITS: u32, const M: usize, const QUADS: usize>(
    at: &mut *const u8,
    x: *const i8,
    tile_rows: usize,
) -> ([__m512i; M], [__m512i; M]) {
    let unpack = Unpack::<BITS>::new();
    let (row, plane) = (4 * QUADS, tile_rows * 4 * QUADS);
    // Two of each, so that products need not wait for one another.
    let mut sums = [[[_mm512_setzero_si512(); 2]; 2]; M];
    let lines = 2usize.div_ceil(Unpack::<BITS>::PARTS);
    for step in 0..QUADS / (lines * Unpack::<BITS>::PARTS) {
        for line in 0..lines {
            fetch(*at);
            // SAFETY: passed on from the caller.
            unsafe {
                let codes = unpack.line(*at);
                *at = (*at).add(LINE);
                for (part, codes) in codes.into_iter().enumerate().take(Unpack::<BITS>::PARTS) {
                    let quad = (step * lines + line) * Unpack::<BITS>::PARTS + part;
                    for (m, sums) in sums.iter_mut().enumerate() {
                        for (index, sums) in sums.iter_mut().enumerate() {
                            let x = x.add(m * row + index * plane + 4 * quad).cast::<i32>().read_unaligned();
                            let sum = &mut sums[(line * Unpack::<BITS>::PARTS + part) % 2];
                            *sum = _mm512_dpbusd_epi32(*sum, codes, _mm512_set1_epi32(x));
                        }
                    }
                }
            }
        }
    }
    let plane = |index: usize| sums.map(|sums| _mm512_add_epi32(sums[index][0], sums[index][1]));
    (plane(0), plane(1))
}

/// Takes codes out of words.
pub(crate) struct Unpack<const BITS: u32> {
    mask: __m512i,
    shifts: [__m512i; 3],
}

impl<const BITS: u32> Unpack<BITS> {
    /// Codes of a byte, and quads of a line.
    pub(crate) const PARTS: usize = 8 / BITS as usize;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn new() -> Unpack<BITS> {
        // Bit i of a result is the parity of the value and byte 7 - i of the matrix: these shift right and keep the lowest bits.
        let shift = |by: u32| {
            let row = |bit: u32| match by + bit {
                from @ 0..8 => 1u64 << from << (8 * (7 - bit)),
                _ => 0,
            };
            _mm512_set1_epi64((0..BITS).map(row).sum::<u64>() as i64)
        };
        Unpack {
            mask: _mm512_set1_epi8(((1u32 << BITS) - 1) as i8),
            shifts: [shift(BITS), shift(2 * BITS), shift(3 * BITS)],
        }
    }

    /// The quads of a line, those after the first [`Unpack::PARTS`] being whatever.
    ///
    /// # Safety
    /// There must be a line.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    pub(crate) unsafe fn line(&self, at: *const u8) -> [__m512i; 4] {
        // SAFETY: passed on from the caller.
        let packed = unsafe { _mm512_loadu_si512(at.cast()) };
        let mut codes = [packed; 4];
        if BITS < 8 {
            codes[0] = _mm512_and_si512(packed, self.mask);
            for (codes, shift) in codes.iter_mut().skip(1).zip(self.shifts).take(Self::PARTS - 1) {
                *codes = _mm512_gf2p8affine_epi64_epi8::<0>(packed, shift);
            }
        }
        codes
    }
}

/// Brings what will be read into the caches.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn fetch(at: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(NEAR).cast());
    _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(FAR).cast());
}

/// Sixteen values of 16 bits as f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn expand<const SCALES: u8>(values: __m256i) -> __m512 {
    match SCALES {
        BRAIN_FLOATS => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values))),
        _ => _mm512_cvtph_ps(values),
    }
}

fn interleave_words(from: &[u8], row_bytes: usize, into: &mut [u8]) {
    // SAFETY: as in `int8`.
    unsafe { interleave_lines(from, row_bytes, into) }
}

#[target_feature(enable = "avx512f")]
unsafe fn interleave_lines(from: &[u8], row_bytes: usize, into: &mut [u8]) {
    for (at, into) in into.chunks_mut(LANES * LINE).enumerate() {
        let words = into.len() / LINE;
        let mask = (u32::MAX >> (2 * LANES - words)) as u16;
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            let from = &from[lane * row_bytes + at * LINE..][..4 * words];
            // SAFETY: the mask selects what the slice has.
            *row = unsafe { _mm512_maskz_loadu_epi32(mask, from.as_ptr().cast()) };
        }
        for (column, into) in transpose(rows).into_iter().zip(into.chunks_exact_mut(LINE)) {
            // SAFETY: a register is a line.
            unsafe { _mm512_storeu_si512(into.as_mut_ptr().cast(), column) };
        }
    }
}

fn deinterleave_words(from: &[u8], into: &mut [u8], row_bytes: usize) {
    // SAFETY: as in `int8`.
    unsafe { deinterleave_lines(from, into, row_bytes) }
}

#[target_feature(enable = "avx512f")]
unsafe fn deinterleave_lines(from: &[u8], into: &mut [u8], row_bytes: usize) {
    for (at, from) in from.chunks(LANES * LINE).enumerate() {
        let words = from.len() / LINE;
        let mask = (u32::MAX >> (2 * LANES - words)) as u16;
        let mut columns = [_mm512_setzero_si512(); LANES];
        for (column, from) in columns.iter_mut().zip(from.chunks_exact(LINE)) {
            // SAFETY: a register is a line.
            *column = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
        }
        for (lane, row) in transpose(columns).into_iter().enumerate() {
            let into = &mut into[lane * row_bytes + at * LINE..][..4 * words];
            // SAFETY: the mask selects what the slice has.
            unsafe { _mm512_mask_storeu_epi32(into.as_mut_ptr().cast(), mask, row) };
        }
    }
}
