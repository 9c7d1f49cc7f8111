//! x in the order of the unpacked codes.
//!
//! For one row of x ("lanes"): vector by vector as unpack.rs yields them. For several ("quads"): four bytes at a time, all
//! vectors of lane 0, then of lane 1, so that the quads of a group are neighbours, as the tiles of tile.rs are stored.

use std::arch::x86_64::*;

use crate::input::{ExactRow, Int8Row, Shape, step_of};
use crate::scalar;

use super::unpack::{code_of, lane_run, vectors};

/// Codes that an order table describes; a multiple of every chunk.
const SPAN: usize = 256;

/// Whether the kernels of this instruction set take the packing, or leave it to the scalar ones.
pub(super) fn fits(shape: &Shape) -> bool {
    shape.packing.group().is_multiple_of(lane_run(shape.packing.bits()))
}

/// Position to code, for spans of 256 codes.
const fn order(bits: u32, quads: bool) -> [u8; SPAN] {
    let count = vectors(bits);
    let mut table = [0; SPAN];
    let mut at = 0;
    while at < SPAN {
        let (chunk, within) = (at / (64 * count), at % (64 * count));
        let (vector, byte) = if quads {
            (within / 4 % count, within / (4 * count) * 4 + within % 4)
        } else {
            (within / 64, within % 64)
        };
        table[at] = (chunk * 64 * count + code_of(bits, vector, byte)) as u8;
        at += 1;
    }
    table
}

static LANES: [[u8; SPAN]; 3] = [order(2, false), order(3, false), order(4, false)];
static QUADS: [[u8; SPAN]; 3] = [order(2, true), order(3, true), order(4, true)];
static NATURAL: [u8; SPAN] = order(8, false);

/// The order of bytes for a shape: by lanes for one row of x, by quads for more. `None` if it is the natural one.
fn byte_order(shape: &Shape) -> Option<&'static [u8; SPAN]> {
    let bits = shape.packing.bits() as usize;
    let table = if shape.m == 1 { &LANES } else { &QUADS };
    table.get(bits - 2)
}

/// Rounds one row of x.
pub(super) fn int8(x: &[f32], shape: &Shape, row: Int8Row<'_>) {
    if !fits(shape) {
        return scalar::arrange_int8(x, shape, row);
    }
    // SAFETY: the table of instruction sets offers this function only where the features are there.
    unsafe { round_row(x, shape, row) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn round_row(x: &[f32], shape: &Shape, row: Int8Row<'_>) {
    let Int8Row { codes, scales, sums } = row;
    codes[x.len()..].fill(0);
    scales[shape.groups()..].fill(0.0);
    sums[shape.groups()..].fill(0.0);
    let size = shape.packing.group();
    for (group, values) in x.chunks_exact(size).enumerate() {
        let (scale, inverse) = step_of(largest(values));
        let sum = round_group(values, inverse, &mut codes[group * size..][..size]);
        scales[group] = scale;
        sums[group] = scale * sum as f32;
    }
    if let Some(order) = byte_order(shape) {
        codes[..x.len().next_multiple_of(SPAN)]
            .as_chunks_mut()
            .0
            .iter_mut()
            .for_each(|span| permute(span, order));
    }
}

/// The first 16 values, or as many as there are, then zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32]) -> __m512 {
    let mask = if values.len() >= 16 {
        u16::MAX
    } else {
        (1 << values.len()) - 1
    };
    // SAFETY: the mask selects only what the slice has.
    unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
}

/// Largest magnitude, NaN if there is one: magnitudes compare as integers.
#[inline]
#[target_feature(enable = "avx512f")]
fn largest(values: &[f32]) -> f32 {
    let magnitude = _mm512_set1_epi32(i32::MAX);
    let mut largest = _mm512_setzero_si512();
    for values in values.chunks(16) {
        largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_castps_si512(load(values)), magnitude));
    }
    f32::from_bits(_mm512_reduce_max_epi32(largest) as u32)
}

/// Rounds the values of one group, in their natural order, and returns the sum of the codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn round_group(values: &[f32], inverse: f32, codes: &mut [i8]) -> i32 {
    let inverse = _mm512_set1_ps(inverse);
    let mut sum = _mm512_setzero_si512();
    for (values, codes) in values.chunks(16).zip(codes.chunks_mut(16)) {
        let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load(values), inverse));
        sum = _mm512_add_epi32(sum, rounded);
        let mask = if codes.len() >= 16 {
            u16::MAX
        } else {
            (1 << codes.len()) - 1
        };
        // SAFETY: the mask selects only what the slice has.
        unsafe { _mm_mask_storeu_epi8(codes.as_mut_ptr(), mask, _mm512_cvtepi32_epi8(rounded)) };
    }
    _mm512_reduce_add_epi32(sum)
}

/// `span[i] = span[order[i]]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn permute(span: &mut [i8; SPAN], order: &[u8; SPAN]) {
    // SAFETY: all four reads of each array are inside its 256 bytes.
    let read = |from: *const u8| unsafe { [0, 64, 128, 192].map(|at| _mm512_loadu_si512(from.add(at).cast())) };
    let source = read(span.as_ptr().cast());
    let order = read(order.as_ptr());
    for (part, order) in order.into_iter().enumerate() {
        // Indices of 7 bits reach two registers; the eighth bit chooses between the two pairs.
        let low = _mm512_permutex2var_epi8(source[0], order, source[1]);
        let high = _mm512_permutex2var_epi8(source[2], order, source[3]);
        let chosen = _mm512_mask_blend_epi8(_mm512_movepi8_mask(order), low, high);
        // SAFETY: inside the 256 bytes of the span.
        unsafe { _mm512_storeu_si512(span.as_mut_ptr().add(64 * part).cast(), chosen) };
    }
}

/// Copies one row of x: by quads for several rows of x; for one row the order in which decode.rs takes bytes out of lanes.
pub(super) fn exact(x: &[f32], shape: &Shape, row: ExactRow<'_>) {
    if !fits(shape) {
        return scalar::arrange_exact(x, shape, row);
    }
    let ExactRow { values, sums } = row;
    sums[shape.groups()..].fill(0.0);
    for (sum, values) in sums.iter_mut().zip(x.chunks_exact(shape.packing.group())) {
        *sum = values.iter().sum();
    }
    let order = byte_order(shape).unwrap_or(&NATURAL);
    let at = |position: usize| {
        if shape.m > 1 {
            position
        } else {
            position / 64 * 64 + position % 16 * 4 + position / 16 % 4
        }
    };
    let end = x.len().next_multiple_of(SPAN);
    for (span, values) in values[..end].chunks_exact_mut(SPAN).enumerate() {
        for (position, value) in values.iter_mut().enumerate() {
            *value = x
                .get(span * SPAN + usize::from(order[at(position)]))
                .copied()
                .unwrap_or(0.0);
        }
    }
    values[end..].fill(0.0);
}
