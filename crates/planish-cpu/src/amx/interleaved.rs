//! Interleaved weights on the tile unit: 16 or 32 rows of weights with all rows of x, 16 at once.
//!
//! The formula, and every bit of its results, are those of `avx512/interleaved.rs`: the unit sums up the same integers. A quad
//! of unpacked codes is a row of its second factor as it is; the planes of x are the first. Sums of a block of columns go through
//! memory to the vectors, which scale them while the unit works on the next block.

use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::FloatType;

use crate::avx512::interleaved::{self, BRAIN_FLOATS, HALVES, LINE, Scales, Unpack, ZERO_POINTS, fetch};
use crate::interleaved::LANES;
use crate::scratch::WorkerScratch;
use crate::table::{InterleavedKernels, InterleavedProduct};

use super::unit::{Bytes, TILE_ROWS};

/// Rows of x from which on the unit is faster than vectors.
const LEAST_ROWS: usize = 5;
/// Rows of x up to which the unit's sums of bytes are faster than those of bf16, with weights put back in order.
const MOST_ROWS: usize = 48;
/// Values of a tile of sums.
const TILE: usize = TILE_ROWS * LANES;
/// Bytes of a tile of codes.
const CODES: usize = TILE_ROWS * LINE;
/// Blocks of columns for which weights are unpacked ahead, and all rows of x pass over them: 8 KiB of codes.
const PIECE: usize = 4;
/// Blocks of columns that are unpacked at a time: a piece, and as many more.
const SLOTS: usize = 2 * PIECE;

/// For the row of the table.
pub(super) const KERNELS: InterleavedKernels = InterleavedKernels {
    most_rows: MOST_ROWS,
    product,
    ..interleaved::KERNELS
};

fn product(product: &InterleavedProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    if product.input.shape.m < LEAST_ROWS {
        return interleaved::multiply(product, rows);
    }
    match product.matrix.shape.packing.bits() {
        2 => pairs::<2>(product, rows, scratch),
        4 => pairs::<4>(product, rows, scratch),
        _ => pairs::<8>(product, rows, scratch),
    }
}

/// All rows of weights, two blocks of rows at once.
fn pairs<const BITS: u32>(product: &InterleavedProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    assert!(rows.start.is_multiple_of(LANES) && rows.end.is_multiple_of(LANES));
    let shape = product.input.shape;
    let middle = rows.end - rows.len() % (2 * LANES);
    let [pairs, rest] = [rows.start..middle, middle..rows.end].map(|rows| Strips { product, rows });
    // SAFETY: the table of instruction sets offers this function only where the features are there, matrices are checked before
    // they are multiplied, and x has the shape's columns.
    unsafe {
        let unit = Bytes::new(shape.tile_rows(), shape.block / 4);
        match product.matrix.shape.scale_type {
            FloatType::F16 => {
                pairs.run::<BITS, HALVES, 2>(&unit, scratch);
                rest.run::<BITS, HALVES, 1>(&unit, scratch);
            }
            FloatType::BF16 => {
                pairs.run::<BITS, BRAIN_FLOATS, 2>(&unit, scratch);
                rest.run::<BITS, BRAIN_FLOATS, 1>(&unit, scratch);
            }
            FloatType::F32 => {
                pairs.run::<BITS, ZERO_POINTS, 2>(&unit, scratch);
                rest.run::<BITS, ZERO_POINTS, 1>(&unit, scratch);
            }
        }
    }
}

/// Some rows of weights, in strips of N blocks of rows.
struct Strips<'a> {
    product: &'a InterleavedProduct<'a>,
    rows: Range<usize>,
}

