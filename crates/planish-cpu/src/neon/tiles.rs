//! Several rows of x: a span of columns of 16 rows of weights is decoded once into a tile that stays in the first-level
//! cache while all rows of x pass over it. Spans are the outer loop, so that their x stays in the second-level cache;
//! products of spans are added up in the output.

use std::arch::aarch64::*;
use std::ops::Range;

use planish_format::PackedMatrix;

use crate::input::Shape;
use crate::scratch::{Buffer, WorkerScratch};
use crate::table::{ExactProduct, Int8Product};

use super::block::{Block, Rounded, multiply, to_floats};
use super::dot::Dot;
use super::floats::{F32, Place};
use super::plain::{self, FloatRows, StoredRows};
use super::scales::{Part, Scales};
use super::unpack::{Codes, Packed, ROWS, Unpacked, signed_offset};

/// Rows of weights of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Columns of a tile of codes: 16 KiB.
pub(super) const INT8_COLUMNS: usize = 1024;
/// Columns of a tile of floats: 16 KiB.
pub(super) const FLOAT_COLUMNS: usize = 256;

/// The tiles of some rows, column span by column span.
pub(super) fn parts(shape: &Shape, columns: usize, rows: Range<usize>) -> impl Iterator<Item = Part> {
    let (groups, span) = (shape.groups(), (columns / shape.packing.group()).max(1));
    (0..groups).step_by(span).flat_map(move |first| {
        rows.clone().step_by(TILE_ROWS).map({
            let rows = rows.clone();
            move |row| Part {
                rows: row..(row + TILE_ROWS).min(rows.end),
                groups: first..(first + span).min(groups),
            }
        })
    })
}

/// Packed weights times x rounded to 8 bits.
///
/// # Safety
/// The machine must have the instructions of D.
#[inline(always)]
pub(super) unsafe fn int8<const BITS: u32, D: Dot>(
    product: &Int8Product<'_>,
    rows: Range<usize>,
    scratch: &mut WorkerScratch,
) {
    let Int8Product { matrix, input, output } = product;
    let shape = input.shape;
    let group = shape.packing.group();
    let x = Rounded::<D>::new(*input);
    for part in parts(&shape, INT8_COLUMNS, rows) {
        let stride = (part.groups.len() * group).next_multiple_of(16);
        // SAFETY: the part is in the matrix, whose lengths were checked.
        let codes = unsafe { unpack_tile::<BITS>(matrix, &part, stride, &mut scratch.tile) };
        let scales = Scales::load::<TILE_ROWS>(matrix, &part, signed_offset(BITS), &mut scratch.scales);
        for input_row in (0..shape.m).step_by(2) {
            for row in (0..part.rows.len()).step_by(ROWS) {
                let block = Block {
                    codes: Unpacked {
                        codes: codes[row * stride..].as_ptr(),
                        stride,
                    },
                    scales: Scales {
                        scales: &scales.scales[row..],
                        biases: &scales.biases[row..],
                        ..scales
                    },
                    group,
                    first: part.groups.start,
                    groups: part.groups.len(),
                };
                let mut place = Place {
                    output,
                    input_row,
                    row: part.rows.start + row,
                    rows: part.rows.len() - row,
                    add: part.groups.start > 0,
                };
                // SAFETY: the tile has four rows from `row` on and their scales; x has the rows, padded (see
                // `Shape::stride`); the rows of the matrix are those given to this call.
                unsafe {
                    if input_row + 1 == shape.m {
                        let [products] = multiply::<_, _, 1>(&block, x, input_row);
                        place.store(products);
                        continue;
                    }
                    for products in multiply::<_, _, 2>(&block, x, input_row) {
                        place.store(products);
                        place.input_row += 1;
                    }
                }
            }
        }
    }
}

