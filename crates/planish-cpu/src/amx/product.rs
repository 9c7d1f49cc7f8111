//! Many rows of x: a panel of weight rows is unpacked to bf16 tiles, piece by piece of the columns, and all rows of x pass over
//! it. A panel, the same piece of x and the sums stay in the second-level cache: 128, 256 and 512 KiB.

use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::PackedMatrix;

use crate::avx512::tile::{Part, ROWS, load_scales, unpack_tile};
use crate::avx512::tiles::{groups_of_piece, store};
use crate::avx512::unpack::chunk_codes;
use crate::scratch::{Buffer, WorkerScratch};
use crate::table::Bf16Product;

use super::unit::{BLOCK, Block, TILE_COLS, TILE_ROWS, Unit};
use super::weights::{Tile, dequantize};

/// Columns of a piece: 16 KiB of bf16 for 32 rows, as much for 32 rows of x: both fit in the first-level cache.
const COLUMNS: usize = 256;
/// Weight rows of a panel.
const PANEL_ROWS: usize = 256;
/// Rows of x for which a panel is unpacked once.
const PASS_ROWS: usize = 512;

/// Rounds up to 16 rows of x to bf16 tiles, with zeros after the last column.
pub(super) fn arrange(x: &[f32], cols: usize, into: &mut [u16]) {
    for (row, x) in x.chunks_exact(cols).enumerate() {
        // SAFETY: the table of instruction sets offers this function only where the features are there.
        unsafe { round(x, row, into) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round(x: &[f32], row: usize, into: &mut [u16]) {
    for (x, tile) in x.chunks(TILE_COLS).zip(into.chunks_exact_mut(TILE_ROWS * TILE_COLS)) {
        let into = &mut tile[row * TILE_COLS..][..TILE_COLS];
        let mask = u32::MAX >> (TILE_COLS - x.len());
        // SAFETY: the masks select what the slice has; the register is 64 bytes of plain numbers.
        unsafe {
            let first = _mm512_maskz_loadu_ps(mask as u16, x.as_ptr());
            let second = _mm512_maskz_loadu_ps((mask >> 16) as u16, x.as_ptr().wrapping_add(16));
            let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second, first));
            _mm512_storeu_si512(into.as_mut_ptr().cast(), rounded);
        }
    }
}

/// Packed weights times x rounded to bf16.
pub(super) fn product(product: &Bf16Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    match product.matrix.packing.bits() {
        2 => tiles::<2>(product, rows, scratch),
        3 => tiles::<3>(product, rows, scratch),
        4 => tiles::<4>(product, rows, scratch),
        5 => tiles::<5>(product, rows, scratch),
        6 => tiles::<6>(product, rows, scratch),
        _ => tiles::<8>(product, rows, scratch),
    }
}

fn tiles<const BITS: u32>(product: &Bf16Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let input = product.input;
    // SAFETY: the table of instruction sets offers this function only where the unit is available.
    let unit = unsafe { Unit::new() };
    for row in rows.clone().step_by(PANEL_ROWS) {
        let panel_rows = row..(row + PANEL_ROWS).min(rows.end);
        for x_row in (0..input.m).step_by(PASS_ROWS) {
            let x_rows = x_row..(x_row + PASS_ROWS).min(input.m);
            pass::<BITS>(product, &unit, &panel_rows, &x_rows, scratch);
        }
    }
}

/// The products of a panel with some rows of x.
fn pass<const BITS: u32>(
    product: &Bf16Product<'_>,
    unit: &Unit,
    rows: &Range<usize>,
    x_rows: &Range<usize>,
    scratch: &mut WorkerScratch,
) {
    let Bf16Product { matrix, input, output } = product;
    let (packing, cols) = (matrix.packing, matrix.cols);
    let piece = groups_of_piece(packing, COLUMNS);
    let tiles = rows.len().div_ceil(ROWS);
    let tile_len = (piece * packing.group()).next_multiple_of(TILE_COLS) * ROWS;
    let WorkerScratch {
        tile: codes,
        scales,
        floats: weights,
        sums,
        ..
    } = scratch;
    let weights = weights.take::<u16>(tiles * tile_len);
    let sums = sums.take::<f32>(x_rows.len().div_ceil(BLOCK) * tiles * BLOCK * ROWS); // (blocks of x, tiles, 32, 32)
    let all_groups = cols / packing.group();
    for first in (0..all_groups).step_by(piece) {
        let groups = first..(first + piece).min(all_groups);
        for (row, weights) in rows.clone().step_by(ROWS).zip(weights.chunks_exact_mut(tile_len)) {
            let part = Part {
                rows: row..(row + ROWS).min(rows.end),
                groups: groups.clone(),
            };
            unpack::<BITS>(matrix, &part, (codes, scales), weights);
        }
        let (first, columns) = (first * packing.group(), groups.len() * packing.group());
        let mut sums = sums.chunks_exact_mut(BLOCK * ROWS);
        for x_row in x_rows.clone().step_by(BLOCK) {
            let x = [x_row, x_row + TILE_ROWS].map(|row| {
                let tile = row / TILE_ROWS * input.steps + first / TILE_COLS;
                input.tiles[tile * TILE_ROWS * TILE_COLS..].as_ptr()
            });
            let x_rows = x_row..(x_row + BLOCK).min(x_rows.end);
            for ((row, weights), sums) in rows
                .clone()
                .step_by(ROWS)
                .zip(weights.chunks_exact(tile_len))
                .zip(&mut sums)
            {
                let block = Block {
                    x,
                    weights: weights.as_ptr(),
                    steps: columns.div_ceil(TILE_COLS),
                };
                // SAFETY: x has two blocks of rows for every 32, and pieces but the last are whole steps of columns.
                unsafe {
                    match first {
                        0 => unit.zero(),
                        _ => unit.load(sums.as_ptr(), ROWS),
                    }
                    unit.multiply(&block);
                }
                let rows = row..(row + ROWS).min(rows.end);
                let last = groups.end == all_groups;
                if last && rows.len() == ROWS && x_rows.len() == BLOCK {
                    // SAFETY: the rows are those given to this call, and all 32 of both are there.
                    unsafe { unit.store(output.at(x_row, row), output.stride()) };
                    continue;
                }
                // SAFETY: the block's sums are 32 x 32.
                unsafe { unit.store(sums.as_mut_ptr(), ROWS) };
                if last {
                    store(&sums[..x_rows.len() * ROWS], output, &rows, &x_rows);
                }
            }
        }
    }
}

/// Unpacks 32 rows of some groups to bf16.
fn unpack<const BITS: u32>(
    matrix: &PackedMatrix,
    part: &Part,
    (codes, scales): (&mut Buffer, &mut Buffer),
    into: &mut [u16],
) {
    let (group, columns) = (matrix.packing.group(), part.groups.len() * matrix.packing.group());
    let codes = codes.take::<u8>(columns.next_multiple_of(chunk_codes(BITS)) * ROWS);
    let count = part.groups.len().next_multiple_of(16) * ROWS;
    let (scales, biases) = scales.take::<f32>(2 * count).split_at_mut(count);
    // SAFETY: rows and groups are in the matrix, whose lengths were checked; the features are there, see `tiles`.
    unsafe {
        unpack_tile::<BITS>(matrix, part, codes);
        load_scales(matrix, &matrix.scales, part, scales);
        load_scales(matrix, &matrix.biases, part, biases);
        let tile = Tile {
            codes,
            group,
            scales,
            biases,
            columns,
        };
        dequantize::<BITS>(&tile, into);
    }
}
