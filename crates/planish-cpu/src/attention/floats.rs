//! Tasks in f32, whatever the cache holds: one product of queries and keys and one of weights and values for each block.

use std::sync::Arc;

use planish_format::memory;

use crate::key_values::{BLOCK, Block};
use crate::vector::{PositionBias, Product, ProductElement, SoftmaxBlock, VectorFunctions};

use super::{Plan, Scratch, Task};

impl Plan<'_> {
    /// Fills the scratch with the sums, maxima and totals of the task's rows over its blocks. `after` are the keys and values that
    /// this thread is likely to read next.
    pub(super) fn attend<T: ProductElement>(
        &self,
        task: &Task,
        blocks: &[Arc<Block<T>>],
        after: [&[T]; 2],
        scratch: &mut Scratch,
    ) {
        let functions = self.functions;
        let product = T::product(functions);
        let (rows, head_dim, width) = (task.rows.len() * self.group, self.head_dim, self.width);
        let keys = |index: usize| self.keys(&blocks[index], task.kv_head);
        let values = |index: usize| self.values(&blocks[index], task.kv_head);
        self.start(task, scratch);
        scratch.sums.take::<f32>(rows * width).fill(0.0);
        for index in task.blocks.clone() {
            let next = (index + 1 < task.blocks.end).then_some(index + 1);
            // SAFETY: the functions are those this machine supports.
            unsafe {
                product(&mut Product {
                    left: &scratch.queries,
                    left_stride: head_dim,
                    right: keys(index),
                    ahead: next.map_or(after[0], keys),
                    rows,
                    depth: head_dim,
                    cols: BLOCK,
                    accumulate: false,
                    output: scratch.scores.take(rows * BLOCK),
                });
            }
            scale_rows(
                scratch.scores.take(rows * BLOCK),
                blocks[index].key_scales(task.kv_head),
            );
            let depth = self.soften(functions, task, index * BLOCK, scratch);
            if depth == 0 {
                continue;
            }
            scale_rows(
                scratch.scores.take(rows * BLOCK),
                blocks[index].value_scales(task.kv_head),
            );
            // SAFETY: the functions are those this machine supports.
            unsafe {
                product(&mut Product {
                    left: scratch.scores.get(rows * BLOCK),
                    left_stride: BLOCK,
                    right: values(index),
                    ahead: next.map_or(after[1], values),
                    rows,
                    depth,
                    cols: width,
                    accumulate: true,
                    output: scratch.sums.take(rows * width),
                });
            }
        }
    }

    /// Keys and values that a task reads first.
    pub(super) fn first<'b, T: ProductElement>(&self, task: &Task, blocks: &'b [Arc<Block<T>>]) -> [&'b [T]; 2] {
        let block = &blocks[task.blocks.start];
        [self.keys(block, task.kv_head), self.values(block, task.kv_head)]
    }

    /// Of one head. // (head_dim, BLOCK)
    fn keys<'b, T: ProductElement>(&self, block: &'b Block<T>, head: usize) -> &'b [T] {
        &block.keys[head * self.head_dim * BLOCK..][..self.head_dim * BLOCK]
    }

    /// Of one head. // (BLOCK, width)
    fn values<'b, T: ProductElement>(&self, block: &'b Block<T>, head: usize) -> &'b [T] {
        &block.values[head * BLOCK * self.width..][..BLOCK * self.width]
    }

    /// Gathers the scaled queries of the task; no sums yet.
    pub(crate) fn start(&self, task: &Task, scratch: &mut Scratch) {
        let rows = task.rows.len() * self.group;
        scratch.queries.clear();
        memory::reserve("attention", &mut scratch.queries, rows * self.head_dim);
        for row in task.rows.clone() {
            let queries = self.queries(row, task.kv_head);
            scratch.queries.extend(queries.iter().map(|query| query * self.scale));
        }
        for (values, len, start) in [
            (&mut scratch.maxima, rows, f32::NEG_INFINITY),
            (&mut scratch.totals, rows, 0.0),
        ] {
            values.clear();
            values.resize(len, start);
        }
        if let (Some(sinks), true) = (self.problem.sinks, task.first_blocks) {
            let sinks = sinks.values()[task.kv_head * self.group..][..self.group].iter().cycle();
            for ((maximum, total), &sink) in scratch.maxima.iter_mut().zip(&mut scratch.totals).zip(sinks) {
                (*maximum, *total) = (sink, 1.0);
            }
        }
    }

    /// Scores of the block that starts at `position` become weights, and earlier sums shrink to the new maxima. Returns
    /// how many positions of the block any row sees.
    fn soften(&self, functions: &VectorFunctions, task: &Task, position: usize, scratch: &mut Scratch) -> usize {
        let mut depth = 0;
        let rows = task.rows.len() * self.group;
        let sums = scratch.sums.take::<f32>(rows * self.width);
        let scores = scratch.scores.take::<f32>(rows * BLOCK).chunks_exact_mut(BLOCK);
        for (index, scores) in scores.enumerate() {
            let valid = self.valid(task, index, position);
            depth = depth.max(if valid.is_empty() { 0 } else { valid.end });
            let (maximum, sum) = (&mut scratch.maxima[index], &mut scratch.totals[index]);
            let mut block = SoftmaxBlock {
                scores,
                valid,
                softcap: self.problem.softcap,
                bias: self.bias(task, index, position),
                maximum,
                sum,
            };
            // SAFETY: the functions are those this machine supports.
            let shrink = unsafe { (functions.softmax_block)(&mut block) };
            if shrink != 1.0 {
                sums[index * self.width..][..self.width]
                    .iter_mut()
                    .for_each(|sum| *sum *= shrink);
            }
        }
        depth
    }

    /// Bias of a row against the block that starts at `position`.
    pub(crate) fn bias(&self, task: &Task, index: usize, position: usize) -> Option<PositionBias> {
        self.problem.alibi.as_ref().map(|alibi| PositionBias {
            slope: alibi.slopes.values()[task.kv_head * self.group + index % self.group],
            rule: alibi.rule,
            first_position: position,
        })
    }
}

/// Multiplies every row with the scales, if there are some. `rows` is (rows, scales).
pub(crate) fn scale_rows(rows: &mut [f32], scales: &[f32]) {
    if scales.is_empty() {
        return;
    }
    for row in rows.chunks_exact_mut(scales.len()) {
        row.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
    }
}
