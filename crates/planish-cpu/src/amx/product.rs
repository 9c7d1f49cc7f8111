//! Many rows of x: a panel of weight rows is unpacked to bf16 tiles, piece by piece of the columns, and all rows of x pass over
//! it. A panel, the same piece of x and the sums stay in the second-level cache: 128, 256 and 512 KiB.
//!
//! Weights are the first factor, which takes rows as they are; x, which is arranged once for all of them, is the second, in pairs
//! of columns. Sums are (rows of weights, rows of x), and turned when they are finished.

use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::Packing;

use crate::avx512::tile::{Part, ROWS, transpose};
use crate::scratch::WorkerScratch;
use crate::table::{Bf16Product, Output};

use super::unit::{BLOCK, Block, TILE_COLS, TILE_ROWS, Unit};
use super::weights::unpack;

/// Columns of a piece: 16 KiB of bf16 for 32 rows, as much for 32 rows of x: both fit in the first-level cache.
const COLUMNS: usize = 256;
/// Weight rows of a panel.
const PANEL_ROWS: usize = 256;
/// Rows of x for which a panel is unpacked once.
const PASS_ROWS: usize = 512;

/// Whether these kernels take a packing.
pub(super) fn fits(packing: Packing) -> bool {
    packing.group().is_multiple_of(TILE_COLS)
}

/// Rounds up to 16 rows of x to bf16 tiles of 16 pairs of columns, with zeros after the last row and column.
/// // (steps, 16 pairs, 16 rows, 2)
pub(super) fn arrange(x: &[f32], cols: usize, into: &mut [u16]) {
    // SAFETY: the table of instruction sets offers this function only where the features are there.
    unsafe { round(x, cols, into) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round(x: &[f32], cols: usize, into: &mut [u16]) {
    let tiles = into.chunks_exact_mut(TILE_ROWS * TILE_COLS);
    for (first, tile) in (0..cols).step_by(TILE_COLS).zip(tiles) {
        let mask = u32::MAX >> (TILE_COLS - TILE_COLS.min(cols - first));
        let mut rows = [_mm512_setzero_si512(); TILE_ROWS];
        for (rounded, x) in rows.iter_mut().zip(x.chunks_exact(cols)) {
            // SAFETY: the masks select what the row has; the register is 64 bytes of plain numbers.
            *rounded = unsafe {
                let x = x.as_ptr().add(first);
                let (left, right) = (
                    _mm512_maskz_loadu_ps(mask as u16, x),
                    _mm512_maskz_loadu_ps((mask >> 16) as u16, x.wrapping_add(16)),
                );
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(right, left))
            };
        }
        for (pair, into) in transpose(rows).into_iter().zip(tile.chunks_exact_mut(TILE_COLS)) {
            // SAFETY: 32 values of 2 bytes.
            unsafe { _mm512_storeu_si512(into.as_mut_ptr().cast(), pair) };
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
    let piece = (COLUMNS / packing.group()).max(1);
    let tiles = rows.len().div_ceil(ROWS);
    let tile_len = piece * packing.group() * ROWS;
    let WorkerScratch {
        floats: weights, sums, ..
    } = scratch;
    let weights = weights.take::<u16>(tiles * tile_len);
    let sums = sums.take::<f32>(x_rows.len().div_ceil(BLOCK) * tiles * BLOCK * ROWS); // (blocks of x, tiles, 32 rows, 32 of x)
    let all_groups = cols / packing.group();
    for first in (0..all_groups).step_by(piece) {
        let groups = first..(first + piece).min(all_groups);
        for (row, weights) in rows.clone().step_by(ROWS).zip(weights.chunks_exact_mut(tile_len)) {
            let part = Part {
                rows: row..(row + ROWS).min(rows.end),
                groups: groups.clone(),
            };
            // SAFETY: rows and groups are in the matrix, whose lengths were checked; the features are there, see `tiles`.
            unsafe { unpack::<BITS>(matrix, &part, weights) };
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
                // SAFETY: the block's sums are 32 x 32.
                unsafe { unit.store(sums.as_mut_ptr(), ROWS) };
                if groups.end == all_groups {
                    let rows = row..(row + ROWS).min(rows.end);
                    // SAFETY: the rows are those given to this call; the features are there.
                    unsafe { store(sums, output, &rows, &x_rows) };
                }
            }
        }
    }
}

/// Writes finished sums of 32 rows of weights with 32 rows of x, as far as both go.
///
/// # Safety
/// The rows must be those given to the caller.
#[target_feature(enable = "avx512f")]
unsafe fn store(sums: &[f32], output: &Output, rows: &Range<usize>, x_rows: &Range<usize>) {
    assert!(sums.len() >= ROWS * BLOCK && rows.len() <= ROWS && x_rows.len() <= BLOCK);
    for row in (0..rows.len()).step_by(16) {
        let mask = u16::MAX >> (16 - (rows.len() - row).min(16));
        for x_row in (0..x_rows.len()).step_by(16) {
            let products: [__m512i; 16] = std::array::from_fn(|index| {
                // SAFETY: 16 of the 32 x 32 sums.
                unsafe { _mm512_loadu_si512(sums.as_ptr().add((row + index) * BLOCK + x_row).cast()) }
            });
            let here = x_rows.start + x_row..x_rows.end;
            for (x_row, products) in here.zip(transpose(products)) {
                // SAFETY: the mask selects the caller's rows.
                unsafe { _mm512_mask_storeu_epi32(output.at(x_row, rows.start + row).cast(), mask, products) };
            }
        }
    }
}
