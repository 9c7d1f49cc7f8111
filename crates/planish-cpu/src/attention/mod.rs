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

use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use planish_format::memory;
use planish_ops::{Attention, Shape, Span};
use smallvec::SmallVec;

use crate::cpu::BATCH_ROWS;
use crate::key_values::{Block, Sequences, Stored};
use crate::scratch::Buffer;
use crate::share::SharedSlice;
use crate::vector::ProductElement;
use crate::{Cpu, CpuOps, CpuTensor};

#[cfg(target_arch = "x86_64")]
pub(crate) use floats::scale_rows;
pub(crate) use plan::{Plan, Task};

/// Multiply-adds below which other threads are not worth waking.
const WORTH_SHARING: usize = 128 * 1024;
/// Spans of a pass for which no memory is taken.
const FEW_SPANS: usize = 64;

/// Fills the scratch with the sums, maxima and totals of a task's rows over its blocks, rounding to bf16 on the way.
#[derive(Clone, Copy)]
pub(crate) struct RoundedTask {
    pub half: AttendBlocks<f16>,
    pub byte: AttendBlocks<i8>,
}

pub(crate) type AttendBlocks<T> = fn(&Plan<'_>, &Task, &[Arc<Block<T>>], &mut Scratch);

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

/// The plan of a span, and where its tasks and what they leave stand among those of all spans.
struct Part<'a> {
    plan: Plan<'a>,
    first_task: usize,
    first_partial: usize,
}

/// Computes every row: the tasks of all spans in one dispatch. The rows are those of a prompt of `whole` tokens, or of answers: the
/// latter are computed one by one, as they are when they come one by one.
pub(crate) fn attention(cpu: &Cpu, problem: Attention<'_, CpuOps>, whole: usize, workspace: &mut AttentionWorkspace) {
    // Tasks share the problem, and the output in parts.
    let mut nothing = CpuTensor::default();
    let output = problem.output;
    let problem = Attention {
        output: &mut nothing,
        ..problem
    };
    let output_cols = output.cols();
    let pool = cpu.pool();
    let (mut tasks, mut partials, mut multiply_adds) = (0, 0, 0);
    let spans = problem.places.spans.iter();
    let spans = spans.flat_map(|&span| {
        let rows = if whole.max(span.rows) <= BATCH_ROWS {
            1
        } else {
            span.rows
        };
        (0..span.rows).step_by(rows).map(move |row| Span {
            first_row: span.first_row + row,
            rows,
            first_position: span.first_position + row,
            ..span
        })
    });
    let parts = spans.map(|span| {
        let plan = Plan::new(&problem, output_cols, span, whole, cpu);
        let (first_task, first_partial) = (tasks, partials);
        tasks += plan.tasks();
        partials += plan.partials();
        multiply_adds += plan.multiply_adds();
        Part {
            plan,
            first_task,
            first_partial,
        }
    });
    let parts: SmallVec<[Part<'_>; FEW_SPANS]> = parts.collect();
    workspace.prepare(partials, pool.threads());
    let AttentionWorkspace { slots, partial } = workspace;
    let output = output.all_mut();
    let (output_rows, partial_rows) = (SharedSlice::new(&mut *output), SharedSlice::new(partial));
    let find = |index: usize| {
        let part = &parts[parts.partition_point(|part| part.first_task <= index) - 1];
        let index = index - part.first_task;
        (part, index, part.plan.task(index))
    };
    let run = |slot: usize, index: usize| {
        let mut scratch = slots[slot].lock().unwrap_or_else(PoisonError::into_inner);
        // Each slot runs its share of the tasks in order.
        let after = (index + 1 < tasks).then(|| find(index + 1));
        let (part, index, task) = find(index);
        let Part {
            plan, first_partial, ..
        } = part;
        match problem.key_values.stored() {
            Stored::Float32(sequences) => plan.run(&task, None, sequences, after, &mut scratch),
            Stored::Float16(sequences) => {
                let rounded = plan.rounded.map(|rounded| rounded.half);
                plan.run(&task, rounded, sequences, after, &mut scratch);
            }
            Stored::Int8(sequences) => {
                let rounded = plan.rounded.map(|rounded| rounded.byte);
                plan.run(&task, rounded, sequences, after, &mut scratch);
            }
        }
        // SAFETY: every task has its own rows and head of the output, or its own share of the partial results.
        unsafe {
            match plan.splits {
                1 => plan.finish(&task, &scratch, &output_rows),
                _ => plan.keep(
                    &task,
                    &scratch,
                    partial_rows.range(plan.partial_range(*first_partial, index)),
                ),
            }
        }
    };
    if multiply_adds < WORTH_SHARING {
        (0..tasks).for_each(|index| run(0, index));
    } else {
        pool.chunks(tasks, run);
    }
    for Part {
        plan, first_partial, ..
    } in &parts
    {
        if plan.splits > 1 {
            plan.merge(&partial[*first_partial..], output);
        }
    }
}

impl Plan<'_> {
    /// Fills the scratch with what the task leaves. `after` is the task that this thread is likely to run next.
    fn run<T: ProductElement>(
        &self,
        task: &Task,
        rounded: Option<AttendBlocks<T>>,
        sequences: &Sequences<T>,
        after: Option<(&Part<'_>, usize, Task)>,
        scratch: &mut Scratch,
    ) {
        let blocks = sequences.blocks(self.span.slot);
        match rounded {
            Some(attend) => attend(self, task, blocks, scratch),
            None => {
                let after = after.map_or([&[][..]; 2], |(Part { plan, .. }, _, task)| {
                    plan.first(&task, sequences.blocks(plan.span.slot))
                });
                self.attend(task, blocks, after, scratch);
            }
        }
    }
}

impl AttentionWorkspace {
    fn prepare(&mut self, partials: usize, threads: usize) {
        self.slots.resize_with(threads.max(self.slots.len()), Default::default);
        if self.partial.len() < partials {
            memory::resize("attention", &mut self.partial, partials, 0.0);
        }
    }
}
