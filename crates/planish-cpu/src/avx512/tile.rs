//! Tiles of 32 weight rows in the layout of the dot-product instruction: lane = row, four codes of one row in each lane.
//!
//! A tile is (quads, 2, 16 rows, 4 bytes) for codes, with (groups, 2, 16 rows) scales and biases; or (columns, 2, 16 rows)
//! for floats. Rows beyond the last are copies of it: their products are not stored.

use planish_ops::PlainMatrix;
use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::{FloatType, PackedMatrix};

use super::lanes::{load_chunk, load_floats};
use super::unpack::{byte_mask, chunk_bytes, chunk_codes, unpack, vectors};

/// Weight rows of a tile: two registers.
pub(crate) const ROWS: usize = 32;
/// Rows of one register.
const HALF: usize = 16;

/// Columns of a packed matrix, as groups, that a tile covers.
#[derive(Clone)]
pub(crate) struct Part {
    pub rows: Range<usize>,
    pub groups: Range<usize>,
}

impl Part {
    /// The row of the matrix that `row` of the tile shows.
    pub fn row(&self, row: usize) -> usize {
        (self.rows.start + row).min(self.rows.end - 1)
    }
}

/// Unpacks codes into `tile`. // (quads, 2, 16, 4)
///
/// # Safety
/// The part must be in the matrix, `tile` must have room for all quads to a whole chunk, the machine the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
pub(super) unsafe fn unpack_tile<const BITS: u32>(matrix: &PackedMatrix, part: &Part, tile: &mut [u8]) {
    let (group, row_bytes) = (matrix.packing.group(), matrix.cols / 8 * BITS as usize);
    let start = part.groups.start * group / 8 * BITS as usize;
    let bytes = part.groups.len() * group / 8 * BITS as usize;
    let chunks = bytes.div_ceil(chunk_bytes(BITS));
    assert!(tile.len() >= chunks * chunk_codes(BITS) * ROWS);
    for half in 0..2 {
        for chunk in 0..chunks {
            let left = bytes - chunk * chunk_bytes(BITS);
            let mut packed = [_mm512_setzero_si512(); HALF];
            for (row, packed) in packed.iter_mut().enumerate() {
                let at = part.row(half * HALF + row) * row_bytes + start + chunk * chunk_bytes(BITS);
                // SAFETY: the row and the chunk are in the matrix; the mask hides what is beyond the last code.
                *packed = unsafe {
                    let codes = matrix.codes.as_ptr().add(at);
                    // The same place of the next tile.
                    _mm_prefetch::<_MM_HINT_T1>(codes.wrapping_add(ROWS * row_bytes).cast());
                    if left >= chunk_bytes(BITS) {
                        load_chunk::<BITS>(codes)
                    } else {
                        _mm512_maskz_loadu_epi8(byte_mask(left), codes.cast())
                    }
                };
            }
            let quads = tile[chunk * chunk_codes(BITS) * ROWS + half * 64..].as_mut_ptr();
            // SAFETY: the chunk's quads are inside the tile by the assertion above.
            unsafe { store_chunk::<BITS>(packed, quads) };
        }
    }
}

/// Stores a chunk of 16 rows as quads (lane, vector), 128 bytes apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
unsafe fn store_chunk<const BITS: u32>(packed: [__m512i; HALF], quads: *mut u8) {
    let store = |lane: usize, vector: usize, quad: __m512i| {
        let at = (lane * vectors(BITS) + vector) * 128;
        // SAFETY: the caller vouches for the whole chunk.
        unsafe { _mm512_storeu_si512(quads.add(at).cast(), quad) };
    };
    // Where unpacking stays within bytes, transposing first moves less.
    if matches!(BITS, 2 | 4 | 8) {
        for (lane, packed) in transpose(packed).into_iter().enumerate() {
            for (vector, quad) in unpack::<BITS>(packed).into_iter().enumerate().take(vectors(BITS)) {
                store(lane, vector, quad);
            }
        }
        return;
    }
    for vector in 0..vectors(BITS) {
        let mut rows = packed;
        for row in &mut rows {
            *row = unpack::<BITS>(*row)[vector];
        }
        for (lane, quad) in transpose(rows).into_iter().enumerate() {
            store(lane, vector, quad);
        }
    }
}

/// Spreads scales or biases to (groups, 2, 16) floats.
///
/// # Safety
/// The part must be in the matrix that `data` belongs to, `into` must have room for its groups to a multiple of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn load_scales(matrix: &PackedMatrix, data: &[u8], part: &Part, into: &mut [f32]) {
    let groups = matrix.cols / matrix.packing.group();
    assert!(into.len() >= part.groups.len().next_multiple_of(HALF) * ROWS);
    for first in (0..part.groups.len()).step_by(HALF) {
        let count = HALF.min(part.groups.len() - first);
        let columns = part.groups.start + first;
        let row_start = |row: usize| part.row(row) * groups + columns;
        // SAFETY: rows and groups are in the matrix, and the room was checked.
        unsafe {
            spread(
                data,
                matrix.scale_type,
                row_start,
                count,
                into[first * ROWS..].as_mut_ptr(),
            )
        };
    }
}

