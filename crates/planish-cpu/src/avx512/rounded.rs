//! What attention does with bf16 besides products: rounding, packing keys and values into tiles, and its softmax.

use std::arch::x86_64::*;
use std::ops::Range;

use half::f16;

use crate::vector::ProductElement;

use super::attention::{TILE, TILE_COLS, TILE_DEPTH};

/// How far scores may exceed the value that is subtracted from them before that one follows: weights and their sums stay far
/// below the largest f32, and earlier sums rarely have to shrink.
const SLACK: f32 = 8.0;

/// Rounds values to bf16; those that `into` has more stay.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn round(values: &[f32], into: &mut [u16]) {
    assert!(into.len() >= values.len());
    for (values, into) in values.chunks(16).zip(into.chunks_mut(16)) {
        let mask = u16::MAX >> (16 - values.len());
        // SAFETY: the mask selects what both slices have; the register is 32 bytes of plain numbers.
        unsafe {
            let rounded: __m256i =
                std::mem::transmute(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, values.as_ptr())));
            _mm256_mask_storeu_epi16(into.as_mut_ptr().cast(), mask, rounded);
        }
    }
}

/// A stored key or value, without its scale.
pub(super) trait Packed: ProductElement {
    /// As floats that bf16 holds, or rounds to a neighbour.
    ///
    /// # Safety
    /// AVX-512.
    unsafe fn widened(values: &[Self; TILE_COLS]) -> __m512;
}

impl Packed for f16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn widened(values: &[f16; TILE_COLS]) -> __m512 {
        // SAFETY: 16 values of 2 bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(values.as_ptr().cast())) }
    }
}

impl Packed for i8 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn widened(values: &[i8; TILE_COLS]) -> __m512 {
        // SAFETY: 16 values of a byte.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(values.as_ptr().cast()))) }
    }
}

/// Rounds a right factor of `depth` rows to bf16 and packs it: (steps, cols / 16, 16 pairs of rows, 16 columns, 2), with zeros
/// after the last row that there is.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn pack<T: Packed>(from: &[T], cols: usize, depth: usize, into: &mut [u16]) {
    let tiles = cols / TILE_COLS;
    let steps = depth.div_ceil(TILE_DEPTH);
    assert!(cols.is_multiple_of(TILE_COLS) && into.len() >= steps * tiles * TILE);
    for pair in 0..steps * TILE_DEPTH / 2 {
        let (step, place) = (pair / (TILE_DEPTH / 2), pair % (TILE_DEPTH / 2) * TILE_DEPTH);
        for tile in 0..tiles {
            let row = |row: usize| {
                let at = row * cols + tile * TILE_COLS;
                match from[at.min(from.len())..].first_chunk() {
                    // SAFETY: the features are there.
                    Some(values) => unsafe { T::widened(values) },
                    None => _mm512_setzero_ps(),
                }
            };
            let both = interleave(row(2 * pair), row(2 * pair + 1));
            let into = &mut into[(step * tiles + tile) * TILE + place..][..TILE_DEPTH];
            // SAFETY: 32 values of 2 bytes.
            unsafe { _mm512_storeu_si512(into.as_mut_ptr().cast(), both) };
        }
    }
}

/// Rounds to bf16; a value of `first`, then one of `second`, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn interleave(first: __m512, second: __m512) -> __m512i {
    /// Words 0, 16, 1, 17, ..
    static ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut at = 0;
        while at < 32 {
            order[at] = (at / 2 + at % 2 * 16) as u16;
            at += 1;
        }
        order
    };
    // SAFETY: all are 64 bytes of plain numbers.
    unsafe {
        let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second, first));
        _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER.as_ptr().cast()), rounded)
    }
}

/// One row of scores against one block of keys.
pub(super) struct SoftRow<'a> {
    /// // (64)
    pub scores: &'a [f32],
    /// The keys that this row may see.
    pub valid: Range<usize>,
    /// What weights are multiplied with, but not their sum. // (64), or none
    pub scales: &'a [f32],
    /// exp(score - maximum) in bf16, 0 where not valid. // (64)
    pub weights: &'a mut [u16],
    /// Near the largest score so far; follows it.
    pub maximum: &'a mut f32,
    /// Sum of exp(score - maximum) so far, in parts.
    pub sums: &'a mut [f32; 16],
}

/// One step of the online softmax for one row; returns the factor by which earlier sums shrink.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16")]
pub(super) fn soften(row: SoftRow<'_>) -> f32 {
    let SoftRow {
        scores,
        valid,
        scales,
        weights,
        maximum,
        sums,
    } = row;
    assert!(scores.len() == 64 && weights.len() == 64 && matches!(scales.len(), 0 | 64));
    if valid.is_empty() {
        weights.fill(0);
        return 1.0;
    }
    let nothing = _mm512_set1_ps(f32::NEG_INFINITY);
    let mask = (u64::MAX << valid.start) & (u64::MAX >> (64 - valid.end));
    let scores: [__m512; 4] = std::array::from_fn(|part| {
        // SAFETY: 16 of the 64 scores.
        unsafe { _mm512_mask_loadu_ps(nothing, (mask >> (16 * part)) as u16, scores.as_ptr().add(16 * part)) }
    });
    let largest = _mm512_max_ps(_mm512_max_ps(scores[0], scores[1]), _mm512_max_ps(scores[2], scores[3]));
    // SAFETY: 16 values.
    let mut total = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
    let mut shrink = 1.0;
    if _mm512_cmp_ps_mask::<_CMP_GT_OQ>(largest, _mm512_set1_ps(*maximum + SLACK)) != 0 {
        let next = _mm512_reduce_max_ps(largest);
        shrink = (*maximum - next).exp();
        *maximum = next;
        total = _mm512_mul_ps(total, _mm512_set1_ps(shrink));
    }
    let (log2_e, offset) = (
        _mm512_set1_ps(std::f32::consts::LOG2_E),
        _mm512_set1_ps(*maximum * std::f32::consts::LOG2_E),
    );
    let mut powers = scores.map(|score| power_of_2(_mm512_fmsub_ps(score, log2_e, offset)));
    for power in powers {
        total = _mm512_add_ps(total, power);
    }
    for (part, (power, scales)) in powers.iter_mut().zip(scales.chunks_exact(16)).enumerate() {
        // What is not valid may be no number.
        let mask = (mask >> (16 * part)) as u16;
        // SAFETY: 16 values.
        *power = _mm512_mul_ps(*power, unsafe { _mm512_maskz_loadu_ps(mask, scales.as_ptr()) });
    }
    // SAFETY: 16 values; 64 values of 2 bytes; the registers are 64 bytes of plain numbers.
    unsafe {
        _mm512_storeu_ps(sums.as_mut_ptr(), total);
        for (half, pair) in powers.as_chunks::<2>().0.iter().enumerate() {
            let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(pair[1], pair[0]));
            _mm512_storeu_si512(weights.as_mut_ptr().add(32 * half).cast(), rounded);
        }
    }
    shrink
}

/// 2^x, 0 for minus infinity; relative error below 3e-6. 2^(x - floor x) by a polynomial fitted for the least relative error.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn power_of_2(x: __m512) -> __m512 {
    const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    let part = _mm512_reduce_ps::<DOWN>(x);
    let mut p = _mm512_set1_ps(0.013_534_167);
    for coefficient in [0.052_011_46, 0.241_442_76, 0.693_003_83, 1.000_002_6] {
        p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(p, x)
}
