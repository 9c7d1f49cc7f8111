//! A few rows of x with interleaved weights: a lane for each of 16 rows, x broadcast.
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
/// Rows of x for which codes are unpacked once.
const TOGETHER: usize = 4;

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

/// Blocks of rows one after the other, each with all rows of x.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,gfni")]
unsafe fn blocks<const BITS: u32, const BF16: bool>(product: &InterleavedProduct<'_>, rows: Range<usize>) {
    for row in rows.step_by(LANES) {
        let m = product.input.shape.m;
        for first in (0..m).step_by(TOGETHER) {
            // SAFETY: passed on from the caller.
            unsafe {
                match m - first {
                    1 => block::<BITS, BF16, 1>(product, row, first),
                    2 => block::<BITS, BF16, 2>(product, row, first),
                    3 => block::<BITS, BF16, 3>(product, row, first),
                    _ => block::<BITS, BF16, TOGETHER>(product, row, first),
                }
            }
        }
    }
}

/// A block of rows from `row` on, with M rows of x from `first` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,gfni")]
unsafe fn block<const BITS: u32, const BF16: bool, const M: usize>(
    product: &InterleavedProduct<'_>,
    row: usize,
    first: usize,
) {
    let (matrix, input) = (product.matrix, &product.input);
    let shape = input.shape;
    let mut at = matrix.data.as_ptr().wrapping_add(row / LANES * matrix.block_bytes());
    let mut x = X {
        codes: input.codes[first * shape.stride()..].as_ptr(),
        scales: input.scales[first * shape.block_stride()..].as_ptr(),
        stride: shape.stride(),
        block_stride: shape.block_stride(),
    };
    let x_sums = input.sums[first * shape.group_stride()..].as_ptr();
    let (mut sums, mut bias_sums) = ([_mm512_setzero_ps(); M], [_mm512_setzero_ps(); M]);
    for group in 0..shape.groups() {
        // SAFETY: the block's groups follow one another; x has as many columns and M rows.
        unsafe {
            let products = group_products::<BITS, M>(&mut at, &mut x, shape.packing.group());
            fetch(at);
            let scale = expand::<BF16>(_mm256_loadu_si256(at.cast()));
            let bias = expand::<BF16>(_mm256_loadu_si256(at.add(LINE / 2).cast()));
            at = at.add(LINE);
            for m in 0..M {
                sums[m] = _mm512_fmadd_ps(products[m], scale, sums[m]);
                let x_sum = _mm512_set1_ps(*x_sums.add(m * shape.group_stride() + group));
                bias_sums[m] = _mm512_fmadd_ps(bias, x_sum, bias_sums[m]);
            }
        }
    }
    for (m, (sum, bias_sum)) in sums.into_iter().zip(bias_sums).enumerate() {
        // SAFETY: the rows are those given to this call, and 16 of them are left.
        unsafe { _mm512_storeu_ps(product.output.at(first + m, row), _mm512_add_ps(sum, bias_sum)) };
    }
}

/// What is next of some rows of x.
struct X {
    codes: *const i8,
    scales: *const f32,
    stride: usize,       // from the codes of one row to the next
    block_stride: usize, // the same for scales
}

/// Products of a group of codes with M rows of x, for 16 rows of weights, without their scales. Moves on to the scales and the next
/// x.
///
/// # Safety
/// Codes and x must have the group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,gfni")]
unsafe fn group_products<const BITS: u32, const M: usize>(at: &mut *const u8, x: &mut X, group: usize) -> [__m512; M] {
    // Bit i of a result is the parity of the value and byte 7 - i of the matrix: these shift right and keep the lowest bits.
    let shift = |by: u32| {
        let row = |bit: u32| match by + bit {
            from @ 0..8 => 1u64 << from << (8 * (7 - bit)),
            _ => 0,
        };
        _mm512_set1_epi64((0..BITS).map(row).sum::<u64>() as i64)
    };
    let mask = _mm512_set1_epi8(((1u32 << BITS) - 1) as i8);
    let shifts = [shift(BITS), shift(2 * BITS), shift(3 * BITS)];
    let parts = 8 / BITS as usize;
    let block = 4 * parts;
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    for index in 0..group / block {
        fetch(*at);
        // SAFETY: passed on from the caller.
        unsafe {
            let packed = _mm512_loadu_si512((*at).cast());
            let mut codes = [packed; 4];
            if BITS < 8 {
                codes[0] = _mm512_and_si512(packed, mask);
                for part in 1..parts {
                    codes[part] = _mm512_gf2p8affine_epi64_epi8::<0>(packed, shifts[part - 1]);
                }
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let mut products = _mm512_setzero_si512();
                for (part, codes) in codes.iter().enumerate().take(parts) {
                    let x = x.codes.add(m * x.stride + 4 * part).cast::<i32>().read_unaligned();
                    products = _mm512_dpbusd_epi32(products, *codes, _mm512_set1_epi32(x));
                }
                let scale = _mm512_set1_ps(*x.scales.add(m * x.block_stride));
                sums[index % 2] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sums[index % 2]);
            }
            *at = (*at).add(LINE);
            x.codes = x.codes.add(block);
            x.scales = x.scales.add(1);
        }
    }
    let mut products = [_mm512_setzero_ps(); M];
    for (products, sums) in products.iter_mut().zip(sums) {
        *products = _mm512_add_ps(sums[0], sums[1]);
    }
    products
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
