//! Many rows of x: 32 rows of weights at a time are unpacked to bf16 tiles, which all rows of x pass over.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::avx512::tile::{Part, ROWS, load_scales, unpack_tile};
use crate::avx512::tiles::{Plan, each_tile, store};
use crate::scratch::WorkerScratch;
use crate::table::Bf16Product;

use super::unit::{BLOCK, Block, TILE_COLS, Unit};
use super::weights::{Tile, dequantize};

/// Columns of a tile of weights: 32 KiB of bf16.
const COLUMNS: usize = 512;

/// Rounds one row of x to bf16, with zeros after it.
pub(super) fn arrange(x: &[f32], into: &mut [u16]) {
    // SAFETY: the table of instruction sets offers this function only where the features are there.
    unsafe { round(x, into) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round(x: &[f32], into: &mut [u16]) {
    into[x.len()..].fill(0);
    for (values, into) in x.chunks(16).zip(into.chunks_mut(16)) {
        let mask = if values.len() == 16 {
            u16::MAX
        } else {
            (1 << values.len()) - 1
        };
        // SAFETY: the mask selects what both slices have; the register is 32 bytes of plain numbers.
        unsafe {
            let rounded: __m256i =
                std::mem::transmute(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, values.as_ptr())));
            _mm256_mask_storeu_epi16(into.as_mut_ptr().cast(), mask, rounded);
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
    let Bf16Product { matrix, input, output } = product;
    let group = matrix.packing.group();
    let groups = matrix.cols / group;
    let plan = Plan::new(matrix.packing, COLUMNS, 2 * input.stride, BLOCK);
    let codes = scratch.tile.take::<u8>(plan.groups * group * ROWS);
    let weights = scratch
        .floats
        .take::<u16>((plan.groups * group).next_multiple_of(TILE_COLS) * ROWS);
    let scale_count = plan.groups.next_multiple_of(16) * ROWS;
    let (scales, biases) = scratch.scales.take::<f32>(2 * scale_count).split_at_mut(scale_count);
    // SAFETY: the table of instruction sets offers this function only where the unit is available.
    let unit = unsafe { Unit::new() };
    each_tile(rows, input.m, plan.pass, |rows, input_rows| {
        let blocks = input_rows.len().div_ceil(BLOCK);
        let sums = scratch.sums.take::<f32>(blocks * BLOCK * ROWS);
        sums.fill(0.0);
        for first in (0..groups).step_by(plan.groups) {
            let part = Part {
                rows: rows.clone(),
                groups: first..(first + plan.groups).min(groups),
            };
            let columns = part.groups.len() * group;
            // SAFETY: rows and groups are in the matrix, whose lengths were checked; the features are there, see above.
            unsafe {
                unpack_tile::<BITS>(matrix, &part, codes);
                load_scales(matrix, &matrix.scales, &part, scales);
                load_scales(matrix, &matrix.biases, &part, biases);
                let tile = Tile {
                    codes,
                    group,
                    scales,
                    biases,
                    columns,
                };
                dequantize::<BITS>(&tile, weights);
            }
            for (sums, row) in sums
                .chunks_exact_mut(BLOCK * ROWS)
                .zip(input_rows.clone().step_by(BLOCK))
            {
                let block = Block {
                    x: input.values[row * input.stride + first * group..].as_ptr(),
                    x_stride: input.stride,
                    weights: weights.as_ptr(),
                    steps: columns.div_ceil(TILE_COLS),
                    sums: sums.as_mut_ptr(),
                };
                // SAFETY: x has whole blocks of rows and whole steps of columns (see `Bf16Input`); a tile that ends within a
                // step is the last of its row.
                unsafe { unit.multiply(&block) };
            }
        }
        store(&sums[..input_rows.len() * ROWS], output, &rows, &input_rows);
    });
}
