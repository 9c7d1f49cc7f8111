//! Several rows of x: weights are decoded once into tiles that stay in the cache while all rows of x pass over them.

use std::ops::Range;

use planish_format::Packing;

use crate::scratch::WorkerScratch;
use crate::table::{ExactProduct, Int8Product, Output, PlainProduct};

use super::multiply::{self, FloatTile, INT8_M, Int8Tile, MAX_M};
use super::tile::{Part, ROWS, dequantize_tile, load_plain, load_scales, unpack_tile};
use super::unpack::chunk_codes;

/// Columns of a tile of codes: 16 KiB, a third of a first-level cache.
const INT8_COLUMNS: usize = 512;
/// Columns of a tile of floats: 32 KiB.
const FLOAT_COLUMNS: usize = 256;
/// Bytes of x that one pass over a row of tiles reads at most, to stay in the second-level cache.
const PASS_BYTES: usize = 1 << 20;

/// How many groups make a piece of about `columns` columns, in whole chunks.
fn groups_of_piece(packing: Packing, columns: usize) -> usize {
    let group = packing.group();
    let chunk = chunk_codes(packing.bits());
    // The fewest groups that fill whole chunks.
    let unit = (1..=chunk)
        .find(|groups| (groups * group).is_multiple_of(chunk))
        .unwrap_or(chunk);
    unit * (columns / (unit * group)).max(1)
}

/// Rows of x for which a tile is decoded once.
fn pass(row_bytes: usize) -> usize {
    (PASS_BYTES / row_bytes / MAX_M).max(1) * MAX_M
}

/// Calls `tile(rows, rows of x)` for every 32 rows and pass over x.
fn each_tile(rows: Range<usize>, m: usize, pass: usize, mut tile: impl FnMut(Range<usize>, Range<usize>)) {
    for row in rows.clone().step_by(ROWS) {
        for input_row in (0..m).step_by(pass) {
            tile(row..(row + ROWS).min(rows.end), input_row..(input_row + pass).min(m));
        }
    }
}

/// Copies sums to the output. // (rows of x, 32)
fn store(sums: &[f32], output: &Output, rows: &Range<usize>, input_rows: &Range<usize>) {
    for (sums, input_row) in sums.chunks_exact(ROWS).zip(input_rows.clone()) {
        // SAFETY: the rows are those given to this call.
        unsafe {
            output
                .at(input_row, rows.start)
                .copy_from_nonoverlapping(sums.as_ptr(), rows.len())
        };
    }
}

/// Packed weights times x rounded to 8 bits.
pub(super) fn int8(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    match product.matrix.packing.bits() {
        2 => int8_tiles::<2>(product, rows, scratch),
        3 => int8_tiles::<3>(product, rows, scratch),
        4 => int8_tiles::<4>(product, rows, scratch),
        5 => int8_tiles::<5>(product, rows, scratch),
        6 => int8_tiles::<6>(product, rows, scratch),
        _ => int8_tiles::<8>(product, rows, scratch),
    }
}

fn int8_tiles<const BITS: u32>(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let Int8Product { matrix, input, output } = product;
    let shape = input.shape;
    let (group, stride, group_stride) = (shape.packing.group(), shape.stride(), shape.group_stride());
    let block_stride = shape.block_stride();
    let piece = groups_of_piece(shape.packing, INT8_COLUMNS);
    let codes = scratch.tile.take::<u8>(piece * group * ROWS);
    let scale_count = piece.next_multiple_of(16) * ROWS;
    let (scales, biases) = scratch.scales.take::<f32>(2 * scale_count).split_at_mut(scale_count);
    each_tile(rows, shape.m, pass(stride), |rows, input_rows| {
        let sums = scratch.sums.take::<f32>(input_rows.len() * ROWS);
        sums.fill(0.0);
        for first in (0..shape.groups()).step_by(piece) {
            let groups = first..(first + piece).min(shape.groups());
            let part = Part {
                rows: rows.clone(),
                groups: groups.clone(),
            };
            // SAFETY: rows and groups are in the matrix, whose lengths were checked; the table of instruction sets offers
            // this function only where the features are there.
            unsafe {
                unpack_tile::<BITS>(matrix, &part, codes);
                load_scales(matrix, &matrix.scales, &part, scales);
                load_scales(matrix, &matrix.biases, &part, biases);
            }
            for (sums, row) in sums.chunks_mut(INT8_M * ROWS).zip(input_rows.clone().step_by(INT8_M)) {
                let tile = Int8Tile {
                    codes,
                    scales,
                    biases,
                    group,
                    groups: groups.len(),
                    block: shape.block,
                    x: &input.codes[row * stride + first * group..],
                    stride,
                    x_scales: &input.scales[row * block_stride + first * group / shape.block..],
                    x_sums: &input.sums[row * group_stride + first..],
                    block_stride,
                    group_stride,
                };
                // SAFETY: `sums` has 32 values for each row of x that there is from `row` on.
                unsafe { multiply::int8(&tile, sums.len() / ROWS, sums) };
            }
        }
        store(sums, output, &rows, &input_rows);
    });
}