/// Spreads weights of a plain matrix to (columns, 2, 16) floats.
///
/// # Safety
/// Rows and columns must be in the matrix, `into` must have room for the columns to a multiple of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn load_plain(matrix: &PlainMatrix, rows: Range<usize>, cols: Range<usize>, into: &mut [f32]) {
    assert!(into.len() >= cols.len().next_multiple_of(HALF) * ROWS);
    for first in (0..cols.len()).step_by(HALF) {
        let row_start = |row: usize| (rows.start + row).min(rows.end - 1) * matrix.cols + cols.start + first;
        let count = HALF.min(cols.len() - first);
        // SAFETY: rows and columns are in the matrix, and the room was checked.
        unsafe {
            spread(
                &matrix.data,
                matrix.float_type,
                row_start,
                count,
                into[first * ROWS..].as_mut_ptr(),
            )
        };
    }
}

/// Transposes `count` (at most 16) floats of 32 rows to (16, 2, 16).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn spread(data: &[u8], float_type: FloatType, row_start: impl Fn(usize) -> usize, count: usize, into: *mut f32) {
    for half in 0..2 {
        let mut rows = [_mm512_setzero_si512(); HALF];
        for (row, values) in rows.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the values.
            let loaded = unsafe { load_floats(data, float_type, row_start(half * HALF + row), count) };
            *values = _mm512_castps_si512(loaded);
        }
        for (column, values) in transpose(rows).into_iter().enumerate() {
            // SAFETY: the caller vouches for the room.
            unsafe { _mm512_storeu_si512(into.add(column * ROWS + half * HALF).cast(), values) };
        }
    }
}

/// Turns a tile of codes into weights: `scale * code + bias`. // (quads, 2, 16, 4) -> (4 quads, 2, 16)
///
/// # Safety
/// `codes`, `scales` and `biases` must hold the groups' tiles, `into` must have room for as many floats as codes.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn dequantize_tile(codes: &[u8], group: usize, scales: &[f32], biases: &[f32], into: &mut [f32]) {
    let low = _mm512_set1_epi32(255);
    assert!(into.len() >= codes.len());
    for (at, vector) in codes.chunks_exact(64).enumerate() {
        let (quad, half) = (at / 2, at % 2);
        let scale_at = quad * 4 / group * ROWS + half * HALF;
        // SAFETY: the slices are indexed by what the caller vouches for; sixteen floats lie at each place.
        unsafe {
            let scale = _mm512_loadu_ps(scales.as_ptr().add(scale_at));
            let bias = _mm512_loadu_ps(biases.as_ptr().add(scale_at));
            let mut codes = _mm512_loadu_si512(vector.as_ptr().cast());
            for byte in 0..4 {
                let code = _mm512_cvtepi32_ps(_mm512_and_si512(codes, low));
                let weight = _mm512_fmadd_ps(code, scale, bias);
                _mm512_storeu_ps(into.as_mut_ptr().add((quad * 4 + byte) * ROWS + half * HALF), weight);
                codes = _mm512_srli_epi32::<8>(codes);
            }
        }
    }
}

/// Rows become lanes: 16 x 16 values of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose(rows: [__m512i; HALF]) -> [__m512i; HALF] {
    let mut pairs = rows;
    for pair in 0..8 {
        pairs[2 * pair] = _mm512_unpacklo_epi32(rows[2 * pair], rows[2 * pair + 1]);
        pairs[2 * pair + 1] = _mm512_unpackhi_epi32(rows[2 * pair], rows[2 * pair + 1]);
    }
    // fours[4 i + k]: column 4 part + k of rows 4 i to 4 i + 3, in each 128-bit part.
    let mut fours = pairs;
    for four in (0..16).step_by(4) {
        fours[four] = _mm512_unpacklo_epi64(pairs[four], pairs[four + 2]);
        fours[four + 1] = _mm512_unpackhi_epi64(pairs[four], pairs[four + 2]);
        fours[four + 2] = _mm512_unpacklo_epi64(pairs[four + 1], pairs[four + 3]);
        fours[four + 3] = _mm512_unpackhi_epi64(pairs[four + 1], pairs[four + 3]);
    }
    let mut columns = fours;
    for column in 0..4 {
        let even_upper = _mm512_shuffle_i32x4::<0x88>(fours[column], fours[4 + column]);
        let even_lower = _mm512_shuffle_i32x4::<0x88>(fours[8 + column], fours[12 + column]);
        let odd_upper = _mm512_shuffle_i32x4::<0xdd>(fours[column], fours[4 + column]);
        let odd_lower = _mm512_shuffle_i32x4::<0xdd>(fours[8 + column], fours[12 + column]);
        columns[column] = _mm512_shuffle_i32x4::<0x88>(even_upper, even_lower);
        columns[4 + column] = _mm512_shuffle_i32x4::<0x88>(odd_upper, odd_lower);
        columns[8 + column] = _mm512_shuffle_i32x4::<0xdd>(even_upper, even_lower);
        columns[12 + column] = _mm512_shuffle_i32x4::<0xdd>(odd_upper, odd_lower);
    }
    columns
}
