//! Causal attention with grouped queries over the blocks of a [`KeyValues`]:
//! `output = softmax(scale * queries x keys^T + mask) x values`, f32 sums.
//!
//! A task is one key-value head, a tile of rows and a share of the blocks. All query heads of the group are rows of one
//! product, so every block is read once for them. The softmax is online; tasks that share rows are merged at the end
//! (split over the sequence, as in Flash-Decoding), which keeps all threads busy when one token is decoded.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::Pool;
use crate::key_values::{BLOCK, Block, Blocks, KeyValues};
use crate::share::SharedSlice;
use crate::vector::{PositionBias, Product, ProductElement, SoftmaxBlock, VectorFunctions, vector_functions};

/// Rows (positions x query heads of the group) of a tile, where there are that many.
const TILE_ROWS: usize = 48;
/// Blocks below which a sequence is not split further.
const LEAST_BLOCKS: usize = 2;
/// Multiply-adds below which other threads are not worth waking.
const WORTH_SHARING: usize = 128 * 1024;

/// Queries against all keys up to their own position, which the cache already holds.
pub struct Attention<'a> {
    /// Query heads, a multiple of the key-value heads. // (rows, heads, head_dim)
    pub queries: &'a [f32],
    /// Query heads.
    pub heads: usize,
    /// Position of the first row.
    pub first_position: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// A row sees this many positions, its own included; `None` is all.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Linear biases of positions.
    pub alibi: Option<Alibi<'a>>,
    /// A score for each head that takes part in the softmax and has no value. // (heads)
    pub sinks: Option<&'a [f32]>,
    /// Keys and values, those of these rows included.
    pub key_values: &'a KeyValues,
    /// The result. // (rows, heads, value_dim)
    pub output: &'a mut [f32],
}

/// The score of a head with a key at position p gains `factor * bf16(slope * p)`.
#[derive(Clone, Copy)]
pub struct Alibi<'a> {
    /// One for each head. // (heads)
    pub slopes: &'a [f32],
    /// Multiplies what the slopes give.
    pub factor: f32,
}

/// Memory that calls reuse: a scratch for each slot of the pool and the results of split rows.
#[derive(Default)]
pub struct AttentionWorkspace {
    slots: Vec<Mutex<Scratch>>,
    partial: Vec<f32>,
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>, // (tile rows, head_dim), scaled
    scores: Vec<f32>,  // (tile rows, BLOCK)
    sums: Vec<f32>,    // (tile rows, width)
    maxima: Vec<f32>,  // (tile rows)
    totals: Vec<f32>,  // (tile rows)
}

/// Sizes of one call.
struct Plan<'a> {
    problem: &'a Attention<'a>,
    rows: usize,
    head_dim: usize,
    value_dim: usize,
    width: usize,
    group: usize,
    tile: usize, // positions
    tiles: usize,
    splits: usize,
}

/// One share of the work.
struct Task {
    kv_head: usize,
    rows: Range<usize>, // positions of the call
    blocks: Range<usize>,
    first_blocks: bool, // these are the first that the rows see
}

/// Computes every row.
pub fn attention(pool: &Pool, problem: &mut Attention<'_>, workspace: &mut AttentionWorkspace) {
    let output = std::mem::take(&mut problem.output);
    let plan = Plan::new(problem, pool.threads());
    assert!(output.len() == plan.rows * problem.heads * plan.value_dim);
    workspace.prepare(&plan, pool.threads());
    let AttentionWorkspace { slots, partial } = workspace;
    let (output_rows, partial_rows) = (SharedSlice::new(&mut *output), SharedSlice::new(partial));
    let tasks = plan.tasks();
    let run = |slot: usize, index: usize| {
        let mut scratch = slots[slot].lock().unwrap_or_else(PoisonError::into_inner);
        let task = plan.task(index);
        match problem.key_values.blocks() {
            Blocks::Single(blocks) => plan.attend(&task, blocks, &mut scratch),
            Blocks::Half(blocks) => plan.attend(&task, blocks, &mut scratch),
        }
        // SAFETY: every task has its own rows and head of the output, or its own share of the partial results.
        unsafe {
            match plan.splits {
                1 => plan.finish(&task, &scratch, &output_rows),
                _ => plan.keep(&task, &scratch, partial_rows.range(plan.partial_range(index))),
            }
        }
    };
    if plan.multiply_adds() < WORTH_SHARING {
        (0..tasks).for_each(|index| run(0, index));
    } else {
        pool.chunks(tasks, run);
    }
    if plan.splits > 1 {
        plan.merge(partial, output);
    }
}

