//! How the rows of a span are cut into tasks, and how what they leave becomes the output.

use std::ops::Range;

use planish_ops::{Attention, CacheType, Shape, Span};

use crate::cpu::BATCH_ROWS;
use crate::key_values::BLOCK;
use crate::share::SharedSlice;
use crate::vector::VectorFunctions;
use crate::{Cpu, CpuOps};

use super::{RoundedTask, Scratch, WORTH_SHARING};

/// Rows (positions x query heads of the group) of a tile, where there are that many.
const TILE_ROWS: usize = 48;
/// As above where keys and values are rounded first, which many rows should share.
const ROUNDED_ROWS: usize = 192;
/// Rows that pass through a block together where keys and values are rounded first: a smaller tile does not pay.
const LEAST_ROUNDED: usize = 32;
/// Rows of a head from which on rounding pays, where they are those of one position.
const LEAST_GROUP: usize = 16;
/// Tasks for each thread where a sequence is split, so that threads that run at different speeds finish together.
const TASKS_PER_THREAD: usize = 8;
/// Blocks below which a sequence is not split further.
const LEAST_BLOCKS: usize = 2;

/// How the rows of one span are computed. It depends on the span alone: a sequence gives the same bits in any batch. Of a prompt, each
/// row gives the same bits in any span.
pub(crate) struct Plan<'a> {
    pub problem: &'a Attention<'a, CpuOps>,
    pub span: Span,
    /// Of the span. // (rows, heads, head_dim)
    queries: &'a [f32],
    /// Multiplies the scores.
    pub scale: f32,
    kv_heads: usize,
    /// The f32 kernels.
    pub functions: &'static VectorFunctions,
    pub rows: usize,
    pub head_dim: usize,
    pub value_dim: usize,
    /// Values of a head in the cache, padding included.
    pub width: usize,
    /// Query heads that share keys and values.
    pub group: usize,
    /// Positions.
    pub tile: usize,
    pub tiles: usize,
    /// Shares of the blocks of a tile.
    pub splits: usize,
    /// What runs the tasks, if not the f32 kernels.
    pub rounded: Option<RoundedTask>,
}

/// One share of the work.
pub(crate) struct Task {
    pub kv_head: usize,
    /// Rows of the span.
    pub rows: Range<usize>,
    pub blocks: Range<usize>,
    /// These are the first blocks that the rows see.
    pub first_blocks: bool,
}

