//! Attention of many rows over keys and values in f16 or bytes: queries, keys, weights and values rounded to bf16, sums in f32.
//!
//! A task packs each block of keys and values once into tiles as `vdpbf16ps` and AMX want them, then takes its rows 32 at a
//! time through scores, softmax and weighted values, so that all of these stay in the first-level cache.
//!
//! SmolLM2 135M, 512 tokens, 2 cores of a Xeon with AMX (November 2026): 0.54 ms a layer instead of 2.0 ms in f32, 22 ms
//! instead of 110 ms for 4,096; its logits diverge from exact ones by 0.00019 nats instead of 0.00014. On the same machine
//! `vdpbf16ps` without tiles is as fast as f32.

use std::sync::Arc;

use crate::attention::{Plan, RoundedTask, Scratch, Task, scale_rows};
use crate::key_values::{BLOCK, Block};
use crate::vector::SoftmaxBlock;

use super::rounded::{Packed, SoftRow, pack, round, soften};

/// Rows that pass through a block together.
pub(crate) const STRIP: usize = 32;
/// Rows of the right factor in a tile.
pub(crate) const TILE_DEPTH: usize = 32;
/// Columns of the right factor in a tile.
pub(crate) const TILE_COLS: usize = 16;
/// Values of a tile of the right factor.
pub(crate) const TILE: usize = TILE_DEPTH * TILE_COLS;
/// Columns of tiles in a block of scores.
const SCORE_TILES: usize = BLOCK / TILE_COLS;

/// `output (+)= left x right` for a strip of rows.
pub(crate) struct StripProduct {
    /// bf16, rows `left_stride` apart. // (STRIP, steps * TILE_DEPTH)
    pub left: *const u16,
    pub left_stride: usize,
    /// bf16. // (steps, tiles, TILE_DEPTH / 2, TILE_COLS, 2)
    pub right: *const u16,
    pub steps: usize,
    pub tiles: usize,
    /// // (STRIP, tiles * TILE_COLS)
    pub output: *mut f32,
    /// Add to what the output holds.
    pub accumulate: bool,
}

/// What multiplies bf16 on a machine.
pub(crate) trait StripUnit {
    /// # Safety
    /// The machine must have the unit, and AVX-512 with bf16.
    unsafe fn start() -> Self;

    /// # Safety
    /// The pointers must be valid for what the fields say.
    unsafe fn multiply(&self, product: &StripProduct);
}

/// What runs the tasks on a unit. Only for machines that have it, and AVX-512 with bf16.
pub(crate) const fn rounded_task<U: StripUnit>() -> RoundedTask {
    RoundedTask {
        half: attend::<U, _>,
        byte: attend::<U, _>,
    }
}

fn attend<U: StripUnit, T: Packed>(plan: &Plan<'_>, task: &Task, blocks: &[Arc<Block<T>>], scratch: &mut Scratch) {
    plan.start(task, scratch);
    // SAFETY: the table of instruction sets offers this function only where the features are there.
    unsafe {
        let unit = U::start();
        let mut rows = Rows::new(plan, task, scratch);
        rows.round_queries();
        for index in task.blocks.clone() {
            rows.pack(&blocks[index], plan.span.end_position() - index * BLOCK);
            for strip in 0..rows.count.div_ceil(STRIP) {
                rows.pass(&unit, strip, index * BLOCK);
            }
        }
        rows.finish();
    }
}

/// The rows of a task on their way through the blocks.
struct Rows<'a> {
    plan: &'a Plan<'a>,
    task: &'a Task,
    count: usize,
    key_steps: usize,
    value_tiles: usize,
    floats: &'a [f32],          // (count, head_dim)
    queries: &'a mut [u16],     // (whole strips, key_steps * TILE_DEPTH)
    keys: &'a mut [u16],        // (key_steps, SCORE_TILES, TILE)
    values: &'a mut [u16],      // (BLOCK / TILE_DEPTH, value_tiles, TILE)
    scores: &'a mut [f32],      // (STRIP, BLOCK)
    weights: &'a mut [u16],     // (STRIP, BLOCK)
    sums: &'a mut [f32],        // (whole strips, width)
    maxima: &'a mut [f32],      // (count)
    totals: &'a mut [f32],      // (count)
    lanes: &'a mut [[f32; 16]], // (count), sums of weights
    scales: [&'a [f32]; 2],     // (BLOCK) of keys, of values, or none
}