impl AttentionWorkspace {
    fn prepare(&mut self, plan: &Plan<'_>, threads: usize) {
        self.slots.resize_with(threads.max(self.slots.len()), Default::default);
        let needed = if plan.splits > 1 {
            plan.tasks() * plan.partial_len()
        } else {
            0
        };
        if self.partial.len() < needed {
            self.partial.resize(needed, 0.0);
        }
    }
}

impl Plan<'_> {
    fn new<'a>(problem: &'a Attention<'a>, threads: usize) -> Plan<'a> {
        let shape = problem.key_values.shape();
        let head_dim = shape.head_dim;
        let rows = problem.queries.len() / (problem.heads * head_dim);
        assert!(problem.heads.is_multiple_of(shape.heads) && problem.queries.len() == rows * problem.heads * head_dim);
        assert!(problem.sinks.is_none_or(|sinks| sinks.len() == problem.heads));
        assert!(problem.alibi.is_none_or(|alibi| alibi.slopes.len() == problem.heads));
        let group = problem.heads / shape.heads;
        let tile = (TILE_ROWS / group).clamp(1, rows.max(1));
        let tiles = rows.div_ceil(tile);
        let mut plan = Plan {
            problem,
            rows,
            head_dim,
            value_dim: shape.value_dim,
            width: shape.width(),
            group,
            tile,
            tiles,
            splits: 1,
        };
        let units = shape.heads * tiles;
        if threads > 1 && units < 2 * threads && plan.multiply_adds() >= WORTH_SHARING {
            let blocks = plan.blocks(0..rows).len();
            plan.splits = (3 * threads).div_ceil(units).min(blocks / LEAST_BLOCKS).max(1);
        }
        plan
    }

    fn tasks(&self) -> usize {
        self.problem.key_values.shape().heads * self.tiles * self.splits
    }

    fn multiply_adds(&self) -> usize {
        let keys = self.problem.first_position + self.rows;
        self.rows
            * self.problem.heads
            * (self.head_dim + self.value_dim)
            * keys.min(self.problem.window.unwrap_or(keys))
    }

    /// The longest tiles come first, so that threads finish together.
    fn task(&self, index: usize) -> Task {
        let (unit, split) = (index / self.splits, index % self.splits);
        let kv_heads = self.problem.key_values.shape().heads;
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

    /// Positions that a row sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let end = self.problem.first_position + row + 1;
        self.problem.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// Blocks that any of the rows sees.
    fn blocks(&self, rows: Range<usize>) -> Range<usize> {
        self.visible(rows.start).start / BLOCK..self.visible(rows.end - 1).end.div_ceil(BLOCK)
    }

    /// Fills the scratch with the sums, maxima and totals of the task's rows over its blocks.
    fn attend<T: ProductElement>(&self, task: &Task, blocks: &[Block<T>], scratch: &mut Scratch) {
        let functions = vector_functions();
        let product = T::product(functions);
        let (rows, head_dim, width) = (task.rows.len() * self.group, self.head_dim, self.width);
        let keys = |index: usize| &blocks[index].keys[task.kv_head * head_dim * BLOCK..][..head_dim * BLOCK];
        let values = |index: usize| &blocks[index].values[task.kv_head * BLOCK * width..][..BLOCK * width];
        self.start(task, scratch);
        for index in task.blocks.clone() {
            let next = (index + 1 < task.blocks.end).then_some(index + 1);
            // SAFETY: the functions are those this machine supports.
            unsafe {
                product(&mut Product {
                    left: &scratch.queries,
                    left_stride: head_dim,
                    right: keys(index),
                    ahead: next.map_or(&[], keys),
                    rows,
                    depth: head_dim,
                    cols: BLOCK,
                    accumulate: false,
                    output: &mut scratch.scores,
                });
            }
            let depth = self.soften(functions, task, index * BLOCK, scratch);
            if depth == 0 {
                continue;
            }
            // SAFETY: the functions are those this machine supports.
            unsafe {
                product(&mut Product {
                    left: &scratch.scores,
                    left_stride: BLOCK,
                    right: values(index),
                    ahead: next.map_or(&[], values),
                    rows,
                    depth,
                    cols: width,
                    accumulate: true,
                    output: &mut scratch.sums,
                });
            }
        }
    }

    /// Gathers the scaled queries of the task and clears the sums.
    fn start(&self, task: &Task, scratch: &mut Scratch) {
        let rows = task.rows.len() * self.group;
        scratch.queries.clear();
        for row in task.rows.clone() {
            let from = (row * self.problem.heads + task.kv_head * self.group) * self.head_dim;
            let queries = &self.problem.queries[from..from + self.group * self.head_dim];
            scratch
                .queries
                .extend(queries.iter().map(|query| query * self.problem.scale));
        }
        scratch.scores.resize(rows * BLOCK, 0.0);
        for (values, len, start) in [
            (&mut scratch.sums, rows * self.width, 0.0),
            (&mut scratch.maxima, rows, f32::NEG_INFINITY),
            (&mut scratch.totals, rows, 0.0),
        ] {
            values.clear();
            values.resize(len, start);
        }
        if let (Some(sinks), true) = (self.problem.sinks, task.first_blocks) {
            let sinks = sinks[task.kv_head * self.group..][..self.group].iter().cycle();
            for ((maximum, total), &sink) in scratch.maxima.iter_mut().zip(&mut scratch.totals).zip(sinks) {
                (*maximum, *total) = (sink, 1.0);
            }
        }
    }

    /// Scores of the block that starts at `position` become weights, and earlier sums shrink to the new maxima. Returns
    /// how many positions of the block any row sees.
    fn soften(&self, functions: &VectorFunctions, task: &Task, position: usize, scratch: &mut Scratch) -> usize {
        let mut depth = 0;
        for (index, scores) in scratch
            .scores
            .chunks_exact_mut(BLOCK)
            .take(task.rows.len() * self.group)
            .enumerate()
        {
            let visible = self.visible(task.rows.start + index / self.group);
            let clip = |end: usize| end.clamp(position, position + BLOCK) - position;
            let valid = clip(visible.start)..clip(visible.end);
            depth = depth.max(if valid.is_empty() { 0 } else { valid.end });
            let (maximum, sum) = (&mut scratch.maxima[index], &mut scratch.totals[index]);
            let slope = |alibi: Alibi<'_>| PositionBias {
                slope: alibi.slopes[task.kv_head * self.group + index % self.group],
                factor: alibi.factor,
                first_position: position,
            };
            let mut block = SoftmaxBlock {
                scores,
                valid,
                softcap: self.problem.softcap,
                bias: self.problem.alibi.map(slope),
                maximum,
                sum,
            };
            // SAFETY: the functions are those this machine supports.
            let shrink = unsafe { (functions.softmax_block)(&mut block) };
            if shrink != 1.0 {
                scratch.sums[index * self.width..][..self.width]
                    .iter_mut()
                    .for_each(|sum| *sum *= shrink);
            }
        }
        depth
    }

    /// Writes the rows of a task that saw all blocks.
    ///
    /// # Safety
    /// No other slice of these rows and heads of the output may live.
    unsafe fn finish(&self, task: &Task, scratch: &Scratch, output: &SharedSlice<'_, f32>) {
        for (index, total) in scratch.totals.iter().enumerate() {
            let sums = &scratch.sums[index * self.width..][..self.value_dim];
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
        let row = task.rows.start + index / self.group;
        let head = task.kv_head * self.group + index % self.group;
        let start = (row * self.problem.heads + head) * self.value_dim;
        start..start + self.value_dim
    }

    /// Values kept of a task: for each row the sums, the maximum and the total.
    fn partial_len(&self) -> usize {
        self.tile * self.group * (self.value_dim + 2)
    }

    fn partial_range(&self, index: usize) -> Range<usize> {
        index * self.partial_len()..(index + 1) * self.partial_len()
    }

    fn keep(&self, task: &Task, scratch: &Scratch, partial: &mut [f32]) {
        let rows = partial
            .chunks_exact_mut(self.value_dim + 2)
            .take(task.rows.len() * self.group);
        for (index, kept) in rows.enumerate() {
            kept[..self.value_dim].copy_from_slice(&scratch.sums[index * self.width..][..self.value_dim]);
            kept[self.value_dim] = scratch.maxima[index];
            kept[self.value_dim + 1] = scratch.totals[index];
        }
    }

    /// Adds up what the splits of every row kept.
    fn merge(&self, partial: &[f32], output: &mut [f32]) {
        for first in (0..self.tasks()).step_by(self.splits) {
            let task = self.task(first);
            for index in 0..task.rows.len() * self.group {
                let parts = (0..self.splits)
                    .map(|split| &partial[self.partial_range(first + split)][index * (self.value_dim + 2)..]);
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
