//! The operations on the CPU. Launches are done when they return.

mod meter;
mod routed;
mod tensor;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use planish_format::memory;
use planish_ops::{
    Add, Append, Attention, CacheType, ChannelScan, Choose, Convolution, CopyHeads, CopyRows, Cut, Embed, Experts,
    Gate, HeadLinear, HostWeight, KeyValueSizes, Linear, Matrix, Mix, Norm, Ops, Origin, PassSize, Phases, PlaceError,
    Placed, Recurrence, Rescale, Rope, RopeAngles, Rotation, SequenceStore, Span, Tokens, Use, Work, check_spans,
};

use crate::activation::activate;
use crate::add::{add, add_to_rows};
use crate::attention::{AttentionWorkspace, attention};
use crate::channel_scan::scan_channels;
use crate::choose::{CpuChosen, choose};
use crate::convolution::convolve;
use crate::cpu::BATCH_ROWS;
use crate::cut::{cut, rescale};
use crate::heads::copy_heads;
use crate::mix::mix;
use crate::norm::norm;
use crate::recurrence::recur;
use crate::rope::{rope, rope_angles};
use crate::{Arena, Cpu, CpuMatrix, FloatsMut, KeyValueShape, KeyValues, Matmul, OutOfMemory, Precision};
use planish_format::memory::available_memory;

use meter::{Meter, Phase};
pub use routed::CpuStack;
use routed::RoutedWorkspace;
pub use tensor::CpuTensor;

/// Weights of one [`Linear`] at most: query, key and value.
const MOST_WEIGHTS: usize = 4;

/// Processor cores.
pub struct CpuOps {
    cpu: Cpu,
    precision: Precision,
    cache: CacheType,
    /// None: weights stay where they are.
    arena: Option<Mutex<Arena>>,
    workspace: Mutex<AttentionWorkspace>,
    /// Rows of a table that [`Embed`] takes.
    tokens: Mutex<Vec<u32>>,
    experts: Mutex<RoutedWorkspace>,
    meter: Meter,
    /// See [`Ops::read_as`].
    whole: AtomicUsize,
}

impl CpuOps {
    /// `precision` is that of packed matrices; [`Precision::Exact`] also keeps keys and values in f32 instead of f16.
    pub fn new(cpu: Cpu, precision: Precision) -> CpuOps {
        CpuOps {
            cpu,
            precision,
            cache: match precision {
                Precision::Exact => CacheType::Float32,
                Precision::Rounded => CacheType::Float16,
            },
            arena: Some(Mutex::default()),
            workspace: Mutex::default(),
            tokens: Mutex::default(),
            experts: Mutex::default(),
            meter: Meter::default(),
            whole: AtomicUsize::new(0),
        }
    }

    /// Keeps keys and values so from now on.
    pub fn with_cache(self, cache: CacheType) -> CpuOps {
        CpuOps { cache, ..self }
    }

    /// Leaves weights where they are from now on, in a mapped file mostly: slower to read, but memory that the system can take back.
    pub fn in_place(self) -> CpuOps {
        CpuOps { arena: None, ..self }
    }

    /// Threads and instruction set.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Rows that those of the operations are rounded as.
    fn whole(&self) -> usize {
        self.whole.load(Ordering::Relaxed)
    }

    /// In huge pages, where there are some, unless weights stay in place.
    fn keep(&self, matrix: Matrix) -> CpuMatrix {
        match &self.arena {
            Some(arena) => lock(arena).keep(&self.cpu, matrix.into(), self.precision),
            None => matrix.into(),
        }
    }
}

const MATMUL: Phase = |phases| &mut phases.matmul;
const ATTENTION: Phase = |phases| &mut phases.attention;
const OTHER: Phase = |phases| &mut phases.other;
const CHOICE: Phase = |phases| &mut phases.choice;

/// A panic elsewhere leaves nothing half done in these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Layers share nothing of sequences on the CPU: each has its own blocks.
#[derive(Default)]
pub struct CpuSequences;

impl SequenceStore for CpuSequences {
    fn fork(&mut self, _from: usize, _to: usize) {}

    fn clear(&mut self, _slot: usize) {}
}

impl Ops for CpuOps {
    type Tensor = CpuTensor;
    type Weight = CpuMatrix;
    type Stack = CpuStack;
    type KeyValues = KeyValues;
    type Sequences = CpuSequences;
    type Chosen = CpuChosen;
    type Error = OutOfMemory;

    /// What is computed next should still be in a cache. Products of up to 16 rows round each of them as if it were alone.
    const PASS: PassSize = PassSize {
        rows: 512,
        batch: BATCH_ROWS,
        few: Some(BATCH_ROWS),
        bytes: 24 << 20,
    };
    const SYNCHRONOUS: bool = true;

    fn tensor(&self, rows: usize, cols: usize) -> Result<CpuTensor, OutOfMemory> {
        CpuTensor::zeros(rows, cols)
    }