impl Strips<'_> {
    /// While the vectors scale the products of a step, the unit works on the next one, and weights are unpacked some blocks ahead:
    /// nothing is read just after it was written.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,gfni")]
    unsafe fn run<const BITS: u32, const SCALES: u8, const N: usize>(self, unit: &Bytes, scratch: &mut WorkerScratch) {
        let (product, input) = (self.product, &self.product.input);
        let shape = input.shape;
        let (blocks, tiles) = (shape.blocks(), shape.m.div_ceil(TILE_ROWS));
        let (tile_rows, block_bytes) = (shape.tile_rows(), shape.block_bytes());
        let total = self.rows.len() / (N * LANES) * blocks;
        let WorkerScratch { tile, scales, sums, .. } = scratch;
        let codes = tile.take::<u8>(SLOTS * N * CODES).as_mut_ptr(); // (slots, N, quads, 16 rows of weights, 4)
        let products = scales.take::<i32>(2 * N * 2 * TILE).as_mut_ptr(); // (2, N, planes, 16 rows of x, 16 rows of weights)
        let sums = sums.take::<f32>(tiles * N * TILE).as_mut_ptr(); // (tiles, 16 rows of x, N, 16 rows of weights)
        let mut unpacked = Cursor::new::<BITS, N>(product, self.rows.start);
        let unpack = Unpack::<BITS>::new();
        let (mut step, mut next) = (None::<Step>, (total > 0).then(|| self.first()));
        let mut parity = 0;
        while next.is_some() || step.is_some() {
            if let Some(next) = &next {
                // All blocks of the piece, and one more with every step of its first tile.
                let ahead = next.index + if next.tile == 0 { PIECE } else { 0 };
                while unpacked.index < total.min(ahead + 1) {
                    for rows in 0..N {
                        // SAFETY: the blocks of a strip follow one another, and so do strips; a quad of 16 rows is a line.
                        unsafe {
                            let mut from = unpacked.at.add(rows * unpacked.block_bytes);
                            let mut into = codes.add((unpacked.index % SLOTS * N + rows) * CODES);
                            for _ in 0..unpacked.lines {
                                fetch(from);
                                for quad in unpack.line(from).into_iter().take(Unpack::<BITS>::PARTS) {
                                    _mm512_store_si512(into.cast(), quad);
                                    into = into.add(LINE);
                                }
                                from = from.add(LINE);
                            }
                        }
                    }
                    unpacked.advance::<N>();
                }
                // SAFETY: x has memory for whole tiles; the rest is as above.
                unsafe {
                    let x = input
                        .codes
                        .as_ptr()
                        .add((next.tile * blocks + next.block) * block_bytes);
                    let codes = codes.add(next.index % SLOTS * N * CODES);
                    let products = products.add((1 - parity) * N * 2 * TILE);
                    unit.multiply::<N>(x, block_bytes / 2, shape.block, codes, products);
                }
            }
            if let Some(step) = &step {
                let rows = (shape.m - step.tile * TILE_ROWS).min(tile_rows);
                let at = (step.tile * blocks + step.block) * tile_rows;
                let (x_scales, x_sums) = (&input.scales[at..at + rows], &input.sums[at..at + rows]);
                let known = if step.block == 0 { 0 } else { u16::MAX };
                // SAFETY: every group ends in a line of scales; the rows are those given to the caller; 16 sums are a register.
                unsafe {
                    let scales: [Scales; N] = std::array::from_fn(|block| {
                        Scales::read::<SCALES>(
                            product
                                .matrix
                                .scales(step.row / LANES + block, step.block * shape.block),
                        )
                    });
                    let mut from = sums.add(step.tile * N * TILE);
                    let (mut into, stride) = match step.block + 1 == blocks {
                        true => (
                            product.output.at(step.tile * TILE_ROWS, step.row),
                            product.output.stride(),
                        ),
                        false => (from, N * LANES),
                    };
                    let mut products = products.add(parity * N * 2 * TILE);
                    for (x_scale, x_sum) in x_scales.iter().zip(x_sums) {
                        let (x_scale, x_sum) = (_mm512_set1_ps(*x_scale), _mm512_set1_ps(*x_sum));
                        for (rows, scales) in scales.iter().enumerate() {
                            let plane =
                                |plane: usize| _mm512_load_si512(products.add((2 * rows + plane) * TILE).cast());
                            let sum = _mm512_maskz_loadu_ps(known, from.add(rows * LANES));
                            let sum = scales.add_block(sum, plane(0), plane(1), x_scale);
                            _mm512_storeu_ps(into.add(rows * LANES), scales.add_bias(sum, x_sum));
                        }
                        (products, from, into) = (products.add(LANES), from.add(N * LANES), into.wrapping_add(stride));
                    }
                }
            }
            let after = next.as_ref().and_then(|step| self.after::<N>(step));
            (step, next) = (next, after);
            parity = 1 - parity;
        }
    }

    fn first(&self) -> Step {
        Step {
            row: self.rows.start,
            tile: 0,
            block: 0,
            piece: 0,
            index: 0,
        }
    }

    /// The step after one: block by block of a piece, tile by tile, piece by piece and strip by strip.
    #[inline]
    fn after<const N: usize>(&self, step: &Step) -> Option<Step> {
        let (blocks, tiles) = (
            self.product.input.shape.blocks(),
            self.product.input.shape.m.div_ceil(TILE_ROWS),
        );
        let end = (step.piece + PIECE).min(blocks);
        let mut step = *step;
        step.block += 1;
        step.index += 1;
        if step.block == end && step.tile + 1 < tiles {
            step.index -= end - step.piece;
            step.block = step.piece;
            step.tile += 1;
        } else if step.block == end {
            step.tile = 0;
            if end == blocks {
                step.block = 0;
                step.row += N * LANES;
            }
            step.piece = step.block;
        }
        (step.row < self.rows.end).then_some(step)
    }
}

/// What is multiplied at once: a block of columns of a strip with a tile of x.
#[derive(Clone, Copy)]
struct Step {
    row: usize,
    tile: usize,
    block: usize,
    /// The first block of the piece, over which all tiles pass before the next piece.
    piece: usize,
    /// Which block of all strips.
    index: usize,
}

/// A block of columns of N blocks of rows.
#[derive(Clone, Copy)]
struct Cursor {
    at: *const u8,      // the first block of rows
    block_bytes: usize, // from one block of rows to the next
    lines: usize,       // of a block of columns
    index: usize,       // which block of all strips
    block: usize,       // which of its strip
    blocks: usize,      // of a strip
    within: usize,      // which of its group
    of_group: usize,    // blocks of a group
}

impl Cursor {
    fn new<const BITS: u32, const N: usize>(product: &InterleavedProduct<'_>, row: usize) -> Cursor {
        let shape = product.input.shape;
        let block_bytes = product.matrix.block_bytes();
        Cursor {
            at: product.matrix.data[row / LANES * block_bytes..].as_ptr(),
            block_bytes,
            lines: shape.block * BITS as usize / 32,
            index: 0,
            block: 0,
            blocks: shape.blocks(),
            within: 0,
            of_group: shape.packing.group() / shape.block,
        }
    }

    /// To the next block: over the scales after the last of a group, and from the end of a strip to the next.
    #[inline]
    fn advance<const N: usize>(&mut self) {
        self.at = self.at.wrapping_add(self.lines * LINE);
        self.index += 1;
        self.block += 1;
        self.within += 1;
        if self.within == self.of_group {
            self.at = self.at.wrapping_add(LINE);
            self.within = 0;
        }
        if self.block == self.blocks {
            self.at = self.at.wrapping_add((N - 1) * self.block_bytes);
            self.block = 0;
        }
    }
}
