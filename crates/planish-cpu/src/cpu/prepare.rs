//! The rows of x in the forms of `input.rs`, prepared by all threads where there are many.

use super::Input;
use crate::Cpu;
use crate::floats::Floats;
use crate::input::{
    BF16_COLS, BF16_ROWS, Bf16Input, ExactInput, ExactRow, InputBuffers, Int8Input, Int8Row, Int16Input, Int16Tile,
    Shape,
};
use crate::share::SharedSlice;
use crate::table::{Bf16Kernels, InterleavedKernels};

/// Values of x that are rounded to 16 bits at once.
const SPAN_VALUES: usize = 4 * 1024;
/// Below so many values of x one thread prepares them all: handing over would cost more.
const SERIAL_VALUES: usize = 16 * 1024;

impl Cpu {
    /// As many rows of x as `input` holds, each in the form that the kernels want for `shape.m` rows.
    pub(super) fn round_input<'a>(
        &self,
        shape: Shape,
        input: Floats<'_>,
        buffers: &'a mut InputBuffers,
    ) -> Int8Input<'a> {
        let rows = input.len() / shape.cols;
        let (stride, block_stride, group_stride) = (shape.stride(), shape.block_stride(), shape.group_stride());
        let codes = SharedSlice::new(buffers.values.take::<i8>(rows * stride));
        let scales = SharedSlice::new(buffers.scales.take::<f32>(rows * block_stride));
        let sums = SharedSlice::new(buffers.sums.take::<f32>(rows * group_stride));
        self.each_input_row(rows, shape.cols, |row| {
            // SAFETY: every row is given to one call.
            let into = unsafe {
                Int8Row {
                    codes: codes.part(row, stride),
                    scales: scales.part(row, block_stride),
                    sums: sums.part(row, group_stride),
                }
            };
            input.with(row * shape.cols..(row + 1) * shape.cols, |x| {
                (self.set.arrange_int8)(x, &shape, into)
            });
        });
        Int8Input {
            shape,
            codes: buffers.values.get(rows * stride),
            scales: buffers.scales.get(rows * block_stride),
            sums: buffers.sums.get(rows * group_stride),
        }
    }

    /// As [`Cpu::round_input`], to 16 bits.
    pub(super) fn round_to_int16<'a>(
        &self,
        kernels: &InterleavedKernels,
        shape: Shape,
        input: Floats<'_>,
        buffers: &'a mut InputBuffers,
    ) -> Int16Input<'a> {
        let (cols, tile_rows, group) = (shape.cols, shape.tile_rows(), shape.packing.group());
        let rows = input.len() / cols;
        let (tiles, groups) = (rows.div_ceil(tile_rows), shape.groups());
        let (blocks_of_group, block_bytes) = (group / shape.block, shape.block_bytes());
        let codes = SharedSlice::new(buffers.values.take::<i8>(tiles * shape.blocks() * block_bytes));
        let scales = SharedSlice::new(buffers.scales.take::<f32>(tiles * shape.blocks() * tile_rows));
        let sums = SharedSlice::new(buffers.sums.take::<f32>(tiles * shape.blocks() * tile_rows));
        // Whole groups of a tile.
        let span = (SPAN_VALUES / (tile_rows * group)).clamp(1, groups.max(1));
        let spans = groups.div_ceil(span);
        self.each_block(tiles * spans, span * group * tile_rows, |index| {
            let (tile, first) = (index / spans, index % spans * span);
            let of_tile = first..(first + span).min(groups);
            let range = tile * groups + of_tile.start..tile * groups + of_tile.end;
            let blocks = range.start * blocks_of_group..range.end * blocks_of_group;
            // SAFETY: every group of a tile is given to one call.
            let into = unsafe {
                Int16Tile {
                    codes: codes.range(blocks.start * block_bytes..blocks.end * block_bytes),
                    scales: scales.range(blocks.start * tile_rows..blocks.end * tile_rows),
                    sums: sums.range(blocks.start * tile_rows..blocks.end * tile_rows),
                }
            };
            let rows = tile * tile_rows..((tile + 1) * tile_rows).min(rows);
            input.with(rows.start * cols..rows.end * cols, |x| {
                (kernels.round)(x, &shape, of_tile, into)
            });
        });
        Int16Input {
            shape,
            codes: buffers.values.get(tiles * shape.blocks() * block_bytes),
            scales: buffers.scales.get(tiles * shape.blocks() * tile_rows),
            sums: buffers.sums.get(tiles * shape.blocks() * tile_rows),
        }
    }

    /// As [`Cpu::round_input`], as floats.
    pub(super) fn arrange_input<'a>(
        &self,
        shape: Shape,
        input: Floats<'_>,
        buffers: &'a mut InputBuffers,
    ) -> ExactInput<'a> {
        let rows = input.len() / shape.cols;
        let (stride, group_stride) = (shape.stride(), shape.group_stride());
        let values = SharedSlice::new(buffers.values.take::<f32>(rows * stride));
        let sums = SharedSlice::new(buffers.sums.take::<f32>(rows * group_stride));
        self.each_input_row(rows, shape.cols, |row| {
            // SAFETY: every row is given to one call.
            let into = unsafe {
                ExactRow {
                    values: values.part(row, stride),
                    sums: sums.part(row, group_stride),
                }
            };
            input.with(row * shape.cols..(row + 1) * shape.cols, |x| {
                (self.set.arrange_exact)(x, &shape, into)
            });
        });
        let values = buffers.values.get(rows * stride);
        ExactInput {
            shape,
            values,
            sums: buffers.sums.get(rows * group_stride),
        }
    }

    /// As [`Cpu::round_input`], in tiles of bf16.
    pub(super) fn round_to_bf16<'a>(
        &self,
        kernels: &Bf16Kernels,
        input: &Input<'_>,
        buffers: &'a mut InputBuffers,
    ) -> Bf16Input<'a> {
        let (m, cols) = (input.m, input.values.len() / input.m);
        let steps = cols.div_ceil(BF16_COLS);
        let block_len = steps * BF16_ROWS * BF16_COLS;
        let (blocks, filled) = (m.div_ceil(2 * BF16_ROWS) * 2, m.div_ceil(BF16_ROWS));
        let tiles = SharedSlice::new(buffers.values.take::<u16>(blocks * block_len));
        self.each_block(filled, BF16_ROWS * cols, |block| {
            let rows = block * BF16_ROWS..m.min((block + 1) * BF16_ROWS);
            // SAFETY: every block is given to one call.
            let into = unsafe { tiles.part(block, block_len) };
            let range = rows.start * cols..rows.end * cols;
            input.values.with(range, |x| (kernels.arrange)(x, cols, into));
        });
        let tiles = buffers.values.get(blocks * block_len);
        Bf16Input { m, steps, tiles }
    }

    fn each_input_row(&self, m: usize, cols: usize, arrange: impl Fn(usize) + Sync) {
        const ROWS: usize = 4;
        self.each_block(m.div_ceil(ROWS), ROWS * cols, |block| {
            (block * ROWS..(block * ROWS + ROWS).min(m)).for_each(&arrange);
        });
    }

    /// Calls `job` with every block of so many values of x, spread over the pool where there are many.
    fn each_block(&self, blocks: usize, values: usize, job: impl Fn(usize) + Sync) {
        if blocks * values < SERIAL_VALUES {
            (0..blocks).for_each(job);
        } else {
            self.pool.chunks(blocks, |_, block| job(block));
        }
    }
}