impl Plan<'_> {
    pub fn new<'a>(
        problem: &'a Attention<'a, CpuOps>,
        output_cols: usize,
        span: Span,
        whole: usize,
        cpu: &Cpu,
    ) -> Plan<'a> {
        let shape = problem.key_values.shape();
        let (head_dim, rows, threads) = (shape.head_dim, span.rows, cpu.pool().threads());
        assert!(problem.heads.is_multiple_of(shape.heads) && problem.queries.cols() == problem.heads * head_dim);
        assert!(output_cols == problem.heads * shape.value_dim);
        let group = problem.heads / shape.heads;
        let rounded = cpu.rounded_attention();
        let many = whole.max(rows) > BATCH_ROWS;
        let rounded = rounded.filter(|_| shape.cache != CacheType::Float32 && (many || group >= LEAST_GROUP));
        let (tile_rows, least) = match rounded {
            Some(_) => (ROUNDED_ROWS, LEAST_ROUNDED),
            None => (TILE_ROWS, 1),
        };
        let wanted = rows.div_ceil((2 * threads).div_ceil(shape.heads));
        let tile = (tile_rows / group).min(wanted).max(least / group).clamp(1, rows.max(1));
        let tiles = rows.div_ceil(tile);
        let mut plan = Plan {
            problem,
            span,
            queries: problem.queries.rows_of(span.first_row..span.end_row()),
            scale: problem.scale
                * problem
                    .temperature_tuning
                    .map_or(1.0, |tuning| tuning.factor(span.first_position)),
            kv_heads: shape.heads,
            functions: cpu.vector(),
            rows,
            head_dim,
            value_dim: shape.value_dim,
            width: shape.width(),
            group,
            tile,
            tiles,
            splits: 1,
            rounded,
        };
        let units = shape.heads * tiles;
        // How many rows of a prompt come together must not decide how a row is summed.
        if !many && threads > 1 && units < 2 * threads && plan.multiply_adds() >= WORTH_SHARING {
            let blocks = plan.blocks(0..rows).len();
            plan.splits = (TASKS_PER_THREAD * threads)
                .div_ceil(units)
                .min(blocks / LEAST_BLOCKS)
                .max(1);
        }
        plan
    }

    pub fn tasks(&self) -> usize {
        self.kv_heads * self.tiles * self.splits
    }

    pub fn multiply_adds(&self) -> usize {
        let keys = self.span.first_position + self.rows;
        self.rows
            * self.problem.heads
            * (self.head_dim + self.value_dim)
            * keys.min(self.problem.window.unwrap_or(keys))
    }

    /// The longest tiles come first, so that threads finish together.
    pub fn task(&self, index: usize) -> Task {
        let (unit, split) = (index / self.splits, index % self.splits);
        let kv_heads = self.kv_heads;
        let tile = self.tiles - 1 - unit / kv_heads;
        let rows = tile * self.tile..((tile + 1) * self.tile).min(self.rows);
        let all = self.blocks(rows.clone());
        let part = |split: usize| all.start + all.len() * split / self.splits;
        Task {
            kv_head: unit % kv_heads,
            rows,
            blocks: part(split)..part(split + 1),
            first_blocks: split == 0,
        }
    }

    /// Scaled queries of a key-value head at a row. // (group, head_dim)
    pub fn queries(&self, row: usize, kv_head: usize) -> &[f32] {
        let from = (row * self.problem.heads + kv_head * self.group) * self.head_dim;
        &self.queries[from..from + self.group * self.head_dim]
    }

    /// Positions that a row sees.
    pub fn visible(&self, row: usize) -> Range<usize> {
        let end = self.span.first_position + row + 1;
        self.problem.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// What row `index` of a task sees of the block that starts at `position`.
    pub fn valid(&self, task: &Task, index: usize, position: usize) -> Range<usize> {
        let visible = self.visible(task.rows.start + index / self.group);
        let clip = |end: usize| end.clamp(position, position + BLOCK) - position;
        clip(visible.start)..clip(visible.end)
    }

    /// Blocks that any of the rows sees.
    fn blocks(&self, rows: Range<usize>) -> Range<usize> {
        self.visible(rows.start).start / BLOCK..self.visible(rows.end - 1).end.div_ceil(BLOCK)
    }

    /// Writes the rows of a task that saw all blocks.
    ///
    /// # Safety
    /// No other slice of these rows and heads of the output may live.
    pub unsafe fn finish(&self, task: &Task, scratch: &Scratch, output: &SharedSlice<'_, f32>) {
        let sums = scratch.sums.get::<f32>(scratch.totals.len() * self.width);
        for (index, total) in scratch.totals.iter().enumerate() {
            let sums = &sums[index * self.width..][..self.value_dim];
            // SAFETY: the caller's promise.
            let output = unsafe { output.range(self.output_range(task, index)) };
            output
                .iter_mut()
                .zip(sums)
                .for_each(|(output, sum)| *output = sum / total);
        }
    }

    /// Where row `index` of a task lies in the output.
    fn output_range(&self, task: &Task, index: usize) -> Range<usize> {
        let row = self.span.first_row + task.rows.start + index / self.group;
        let head = task.kv_head * self.group + index % self.group;
        let start = (row * self.problem.heads + head) * self.value_dim;
        start..start + self.value_dim
    }

    /// Values kept of a task: for each row the sums, the maximum and the total.
    fn partial_len(&self) -> usize {
        self.tile * self.group * (self.value_dim + 2)
    }

    /// Values kept of all tasks.
    pub fn partials(&self) -> usize {
        if self.splits > 1 {
            self.tasks() * self.partial_len()
        } else {
            0
        }
    }

    /// Where those of a task stand behind `first`.
    pub fn partial_range(&self, first: usize, index: usize) -> Range<usize> {
        first + index * self.partial_len()..first + (index + 1) * self.partial_len()
    }

    pub fn keep(&self, task: &Task, scratch: &Scratch, partial: &mut [f32]) {
        let rows = partial
            .chunks_exact_mut(self.value_dim + 2)
            .take(task.rows.len() * self.group);
        let sums = scratch.sums.get::<f32>(scratch.totals.len() * self.width);
        for (index, kept) in rows.enumerate() {
            kept[..self.value_dim].copy_from_slice(&sums[index * self.width..][..self.value_dim]);
            kept[self.value_dim] = scratch.maxima[index];
            kept[self.value_dim + 1] = scratch.totals[index];
        }
    }

    /// Adds up what the splits of every row kept: `partial` begins with those of this span.
    pub fn merge(&self, partial: &[f32], output: &mut [f32]) {
        for first in (0..self.tasks()).step_by(self.splits) {
            let task = self.task(first);
            for index in 0..task.rows.len() * self.group {
                let parts = (0..self.splits)
                    .map(|split| &partial[self.partial_range(0, first + split)][index * (self.value_dim + 2)..]);
                let maximum = parts
                    .clone()
                    .map(|part| part[self.value_dim])
                    .fold(f32::NEG_INFINITY, f32::max);
                let output = &mut output[self.output_range(&task, index)];
                output.fill(0.0);
                let mut total = 0.0;
                for part in parts {
                    let weight = (part[self.value_dim] - maximum).exp();
                    total += weight * part[self.value_dim + 1];
                    output
                        .iter_mut()
                        .zip(part)
                        .for_each(|(output, sum)| *output += weight * sum);
                }
                output.iter_mut().for_each(|output| *output /= total);
            }
        }
    }
}
