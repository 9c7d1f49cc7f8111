//! One row of x with interleaved weights: a lane for each of 16 rows, x broadcast.
//!
//! `y = sum over groups of scale * (sum over blocks of x_scale * (codes . x)) + bias * sum_x`. x is in the order of "quads"
//! (arrange.rs): the j-th lowest codes of a word's four bytes meet the j-th quad of a block of x. A block is what a register of
//! codes meets: 16, 8 or 4 values at 2, 4 or 8 bits.

use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::{FloatType, PackedMatrix};

use crate::interleaved::{self, LANES};
use crate::table::{InterleavedKernels, InterleavedProduct};

use super::arrange;
use super::lanes::{FAR, NEAR};
use super::tile::transpose;

/// Bytes of a register.
const LINE: usize = 64;

/// For the row of the table.
pub(crate) const KERNELS: InterleavedKernels = InterleavedKernels {
    fits,
    int8,
    weave,
    unweave,
};

fn fits(matrix: &PackedMatrix) -> bool {
    is_x86_feature_detected!("gfni") && interleaved::fits(matrix) && arrange::fits(matrix.packing)
}

fn int8(product: &InterleavedProduct<'_>, rows: Range<usize>) {
    assert!(rows.start.is_multiple_of(LANES) && rows.end.is_multiple_of(LANES));
    let shape = product.matrix.shape;
    let bf16 = shape.scale_type == FloatType::BF16;
    // SAFETY: the table of instruction sets offers this function only where the features are there, matrices are checked
    // before they are multiplied, and x has the shape's columns.
    unsafe {
        match (shape.packing.bits(), bf16) {
            (2, false) => blocks::<2, false>(product, rows),
            (2, true) => blocks::<2, true>(product, rows),
            (4, false) => blocks::<4, false>(product, rows),
            (4, true) => blocks::<4, true>(product, rows),
            (_, false) => blocks::<8, false>(product, rows),
            (_, true) => blocks::<8, true>(product, rows),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,gfni")]
unsafe fn blocks<const BITS: u32, const BF16: bool>(product: &InterleavedProduct<'_>, rows: Range<usize>) {
    let (matrix, input) = (product.matrix, &product.input);
    let groups = matrix.shape.groups();
    let group = matrix.shape.packing.group();
    let mut at = matrix
        .data
        .as_ptr()
        .wrapping_add(rows.start / LANES * matrix.block_bytes());
    for row in rows.step_by(LANES) {
        let mut x = X {
            codes: input.codes.as_ptr(),
            scales: input.scales.as_ptr(),
        };
        let (mut sum, mut bias_sum) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for index in 0..groups {
            // SAFETY: the block's groups follow one another; x has as many columns.
            unsafe {
                let products = group_products::<BITS>(&mut at, &mut x, group);
                fetch(at);
                let scale = expand::<BF16>(_mm256_loadu_si256(at.cast()));
                let bias = expand::<BF16>(_mm256_loadu_si256(at.add(LINE / 2).cast()));
                at = at.add(LINE);
                sum = _mm512_fmadd_ps(products, scale, sum);
                bias_sum = _mm512_fmadd_ps(bias, _mm512_set1_ps(*input.sums.as_ptr().add(index)), bias_sum);
            }
        }
        // SAFETY: the rows are those given to this call, and 16 of them are left.
        unsafe { _mm512_storeu_ps(product.output.at(0, row), _mm512_add_ps(sum, bias_sum)) };
    }
}

/// What is next of x.
struct X {
    codes: *const i8,
    scales: *const f32,
}

/// Products of a group of codes with x for 16 rows, without the scales of the weights. Moves on to the scales and the next x.
///
/// # Safety
/// Codes and x must have the group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,gfni")]
unsafe fn group_products<const BITS: u32>(at: &mut *const u8, x: &mut X, group: usize) -> __m512 {
    // Bit i of a result is the parity of the value and byte 7 - i of the matrix: these shift right and keep the lowest bits.
    let shift = |by: u32| {
        let row = |bit: u32| {
            if by + bit < 8 {
                1u64 << (by + bit) << (8 * (7 - bit))
            } else {
                0
            }
        };
        _mm512_set1_epi64((0..BITS).map(row).sum::<u64>() as i64)
    };
    let mask = _mm512_set1_epi8(((1u32 << BITS) - 1) as i8);
    let shifts = [shift(BITS), shift(2 * BITS), shift(3 * BITS)];
    let mut sums = [_mm512_setzero_ps(); 2];
    let block = 32 / BITS as usize;
    for index in 0..group / block {
        fetch(*at);
        // SAFETY: passed on from the caller.
        unsafe {
            let packed = _mm512_loadu_si512((*at).cast());
            let mut products = _mm512_setzero_si512();
            for part in 0..8 / BITS as usize {
                let codes = match (BITS, part) {
                    (8, _) => packed,
                    (_, 0) => _mm512_and_si512(packed, mask),
                    _ => _mm512_gf2p8affine_epi64_epi8::<0>(packed, shifts[part - 1]),
                };
                let x = x.codes.add(4 * part).cast::<i32>().read_unaligned();
                products = _mm512_dpbusd_epi32(products, codes, _mm512_set1_epi32(x));
            }
            let products = _mm512_cvtepi32_ps(products);
            sums[index % 2] = _mm512_fmadd_ps(products, _mm512_set1_ps(*x.scales), sums[index % 2]);
            *at = (*at).add(LINE);
            x.codes = x.codes.add(block);
            x.scales = x.scales.add(1);
        }
    }
    _mm512_add_ps(sums[0], sums[1])
}

/// Brings what will be read into the caches.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch(at: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(NEAR).cast());
    _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(FAR).cast());
}

/// Sixteen values of 16 bits as f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn expand<const BF16: bool>(values: __m256i) -> __m512 {
    match BF16 {
        true => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values))),
        false => _mm512_cvtph_ps(values),
    }
}

fn weave(from: &[u8], row_bytes: usize, into: &mut [u8]) {
    // SAFETY: as in `int8`.
    unsafe { weave_words(from, row_bytes, into) }
}

#[target_feature(enable = "avx512f")]
unsafe fn weave_words(from: &[u8], row_bytes: usize, into: &mut [u8]) {
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

fn unweave(from: &[u8], into: &mut [u8], row_bytes: usize) {
    // SAFETY: as in `int8`.
    unsafe { unweave_words(from, into, row_bytes) }
}

#[target_feature(enable = "avx512f")]
unsafe fn unweave_words(from: &[u8], into: &mut [u8], row_bytes: usize) {
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