/// Unpacks the codes of a part, as signed bytes. // (16, stride)
///
/// # Safety
/// The part must be in the matrix, `stride` its columns to a multiple of 16.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn unpack_tile<'a, const BITS: u32>(
    matrix: &PackedMatrix,
    part: &Part,
    stride: usize,
    buffer: &'a mut Buffer,
) -> &'a [u8] {
    let group = matrix.packing.group();
    let columns = part.groups.len() * group;
    let tile = buffer.take::<u8>(TILE_ROWS * stride);
    for first in (0..TILE_ROWS).step_by(ROWS) {
        let start = part.groups.start * group;
        let codes = Packed::<BITS, true>::new(matrix, part.row(first), part.rows.end - 1, start);
        for row in 0..ROWS {
            let into = &mut tile[(first + row) * stride..][..stride];
            for (chunk, into) in into.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let col = chunk * 16;
                // SAFETY: the columns are in the matrix, and 16 bytes in the chunk.
                unsafe {
                    let codes = match columns - col {
                        8 => codes.eight(row, col),
                        _ => codes.sixteen(row, col),
                    };
                    vst1q_u8(into.as_mut_ptr(), codes);
                }
            }
        }
    }
    tile
}

/// Packed weights times x in floats.
pub(super) fn exact<const BITS: u32>(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let ExactProduct { matrix, input, output } = product;
    let shape = input.shape;
    let (group, stride) = (shape.packing.group(), shape.stride());
    for part in parts(&shape, FLOAT_COLUMNS, rows) {
        let columns = part.groups.len() * group;
        let scales = Scales::load::<TILE_ROWS>(matrix, &part, 0, &mut scratch.scales);
        // SAFETY: the part is in the matrix, whose lengths were checked.
        let weights = unsafe { dequantize_tile::<BITS>(matrix, &part, scales, &mut scratch.floats) };
        let x = FloatRows {
            values: &input.values[part.groups.start * group..],
            rows: shape.m,
            stride,
        };
        let tile_rows = part.rows.len();
        for row in (0..tile_rows).step_by(ROWS) {
            let weights = StoredRows::<F32, ROWS>::new(bytemuck::cast_slice(weights), columns, row, TILE_ROWS - 1, 0);
            let place = Place {
                output,
                input_row: 0,
                row: part.rows.start + row,
                rows: tile_rows - row,
                add: part.groups.start > 0,
            };
            // SAFETY: the tile and x have the columns; the rows are those given to this call.
            unsafe { plain::many(weights, &x, columns, place) };
        }
    }
}

/// Turns the codes of a part into weights. // (16, columns)
///
/// # Safety
/// The part must be in the matrix, and `scales` be its scales.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn dequantize_tile<'a, const BITS: u32>(
    matrix: &PackedMatrix,
    part: &Part,
    scales: Scales<'_>,
    buffer: &'a mut Buffer,
) -> &'a [f32] {
    let group = matrix.packing.group();
    let columns = part.groups.len() * group;
    let tile = buffer.take::<f32>(TILE_ROWS * columns);
    for (row, into) in tile.chunks_exact_mut(columns).enumerate() {
        let start = part.groups.start * group;
        let codes = Packed::<BITS, false>::new(matrix, part.row(row), part.rows.end - 1, start);
        for (index, into) in into.chunks_exact_mut(group).enumerate() {
            let scale = vdupq_n_f32(scales.scales[index * TILE_ROWS + row]);
            let bias = vdupq_n_f32(scales.biases[index * TILE_ROWS + row]);
            for (chunk, into) in into.chunks_mut(16).enumerate() {
                let col = index * group + chunk * 16;
                // SAFETY: the columns are in the matrix; each store is of a chunk of 4 floats.
                unsafe {
                    let codes = match into.len() {
                        8 => codes.eight(0, col),
                        _ => codes.sixteen(0, col),
                    };
                    for (into, codes) in into.as_chunks_mut::<4>().0.iter_mut().zip(to_floats(codes)) {
                        vst1q_f32(into.as_mut_ptr(), vfmaq_f32(bias, codes, scale));
                    }
                }
            }
        }
    }
    tile
}
