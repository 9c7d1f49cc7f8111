//! x in the order of the unpacked codes.
//!
//! For one row of x ("lanes"): vector by vector as unpack.rs yields them. For several ("quads"): four bytes at a time, all
//! vectors of lane 0, then of lane 1, so that the quads of a group are neighbours, as the tiles of tile.rs are stored.

use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::Packing;

use crate::input::{ExactRow, Int8Row, Int16Tile, Shape, step_of, wide_step_of};
use crate::scalar;

use super::unpack::{code_of, lane_run, vectors};

/// Codes that an order table describes; a multiple of every chunk.
const SPAN: usize = 256;

/// Whether the kernels of this instruction set take the packing, or leave it to the scalar ones.
pub(crate) fn fits(packing: Packing) -> bool {
    packing.group().is_multiple_of(lane_run(packing.bits()))
}

/// Values of x that share a scale: for one row of x, those that a lane of the registers sees; for more, whole quads
/// of neighbouring codes. Blocks of 16 would be a tenth faster, and cost twice the divergence.
pub(super) fn block(packing: Packing, m: usize) -> usize {
    match (fits(packing), m) {
        (false, _) => (scalar::SCALAR.block)(packing, m),
        (true, 1) => lane_run(packing.bits()),
        (true, _) if packing.group().is_multiple_of(8) => lane_run(packing.bits()).max(8),
        (true, _) => packing.group(),
    }
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
    if !fits(shape.packing) {
        return scalar::arrange_int8(x, shape, row);
    }
    // SAFETY: the table of instruction sets offers this function only where the features are there.
    unsafe {
        match shape.block {
            4 => round_blocks::<4>(x, shape, row),
            8 => round_blocks::<8>(x, shape, row),
            16 => round_blocks::<16>(x, shape, row),
            _ => round_groups(x, shape, row),
        }
    }
}

/// With a scale for each block of a register.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn round_blocks<const BLOCK: usize>(x: &[f32], shape: &Shape, row: Int8Row<'_>) {
    let Int8Row { codes, scales, sums } = row;
    codes[x.len()..].fill(0);
    scales[shape.blocks()..].fill(0.0);
    sums[shape.groups()..].fill(0.0);
    let group = shape.packing.group();
    for (sum, (first, values)) in sums
        .iter_mut()
        .zip(x.chunks_exact(group).enumerate().map(|(i, x)| (i * group, x)))
    {
        let mut total = _mm512_setzero_ps();
        for (at, values) in (first..).step_by(16).zip(values.chunks(16)) {
            let (values, count) = (load(values), values.len());
            let (scale, inverse) = steps(block_largest::<BLOCK>(values));
            let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(values, inverse));
            total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(rounded), scale, total);
            let firsts = u16::MAX / ((1u32 << BLOCK) - 1) as u16;
            // SAFETY: as many codes and scales are written as there are values and blocks of them.
            unsafe {
                let mask = if count >= 16 { u16::MAX } else { (1 << count) - 1 };
                _mm_mask_storeu_epi8(codes.as_mut_ptr().add(at), mask, _mm512_cvtepi32_epi8(rounded));
                _mm512_mask_compressstoreu_ps(scales[at / BLOCK..].as_mut_ptr(), firsts & mask, scale);
            }
        }
        *sum = _mm512_reduce_add_ps(total);
    }
    reorder(codes, x.len(), shape);
}