/// Packed weights times x in floats.
pub(super) fn exact(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    match product.matrix.packing.bits() {
        2 => exact_tiles::<2>(product, rows, scratch),
        3 => exact_tiles::<3>(product, rows, scratch),
        4 => exact_tiles::<4>(product, rows, scratch),
        5 => exact_tiles::<5>(product, rows, scratch),
        6 => exact_tiles::<6>(product, rows, scratch),
        _ => exact_tiles::<8>(product, rows, scratch),
    }
}

fn exact_tiles<const BITS: u32>(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let ExactProduct { matrix, input, output } = product;
    let shape = input.shape;
    let (group, stride) = (shape.packing.group(), shape.stride());
    let piece = groups_of_piece(shape.packing, FLOAT_COLUMNS);
    let codes = scratch.tile.take::<u8>(piece * group * ROWS);
    let weights = scratch.floats.take::<f32>(piece * group * ROWS);
    let scale_count = piece.next_multiple_of(16) * ROWS;
    let (scales, biases) = scratch.scales.take::<f32>(2 * scale_count).split_at_mut(scale_count);
    each_tile(rows, shape.m, pass(stride * 4), |rows, input_rows| {
        let sums = scratch.sums.take::<f32>(input_rows.len() * ROWS);
        sums.fill(0.0);
        for first in (0..shape.groups()).step_by(piece) {
            let groups = first..(first + piece).min(shape.groups());
            let columns = groups.len() * group;
            let part = Part {
                rows: rows.clone(),
                groups,
            };
            // SAFETY: as in `int8_tiles`; the tile holds the groups' codes once unpacked.
            unsafe {
                unpack_tile::<BITS>(matrix, &part, codes);
                load_scales(matrix, &matrix.scales, &part, scales);
                load_scales(matrix, &matrix.biases, &part, biases);
                dequantize_tile(&codes[..columns * ROWS], group, scales, biases, weights);
            }
            for (sums, row) in sums.chunks_mut(MAX_M * ROWS).zip(input_rows.clone().step_by(MAX_M)) {
                let x = &input.values[row * stride + first * group..];
                // SAFETY: `sums` has 32 values for each row of x that there is from `row` on.
                unsafe {
                    multiply::floats(
                        &FloatTile {
                            weights,
                            columns,
                            x,
                            stride,
                        },
                        sums.len() / ROWS,
                        sums,
                    )
                };
            }
        }
        store(sums, output, &rows, &input_rows);
    });
}

/// Plain weights times x in floats.
pub(super) fn plain(product: &PlainProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let PlainProduct {
        matrix,
        input,
        m,
        output,
    } = product;
    let cols = matrix.cols;
    let weights = scratch.floats.take::<f32>(FLOAT_COLUMNS * ROWS);
    each_tile(rows, *m, pass(cols * 4), |rows, input_rows| {
        let sums = scratch.sums.take::<f32>(input_rows.len() * ROWS);
        sums.fill(0.0);
        for first in (0..cols).step_by(FLOAT_COLUMNS) {
            let columns = FLOAT_COLUMNS.min(cols - first);
            // SAFETY: as in `int8_tiles`.
            unsafe { load_plain(matrix, rows.clone(), first..first + columns, weights) };
            for (sums, row) in sums.chunks_mut(MAX_M * ROWS).zip(input_rows.clone().step_by(MAX_M)) {
                let x = &input[row * cols + first..];
                // SAFETY: `sums` has 32 values for each row of x that there is from `row` on.
                unsafe {
                    multiply::floats(
                        &FloatTile {
                            weights,
                            columns,
                            x,
                            stride: cols,
                        },
                        sums.len() / ROWS,
                        sums,
                    )
                };
            }
        }
        store(sums, output, &rows, &input_rows);
    });
}