    fn tensor_f32(&self, rows: usize, cols: usize) -> Result<CpuTensor, OutOfMemory> {
        self.tensor(rows, cols)
    }

    fn vector(&self, values: &[f32]) -> Result<CpuTensor, OutOfMemory> {
        CpuTensor::row(values)
    }

    fn place<W: HostWeight>(&self, weight: W, _use_as: Use) -> Placed<CpuMatrix, CpuOps, W> {
        let matrix = weight.into_matrix().map_err(PlaceError::Weight)?;
        Ok(self.keep(matrix))
    }

    fn place_stack<W: HostWeight>(&self, weights: Vec<W>) -> Placed<CpuStack, CpuOps, W> {
        // All of them first: the host's copies of what it packs go before the next stack comes.
        let matrices: Result<Vec<Matrix>, W::Error> = weights.into_iter().map(HostWeight::into_matrix).collect();
        let matrices = matrices.map_err(PlaceError::Weight)?;
        Ok(CpuStack::new(
            matrices.into_iter().map(|matrix| self.keep(matrix)).collect(),
        ))
    }

    fn name(&self, weight: &CpuMatrix, origin: &dyn Fn() -> Option<Origin>) {
        if let Some(tap) = self.cpu.tap()
            && let Some(origin) = origin()
        {
            tap.name(weight.address(), origin);
        }
    }

    fn name_stack(&self, stack: &CpuStack, origins: &dyn Fn() -> Option<Vec<Origin>>) {
        if let Some(tap) = self.cpu.tap()
            && let Some(origins) = origins()
        {
            let named = stack.matrices().iter().zip(origins);
            named.for_each(|(weight, origin)| tap.name(weight.address(), origin));
        }
    }

    fn sequences(&self) -> Result<CpuSequences, OutOfMemory> {
        Ok(CpuSequences)
    }

    fn begin_pass(&self, spans: &[Span], _sequences: &mut CpuSequences) -> Result<(), OutOfMemory> {
        check_spans(spans);
        self.meter.skip();
        Ok(())
    }

    fn read_as(&self, tokens: usize) {
        self.whole.store(tokens, Ordering::Relaxed);
    }

    fn reads_alike(&self, left: usize, right: usize) -> bool {
        let is_few = |tokens: usize| tokens <= BATCH_ROWS;
        is_few(left) == is_few(right) && self.cpu.rounds_alike(left, right)
    }

    fn key_values(&self, sizes: KeyValueSizes) -> Result<KeyValues, OutOfMemory> {
        Ok(KeyValues::new(KeyValueShape {
            heads: sizes.heads,
            head_dim: sizes.head_dim,
            value_dim: sizes.value_dim,
            window: sizes.window,
            cache: self.cache,
        }))
    }

