//! Causal attention with grouped queries over the blocks of a [`KeyValues`]:
//! `output = softmax(scale * queries x keys^T + mask) x values`, f32 sums.
//!
//! A task is one key-value head, a tile of rows and a share of the blocks. All query heads of the group are rows of one
//! product, so every block is read once for them. The softmax is online; tasks that share rows are merged at the end
//! (split over the sequence, as in Flash-Decoding), which keeps all threads busy when one token is decoded.
//!
//! The floor of decoding is the reading of keys and values: 94 MB a token for SmolLM2 135M (30 layers, 3 heads of 64 values) at
//! position 4,096 in f16. 1 thread / 2 reach 9.6 / 17.9 GiB/s of them from huge pages where plain reading reaches 17 / 33 and
//! attention to what a cache holds 21 / 42 (Xeon with AMX, November 2026; "decode" and "read" of `benches/rest.rs`): reading and
//! computing hardly overlap. Without prefetches it is 8 / 14.
//!
//! What a task does is in `floats.rs`, for every instruction set and few rows, and for many rows over f16 or bytes in
//! `avx512/attention.rs`, where the processor multiplies bf16.

mod floats;
mod plan;

use std::sync::{Mutex, PoisonError};

use half::f16;

use crate::Cpu;
use crate::key_values::{Block, Blocks, KeyValues};
use crate::scratch::Buffer;
use crate::share::SharedSlice;

#[cfg(target_arch = "x86_64")]
pub(crate) use floats::scale_rows;
pub(crate) use plan::{Plan, Task};

/// Multiply-adds below which other threads are not worth waking.
const WORTH_SHARING: usize = 128 * 1024;

/// Fills the scratch with the sums, maxima and totals of a task's rows over its blocks, rounding to bf16 on the way.
#[derive(Clone, Copy)]
pub(crate) struct RoundedTask {
    pub half: AttendBlocks<f16>,
    pub byte: AttendBlocks<i8>,
}

pub(crate) type AttendBlocks<T> = fn(&Plan<'_>, &Task, &[Block<T>], &mut Scratch);

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

/// What a task works with. Rows are those of the tile, or more.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Scaled. // (rows, head_dim)
    pub queries: Vec<f32>,
    /// In f32. // (rows, BLOCK)
    pub scores: Buffer,
    /// Of values, weighted, in f32. // (rows, width)
    pub sums: Buffer,
    /// What was subtracted from scores: the largest one, or near it. // (rows of the tile)
    pub maxima: Vec<f32>,
    /// Sums of weights. // (rows of the tile)
    pub totals: Vec<f32>,
    /// What is rounded to bf16, and sums in lanes.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no other row rounds"))]
    pub rounded: [Buffer; 5],
}

/// Computes every row.
pub fn attention(cpu: &Cpu, problem: &mut Attention<'_>, workspace: &mut AttentionWorkspace) {
    let output = std::mem::take(&mut problem.output);
    let pool = cpu.pool();
    let plan = Plan::new(problem, cpu);
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
            Blocks::Half(blocks) => match plan.rounded {
                Some(rounded) => (rounded.half)(&plan, &task, blocks, &mut scratch),
                None => plan.attend(&task, blocks, &mut scratch),
            },
            Blocks::Byte(blocks) => match plan.rounded {
                Some(rounded) => (rounded.byte)(&plan, &task, blocks, &mut scratch),
                None => plan.attend(&task, blocks, &mut scratch),
            },
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