impl<'a> Rows<'a> {
    fn new(plan: &'a Plan<'a>, task: &'a Task, scratch: &'a mut Scratch) -> Rows<'a> {
        let count = task.rows.len() * plan.group;
        let padded = count.next_multiple_of(STRIP);
        let (key_steps, value_tiles) = (plan.head_dim.div_ceil(TILE_DEPTH), plan.width / TILE_COLS);
        let [queries, keys, values, weights, lanes] = &mut scratch.rounded;
        let rows = Rows {
            plan,
            task,
            count,
            key_steps,
            value_tiles,
            floats: &scratch.queries,
            queries: queries.take(padded * key_steps * TILE_DEPTH),
            keys: keys.take(key_steps * SCORE_TILES * TILE),
            values: values.take(BLOCK / TILE_DEPTH * value_tiles * TILE),
            scores: scratch.scores.take(STRIP * BLOCK),
            weights: weights.take(STRIP * BLOCK),
            sums: scratch.sums.take(padded * plan.width),
            maxima: &mut scratch.maxima,
            totals: &mut scratch.totals,
            lanes: lanes.take(count),
            scales: [&[]; 2],
        };
        rows.sums.fill(0.0);
        rows.weights.fill(0);
        for (lanes, &total) in rows.lanes.iter_mut().zip(&*rows.totals) {
            *lanes = [0.0; 16];
            lanes[0] = total;
        }
        rows
    }

    /// # Safety
    /// AVX-512 with bf16, as for all that follow.
    unsafe fn round_queries(&mut self) {
        self.queries.fill(0);
        let rounded = self.queries.chunks_exact_mut(self.key_steps * TILE_DEPTH);
        for (query, rounded) in self.floats.chunks_exact(self.plan.head_dim).zip(rounded) {
            // SAFETY: the features are there.
            unsafe { round(query, rounded) }
        }
    }

    /// A block of which so many positions, or all, were written. The rest may be no number, which a weight of zero would not hide.
    unsafe fn pack<T: Packed>(&mut self, block: &'a Block<T>, written: usize) {
        let (head_dim, width, head) = (self.plan.head_dim, self.plan.width, self.task.kv_head);
        let keys = &block.keys[head * head_dim * BLOCK..][..head_dim * BLOCK];
        let values = &block.values[head * BLOCK * width..][..BLOCK.min(written) * width];
        // SAFETY: the features are there.
        unsafe {
            pack(keys, BLOCK, head_dim, self.keys);
            pack(values, width, BLOCK, self.values);
        }
        self.scales = [block.key_scales(head), block.value_scales(head)];
    }

    /// Takes a strip of rows through the block that starts at `position`.
    unsafe fn pass<U: StripUnit>(&mut self, unit: &U, strip: usize, position: usize) {
        let first = strip * STRIP;
        let rows = first..(first + STRIP).min(self.count);
        let (task, plan) = (self.task, self.plan);
        let seen = |row: usize| !plan.valid(task, row, position).is_empty();
        // What a strip sees of the block is seen by its first or its last row, or lies between.
        if !rows.clone().any(seen) {
            return;
        }
        let stride = self.key_steps * TILE_DEPTH;
        let scores = StripProduct {
            left: self.queries[first * stride..].as_ptr(),
            left_stride: stride,
            right: self.keys.as_ptr(),
            steps: self.key_steps,
            tiles: SCORE_TILES,
            output: self.scores.as_mut_ptr(),
            accumulate: false,
        };
        // SAFETY: the slices have whole strips, see `new`.
        unsafe { unit.multiply(&scores) };
        for row in rows {
            // SAFETY: the features are there.
            unsafe { self.soften(row, position) };
        }
        let sums = StripProduct {
            left: self.weights.as_ptr(),
            left_stride: BLOCK,
            right: self.values.as_ptr(),
            steps: BLOCK / TILE_DEPTH,
            tiles: self.value_tiles,
            output: self.sums[first * plan.width..].as_mut_ptr(),
            accumulate: true,
        };
        // SAFETY: as above.
        unsafe { unit.multiply(&sums) };
    }

    /// Scores of a row become weights, and its earlier sums shrink.
    unsafe fn soften(&mut self, row: usize, position: usize) {
        let valid = self.plan.valid(self.task, row, position);
        let scores = &mut self.scores[row % STRIP * BLOCK..][..BLOCK];
        let weights = &mut self.weights[row % STRIP * BLOCK..][..BLOCK];
        let (maximum, lanes) = (&mut self.maxima[row], &mut self.lanes[row]);
        let [key_scales, value_scales] = self.scales;
        scale_rows(scores, key_scales);
        let (softcap, bias) = (self.plan.problem.softcap, self.plan.bias(self.task, row, position));
        // SAFETY: the features are there.
        let shrink = unsafe {
            if softcap.is_none() && bias.is_none() {
                soften(SoftRow {
                    scores,
                    valid,
                    scales: value_scales,
                    weights,
                    maximum,
                    sums: lanes,
                })
            } else {
                let mut block = SoftmaxBlock {
                    scores,
                    valid: valid.clone(),
                    softcap,
                    bias,
                    maximum,
                    sum: &mut lanes[0],
                };
                let shrink = (self.plan.functions.softmax_block)(&mut block);
                if !value_scales.is_empty() {
                    scale_rows(&mut block.scores[valid.clone()], &value_scales[valid]);
                }
                round(block.scores, weights);
                shrink
            }
        };
        if shrink != 1.0 {
            let sums = &mut self.sums[row * self.plan.width..][..self.plan.width];
            sums.iter_mut().for_each(|sum| *sum *= shrink);
        }
    }

    fn finish(self) {
        for (total, lanes) in self.totals.iter_mut().zip(self.lanes) {
            *total = lanes.iter().sum();
        }
    }
}