/// Rounds some groups of a tile of x to 16 bits, by quads.
pub(super) fn int16(x: &[f32], shape: &Shape, groups: Range<usize>, tile: Int16Tile<'_>) {
    // SAFETY: the table of instruction sets offers this function only where the features are there.
    unsafe { round_tile(x, shape, groups, tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn round_tile(x: &[f32], shape: &Shape, groups: Range<usize>, tile: Int16Tile<'_>) {
    let Int16Tile { codes, scales, sums } = tile;
    let (group, block, rows) = (shape.packing.group(), shape.block, shape.tile_rows());
    let order = QUADS.get(shape.packing.bits() as usize - 2).unwrap_or(&NATURAL);
    // SAFETY: the order has more bytes than a register; those of a block stay inside of it.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    let mask = u64::MAX >> (64 - block);
    let columns = groups.start * group..groups.end * group;
    for (row, x) in x.chunks_exact(shape.cols).enumerate() {
        for (at, x) in x[columns.clone()].chunks_exact(block).enumerate() {
            let (scale, inverse) = wide_step_of(largest(x));
            let inverse = _mm512_set1_ps(inverse);
            let rounded = |part: usize| match x.chunks_exact(16).nth(part) {
                Some(values) => _mm512_cvtps_epi32(_mm512_mul_ps(load(values), inverse)),
                None => _mm512_setzero_si512(),
            };
            let rounded = [rounded(0), rounded(1), rounded(2), rounded(3)];
            let high = rounded.map(|values| _mm512_srai_epi32::<8>(_mm512_add_epi32(values, _mm512_set1_epi32(128))));
            for (plane, values) in [high, rounded].into_iter().enumerate() {
                let into = &mut codes[((2 * at + plane) * rows + row) * block..][..block];
                // SAFETY: the mask selects the values of the block.
                unsafe {
                    let values = _mm512_permutexvar_epi8(order, lowest_bytes(values));
                    _mm512_mask_storeu_epi8(into.as_mut_ptr(), mask, values);
                }
            }
            let sum = _mm512_add_epi32(
                _mm512_add_epi32(rounded[0], rounded[1]),
                _mm512_add_epi32(rounded[2], rounded[3]),
            );
            scales[at * rows + row] = scale;
            sums[at * rows + row] = scale * _mm512_reduce_add_epi32(sum) as f32;
        }
    }
}

/// The lowest bytes of 64 integers.
#[inline]
#[target_feature(enable = "avx512f")]
fn lowest_bytes(values: [__m512i; 4]) -> __m512i {
    let [first, second, third, fourth] = values.map(|values| _mm512_cvtepi32_epi8(values));
    let bytes = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(first), second);
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(bytes, third), fourth)
}

/// The largest magnitude of each block, in every lane of the block; magnitudes compare as integers, NaN is the largest.
#[inline]
#[target_feature(enable = "avx512f")]
fn block_largest<const BLOCK: usize>(values: __m512) -> __m512 {
    let magnitudes = _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(i32::MAX));
    let twos = _mm512_max_epi32(magnitudes, _mm512_shuffle_epi32::<0b10_11_00_01>(magnitudes));
    let mut largest = _mm512_max_epi32(twos, _mm512_shuffle_epi32::<0b01_00_11_10>(twos));
    if BLOCK >= 8 {
        largest = _mm512_max_epi32(largest, _mm512_shuffle_i32x4::<0b10_11_00_01>(largest, largest));
    }
    if BLOCK >= 16 {
        largest = _mm512_max_epi32(largest, _mm512_shuffle_i32x4::<0b01_00_11_10>(largest, largest));
    }
    _mm512_castsi512_ps(largest)
}

/// [`step_of`] for every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn steps(largest: __m512) -> (__m512, __m512) {
    let most = _mm512_set1_ps(127.0);
    let some = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(largest, _mm512_set1_ps(1e-30));
    let finite = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(largest, _mm512_set1_ps(f32::MAX));
    let scale = _mm512_maskz_div_ps(some, largest, most);
    let scale = _mm512_mask_mov_ps(_mm512_set1_ps(f32::NAN), finite, scale);
    (scale, _mm512_maskz_div_ps(some & finite, most, largest))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn round_groups(x: &[f32], shape: &Shape, row: Int8Row<'_>) {
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
    reorder(codes, x.len(), shape);
}

/// From natural order to that of the unpacked codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn reorder(codes: &mut [i8], count: usize, shape: &Shape) {
    if let Some(order) = byte_order(shape) {
        codes[..count.next_multiple_of(SPAN)]
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
    if !fits(shape.packing) {
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
