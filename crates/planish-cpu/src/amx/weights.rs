//! Weights as the tile unit wants its second factor: (steps of 32 columns, 2, 16 pairs of columns, 16 rows, 2) in bf16.

use std::arch::x86_64::*;

use crate::avx512::rounded::interleave;
use crate::avx512::tile::ROWS;
use crate::avx512::unpack::{chunk_codes, code_of, vectors};

use super::unit::TILE_COLS;

/// Codes with their scales and biases, as `avx512::tile` leaves them.
pub(super) struct Tile<'a> {
    /// // (quads, 2, 16 rows, 4), quads in the order of `avx512::unpack`
    pub codes: &'a [u8],
    /// // (groups, 2, 16 rows)
    pub scales: &'a [f32],
    /// // (groups, 2, 16 rows)
    pub biases: &'a [f32],
    /// Codes of a group.
    pub group: usize,
    /// Columns that there are.
    pub columns: usize,
}

/// Turns a tile of codes into weights: `scale * code + bias`, rounded to bf16, in natural order of the columns; up to a whole
/// step of columns, which `into` has room for, they are zero.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn dequantize<const BITS: u32>(tile: &Tile<'_>, into: &mut [u16]) {
    let (columns, steps) = (tile.columns, tile.columns.div_ceil(TILE_COLS));
    let (units, units_of_group) = (columns / unit_codes(BITS), tile.group / unit_codes(BITS));
    let groups = columns / tile.group;
    assert!(into.len() >= steps * TILE_COLS * ROWS && tile.codes.len() >= columns * ROWS);
    assert!(tile.scales.len() >= groups * ROWS && tile.biases.len() >= groups * ROWS);
    for half in 0..2 {
        for group in 0..groups {
            let at = group * ROWS + half * 16;
            // SAFETY: the groups' scales and biases are there by the assertion.
            let factors =
                unsafe { [&tile.scales, &tile.biases].map(|values| _mm512_loadu_ps(values.as_ptr().add(at))) };
            for unit in group * units_of_group..(group + 1) * units_of_group {
                // SAFETY: the unit is inside the codes and its columns inside `into` by the assertions.
                unsafe {
                    let codes = tile.codes.as_ptr().add(unit * unit_codes(BITS) * ROWS + half * 64);
                    store_unit::<BITS>(codes, factors, unit, |column, pair| {
                        _mm512_storeu_si512(into.as_mut_ptr().add(place(column, half)).cast(), pair);
                    });
                }
            }
        }
        for column in (units * unit_codes(BITS)..steps * TILE_COLS).step_by(2) {
            into[place(column, half)..][..TILE_COLS].fill(0);
        }
    }
}

/// Codes that one lane of an unpacked chunk holds, in all its vectors.
const fn unit_codes(bits: u32) -> usize {
    4 * vectors(bits)
}

/// Where the pair of columns from an even `column` on begins, in values.
fn place(column: usize, half: usize) -> usize {
    ((column / TILE_COLS * 2 + half) * 16 + column % TILE_COLS / 2) * TILE_COLS
}

/// Hands over the pairs of columns that the codes of one lane make up, each with its first column.
///
/// # Safety
/// `codes` must have the lane's quads, 128 bytes apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn store_unit<const BITS: u32>(
    codes: *const u8,
    factors: [__m512; 2],
    unit: usize,
    mut store: impl FnMut(usize, __m512i),
) {
    let mut weights = [[_mm512_setzero_ps(); 4]; 4];
    for (vector, weights) in weights.iter_mut().enumerate().take(vectors(BITS)) {
        // SAFETY: by the contract.
        *weights = four_weights(unsafe { _mm512_loadu_si512(codes.add(vector * 128).cast()) }, factors);
    }
    let (chunk, lane) = (unit / 16, unit % 16);
    let column = |vector, byte| chunk * chunk_codes(BITS) + code_of(BITS, vector, 4 * lane + byte);
    // At 2 and 4 bits neighbouring codes are in neighbouring vectors, else in neighbouring bytes.
    if matches!(BITS, 2 | 4) {
        for (pair, [even, odd]) in weights.as_chunks().0.iter().enumerate().take(vectors(BITS) / 2) {
            for (byte, (&even, &odd)) in even.iter().zip(odd).enumerate() {
                store(column(2 * pair, byte), interleave(even, odd));
            }
        }
    } else {
        for (vector, [first, second, third, fourth]) in weights.into_iter().enumerate().take(vectors(BITS)) {
            store(column(vector, 0), interleave(first, second));
            store(column(vector, 2), interleave(third, fourth));
        }
    }
}

/// The weights of a quad: byte by byte, 16 rows each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn four_weights(codes: __m512i, factors: [__m512; 2]) -> [__m512; 4] {
    let low = _mm512_set1_epi32(255);
    // Spelled out: a closure would not be compiled for these instructions.
    [
        weights(_mm512_and_si512(codes, low), factors),
        weights(_mm512_and_si512(_mm512_srli_epi32::<8>(codes), low), factors),
        weights(_mm512_and_si512(_mm512_srli_epi32::<16>(codes), low), factors),
        weights(_mm512_srli_epi32::<24>(codes), factors),
    ]
}

/// `scale * code + bias` for 16 rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn weights(codes: __m512i, [scale, bias]: [__m512; 2]) -> __m512 {
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), scale, bias)
}