    fn read<'a>(
        &self,
        tensor: &'a CpuTensor,
        rows: Range<usize>,
        _staging: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], OutOfMemory> {
        Ok(tensor.rows_of(rows))
    }

    fn write(&self, tensor: &mut CpuTensor, values: &[f32]) -> Result<(), OutOfMemory> {
        tensor.all_mut()[..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn chosen(&self) -> Result<CpuChosen, OutOfMemory> {
        Ok(CpuChosen::default())
    }

    fn choose(&self, problem: Choose<'_, CpuOps>) -> Result<(), OutOfMemory> {
        problem.check();
        choose(self.cpu.pool(), problem);
        self.meter.lap(CHOICE, Work::default());
        Ok(())
    }

    fn take(&self, chosen: &mut CpuChosen, tokens: &mut Vec<Option<u32>>) -> Result<(), OutOfMemory> {
        chosen.take(tokens);
        Ok(())
    }

    fn measure(&self, on: bool) {
        self.meter.measure(on);
    }

    fn phases(&self) -> Phases {
        self.meter.phases()
    }

    fn used_bytes(&self) -> Option<u64> {
        None
    }

    fn free_bytes(&self) -> Option<u64> {
        available_memory().map(|bytes| bytes as u64)
    }

    fn embed(&self, problem: Embed<'_, CpuOps>) {
        problem.check();
        let Embed {
            table,
            tokens,
            scale,
            output,
        } = problem;
        let output = output.first_mut(tokens.count());
        let mut rows = lock(&self.tokens);
        rows.clear();
        memory::reserve("embeddings", &mut rows, tokens.count());
        match tokens {
            Tokens::Known(tokens) => rows.extend_from_slice(tokens),
            Tokens::Chosen { places, known, chosen } => {
                // Every span has one row, since only the last token of a sequence can be one that was chosen.
                let tokens = known.iter().zip(places.spans);
                rows.extend(tokens.map(|(token, span)| token.unwrap_or_else(|| chosen.last(span.slot))));
            }
            Tokens::Positions { places, offset } => {
                let positions = |span: &Span| span.first_position..span.end_position();
                let all = places.spans.iter().flat_map(positions);
                rows.extend(all.map(|position| (position + offset) as u32));
            }
        }
        // Tokens beyond the table take its first row.
        let known = table.rows() as u32;
        rows.iter_mut().filter(|row| **row >= known).for_each(|row| *row = 0);
        self.cpu.rows(table, &rows, FloatsMut::F32(output));
        if scale != 1.0 {
            output.iter_mut().for_each(|value| *value *= scale);
        }
        self.meter.lap(OTHER, Work::default());
    }

    fn norm(&self, problem: Norm<'_, CpuOps>) {
        problem.check();
        norm(&self.cpu, problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn add(&self, problem: Add<'_, CpuOps>) {
        problem.check();
        add(self.cpu.pool(), problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn mix(&self, problem: Mix<'_, CpuOps>) {
        problem.check();
        mix(self.cpu.pool(), problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn cut(&self, problem: Cut<'_, CpuOps>) {
        problem.check();
        cut(self.cpu.pool(), problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn rescale(&self, problem: Rescale<'_, CpuOps>) {
        problem.check();
        rescale(self.cpu.pool(), problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn linear(&self, problem: Linear<'_, '_, CpuOps>) {
        problem.check();
        let work = self.meter.count(|| problem.work());
        let Linear {
            rows,
            input,
            weights,
            biases,
            outputs,
        } = problem;
        assert!(weights.len() <= MOST_WEIGHTS);
        let mut targets: [&mut [f32]; MOST_WEIGHTS] = Default::default();
        for (target, output) in targets.iter_mut().zip(outputs.iter_mut()) {
            *target = output.first_mut(rows);
        }
        self.cpu.matmul(Matmul {
            weights,
            input: input.first(rows),
            m: rows,
            whole: self.whole(),
            outputs: &mut targets[..weights.len()],
            precision: self.precision,
        });
        for (bias, output) in biases.iter().zip(outputs.iter_mut()) {
            if let Some(bias) = bias {
                add_to_rows(self.cpu.pool(), output.first_mut(rows), bias.values());
            }
        }
        self.meter.lap(MATMUL, work);
    }

    fn rope_angles(&self, problem: RopeAngles<'_, CpuOps>) {
        problem.check();
        rope_angles(problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn rope(&self, problem: Rope<'_, CpuOps>) {
        problem.check();
        rope(&self.cpu, problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn append(&self, problem: Append<'_, CpuOps>) -> Result<(), OutOfMemory> {
        problem.check();
        let Append {
            places,
            rotation,
            keys,
            values,
            key_values,
        } = problem;
        if let Some(Rotation {
            queries,
            head_dim,
            angles,
            pairs,
        }) = rotation
        {
            for heads in [queries, &mut *keys] {
                self.rope(Rope {
                    rows: places.end_row(),
                    heads,
                    head_dim,
                    angles,
                    pairs,
                });
            }
        }
        key_values.append(&self.cpu, places.spans, keys.values(), values.values())?;
        self.meter.lap(OTHER, Work::default());
        Ok(())
    }

    fn attention(&self, problem: Attention<'_, CpuOps>) {
        problem.check();
        let work = self.meter.count(|| problem.work());
        attention(&self.cpu, problem, self.whole(), &mut lock(&self.workspace));
        self.meter.lap(ATTENTION, work);
    }

    fn gate(&self, problem: Gate<'_, CpuOps>) {
        problem.check();
        activate(&self.cpu, problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn convolve(&self, problem: Convolution<'_, CpuOps>) {
        problem.check();
        convolve(&self.cpu, problem);
        self.meter.lap(OTHER, Work::default());
    }

    fn recur(&self, problem: Recurrence<'_, CpuOps>) {
        problem.check();
        recur(&self.cpu, problem);
        self.meter.lap(ATTENTION, Work::default());
    }

    fn scan_channels(&self, problem: ChannelScan<'_, CpuOps>) {
        problem.check();
        scan_channels(&self.cpu, problem);
        self.meter.lap(ATTENTION, Work::default());
    }

    fn experts(&self, problem: Experts<'_, CpuOps>) {
        problem.check();
        let work = self.meter.count(|| problem.work());
        self.run_experts(problem);
        self.meter.lap(MATMUL, work);
    }

    fn head_linear(&self, problem: HeadLinear<'_, CpuOps>) {
        problem.check();
        let work = self.meter.count(|| problem.work());
        self.cpu.head_linear(problem, self.whole(), self.precision);
        self.meter.lap(MATMUL, work);
    }

    fn copy_rows(&self, problem: CopyRows<'_, CpuOps>) {
        problem.check();
        let CopyRows {
            source,
            from,
            target,
            to,
            rows,
        } = problem;
        match source {
            Some(source) => target
                .rows_of_mut(to..to + rows)
                .copy_from_slice(source.rows_of(from..from + rows)),
            None => target.copy_within(from..from + rows, to),
        }
    }

    fn copy_heads(&self, problem: CopyHeads<'_, CpuOps>) {
        problem.check();
        copy_heads(self.cpu.pool(), problem);
        self.meter.lap(OTHER, Work::default());
    }
}
