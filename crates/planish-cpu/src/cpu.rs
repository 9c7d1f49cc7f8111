//! The front door: matrix products and row lookups, spread over the pool.

mod each;
mod linear;
mod narrow;
mod parts;
mod prepare;

use planish_ops::Tap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use planish_format::{Isa, IsaError, PackedMatrix, Packing};

use crate::attention::RoundedTask;
use crate::floats::{self, Floats, FloatsMut};
use crate::input::{InputBuffers, Shape};
use crate::interleaved::{self, DeinterleaveWords};
use crate::matrix::CpuMatrix;
use crate::pool::{Crew, Pool};
use crate::scratch::{Buffer, WorkerScratch};
use crate::share::SharedSlice;
use crate::table::{
    self, Bf16Kernels, Bf16Product, ExactProduct, InstructionSet, Int8Product, InterleavedKernels, InterleavedProduct,
    Output, PlainProduct,
};
use crate::vector::VectorFunctions;
use smallvec::SmallVec;

pub use each::MatmulEach;
pub use linear::{Backward, Linear};

use parts::{CHUNK_ROWS, MAX_WEIGHTS, MIN_CHUNK_BYTES, Parts, alike, packing};

/// Rows of interleaved weights that are turned back at once, where more rows of x use them.
const STRIP_ROWS: usize = 256;
/// Rows of x up to which each gives the same bits as alone: rows of so many sequences.
pub(crate) const BATCH_ROWS: usize = 16;

/// How packed weights are multiplied. Plain weights are always multiplied in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// x stays f32, products and sums are f32.
    Exact,
    /// x is rounded as the instruction set multiplies fastest: to 8 or 16 bits with a scale for each block of values, whose sums
    /// are exact integers, or, many rows at once, to bf16 together with the weights, with sums in f32. See [`Cpu::rounding`].
    Rounded,
}

/// What becomes of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// 8 bits, with a scale for every so many values.
    Int8 {
        /// Values that share a scale.
        block: usize,
    },
    /// 16 bits, with a scale for every so many values.
    Int16 {
        /// Values that share a scale.
        block: usize,
    },
    /// bf16, and the weights too.
    Bf16,
}

/// `outputs[i] = input * weights[i]^T` for every i.
pub struct Matmul<'a, 'b> {
    /// Matrices with the same number of columns, of (rows_i, cols) each.
    pub weights: &'a [&'a CpuMatrix],
    /// x, row-major. // (m, cols)
    pub input: &'a [f32],
    /// Rows of x.
    pub m: usize,
    /// Rows of a whole of which these may be a piece: x is rounded, and products are summed, as for the larger of both.
    pub whole: usize,
    /// Row-major, overwritten. // (m, rows_i) each
    pub outputs: &'a mut [&'b mut [f32]],
    /// How packed weights are multiplied.
    pub precision: Precision,
}

/// The threads and the kernels of this machine.
pub struct Cpu {
    pool: Pool,
    set: &'static InstructionSet,
    /// Who listens to products.
    tap: Option<Arc<dyn Tap>>,
    /// Scratch of calls that are not running.
    scratch: Mutex<Vec<Scratch>>,
}

/// What a call works with.
pub(crate) struct Scratch {
    input: InputBuffers,
    /// Rows gathered from heads, and their products.
    pub heads: [Buffer; 2],
    /// A row and its copy, and their products.
    copies: [Buffer; 2],
    /// One for each slot of the pool.
    workers: Vec<Mutex<WorkerScratch>>,
}

impl Cpu {
    /// The instruction set that this process runs ([`Isa::chosen`]) on `threads` threads, the caller's included; 0 means one
    /// per physical core.
    ///
    /// # Errors
    /// If `PLANISH_CPU` names no instruction set of this machine.
    pub fn new(threads: usize) -> Result<Cpu, IsaError> {
        Ok(Cpu::of(Pool::new(threads), Isa::chosen()?))
    }

    /// As [`Cpu::new`] on threads of another library.
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn with_crew(threads: usize, crew: Box<dyn Crew>) -> Result<Cpu, IsaError> {
        Ok(Cpu::of(Pool::of_crew(threads, crew), Isa::chosen()?))
    }

    /// As [`Cpu::new`] with the instruction set given by name, or the best.
    ///
    /// # Errors
    /// If this machine has none of that name.
    pub fn with_instructions(threads: usize, name: Option<&str>) -> Result<Cpu, IsaError> {
        Ok(Cpu::of(Pool::new(threads), name.map_or(Ok(Isa::best()), Isa::named)?))
    }

    /// Only callers that know the machine to have the instruction set may come here.
    fn of(pool: Pool, isa: Isa) -> Cpu {
        Cpu {
            pool,
            set: table::row(isa),
            tap: None,
            scratch: Mutex::new(Vec::new()),
        }
    }

    /// Tells `tap` of every product from now on.
    pub fn with_tap(self, tap: Arc<dyn Tap>) -> Cpu {
        Cpu { tap: Some(tap), ..self }
    }

    /// Who listens to products.
    pub(crate) fn tap(&self) -> Option<&dyn Tap> {
        self.tap.as_deref()
    }

    /// The threads, for other work between products.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The kernels of this machine.
    pub(crate) fn set(&self) -> &'static InstructionSet {
        self.set
    }

    /// The vector functions of this machine.
    pub(crate) fn vector(&self) -> &'static VectorFunctions {
        self.set.vector
    }

    /// See [`InstructionSet::attention`].
    pub(crate) fn rounded_attention(&self) -> Option<RoundedTask> {
        (self.set.attention)()
    }

    /// Name of the instruction set in use.
    pub fn instructions(&self) -> &'static str {
        self.set.isa.name()
    }

    /// Multiplies in registers for so many rounds and returns the operations done. See [`crate::operation_rate`].
    pub(crate) fn dot_limit(&self, rounds: usize) -> u64 {
        (self.set.dot_limit)(rounds)
    }

    /// How [`Precision::Rounded`] rounds `m` rows of x for weights of a packing.
    pub fn rounding(&self, m: usize, packing: Packing) -> Rounding {
        // A few rows are rounded as one is.
        let m = if m <= BATCH_ROWS && !self.set.rows_alike { 1 } else { m };
        match self.bf16_kernels(m, packing) {
            Some(_) => Rounding::Bf16,
            None => Rounding::Int8 {
                block: (self.set.block)(packing, m),
            },
        }
    }

    /// Whether rounded products are faster, and nearer, once a matrix is interleaved by [`crate::Interleaved::new`].
    pub fn interleaves(&self, matrix: &PackedMatrix) -> bool {
        self.set
            .interleaved
            .as_ref()
            .is_some_and(|kernels| (kernels.fits)(matrix) && interleaved::fits(matrix))
    }

    fn bf16_kernels(&self, m: usize, packing: Packing) -> Option<&'static Bf16Kernels> {
        self.set.bf16.as_ref().filter(|kernels| (kernels.fits)(packing, m))
    }

    /// As [`Cpu::rounding`], for weights that are interleaved.
    pub fn interleaved_rounding(&self, m: usize, packing: Packing) -> Rounding {
        match &self.set.interleaved {
            Some(kernels) if m <= kernels.most_rows => Rounding::Int16 {
                block: interleaved::block(packing),
            },
            _ => self.rounding(m, packing),
        }
    }

    /// Whether so many rows of x are rounded alike, whatever the weights.
    pub(crate) fn rounds_alike(&self, left: usize, right: usize) -> bool {
        let packings = [2, 3, 4, 5, 6, 8].map(|bits| Packing::new(bits, 64));
        packings.into_iter().flatten().all(|packing| {
            self.rounding(left, packing) == self.rounding(right, packing)
                && self.interleaved_rounding(left, packing) == self.interleaved_rounding(right, packing)
        })
    }

    /// Multiplies x with every weight. Neighbouring weights of one packing and arrangement share the prepared input and the dispatch.
    ///
    /// Panics when shapes and lengths contradict each other.
    pub fn matmul(&self, problem: Matmul<'_, '_>) {
        let Matmul {
            weights,
            input,
            m,
            whole,
            outputs,
            precision,
        } = problem;
        assert_eq!(weights.len(), outputs.len(), "one output for each weight");
        for weight in weights {
            weight.check();
            assert_eq!(input.len(), m * weight.cols(), "values of {m} rows of x");
        }
        if input.is_empty() {
            // No rows, or rows of nothing, whose products are sums of nothing.
            outputs.iter_mut().for_each(|output| output.fill(0.0));
            return;
        }
        if let Some(tap) = self.tap() {
            weights
                .iter()
                .for_each(|weight| tap.inputs(weight.address(), input, weight.cols()));
        }
        let mut scratch = self.take_scratch();
        let mut start = 0;
        for alike in weights.chunk_by(|left, right| alike(left, right)) {
            for weights in alike.chunks(MAX_WEIGHTS) {
                let outputs = &mut outputs[start..start + weights.len()];
                start += weights.len();
                let whole = whole.max(m);
                if m == 1 && whole > BATCH_ROWS && !self.set.rows_alike {
                    self.multiply_twice(weights, outputs, (input, whole, precision), &mut scratch);
                    continue;
                }
                let input = Input {
                    values: Floats::F32(input),
                    m,
                    whole,
                    precision,
                };
                self.multiply(&Parts::new(weights, outputs, m), &input, &mut scratch);
            }
        }
        self.return_scratch(scratch);
    }

    /// One row of many: the kernels for one sum otherwise, so it comes to those for many with a copy of itself.
    fn multiply_twice(
        &self,
        weights: &[&CpuMatrix],
        outputs: &mut [&mut [f32]],
        (x, whole, precision): (&[f32], usize, Precision),
        scratch: &mut Scratch,
    ) {
        let [mut values, mut products] = std::mem::take(&mut scratch.copies);
        let rows = weights.iter().map(|weight| weight.rows());
        let twice = values.take::<f32>(2 * x.len());
        twice.chunks_exact_mut(x.len()).for_each(|row| row.copy_from_slice(x));
        let mut rest = products.take::<f32>(2 * rows.sum::<usize>());
        let mut pairs = SmallVec::<[&mut [f32]; MAX_WEIGHTS]>::new();
        for weight in weights {
            let (pair, after) = rest.split_at_mut(2 * weight.rows());
            pairs.push(pair);
            rest = after;
        }
        let parts = Parts::new(weights, &mut pairs, 2);
        let input = Input {
            values: Floats::F32(twice),
            m: 2,
            whole,
            precision,
        };
        self.multiply(&parts, &input, scratch);
        for (output, pair) in outputs.iter_mut().zip(&pairs) {
            output.copy_from_slice(&pair[..output.len()]);
        }
        drop(pairs);
        scratch.copies = [values, products];
    }

    /// Rows of a matrix: the lookup of an embedding.
    ///
    /// `out` is (ids, cols). Panics when an id is not below the matrix's rows.
    pub fn rows(&self, matrix: &CpuMatrix, ids: &[u32], out: FloatsMut<'_>) {
        matrix.check();
        let cols = matrix.cols();
        assert_eq!(out.len(), ids.len() * cols, "values of {} rows of {cols}", ids.len());
        let known = |index: usize| {
            let (row, rows) = (ids[index] as usize, matrix.rows());
            assert!(row < rows, "row {row} of a matrix of {rows} rows");
            row
        };
        if cols == 0 {
            return (0..ids.len()).for_each(|index| _ = known(index));
        }
        match out {
            FloatsMut::F32(values) => {
                let into = SharedSlice::new(values);
                self.pool.chunks(ids.len(), |_, index| {
                    // SAFETY: every index is given to one call.
                    let into = unsafe { into.part(index, cols) };
                    matrix.row(known(index), into);
                });
            }
            FloatsMut::Bytes(float_type, bytes) => {
                let (into, row_bytes) = (SharedSlice::new(bytes), cols * float_type.size_bytes());
                self.pool.chunks(ids.len(), |_, index| {
                    floats::with_room(cols, |wide| {
                        matrix.row(known(index), wide);
                        // SAFETY: as above.
                        let into = unsafe { into.part(index, row_bytes) };
                        float_type.encode(wide, into);
                    });
                });
            }
        }
    }

    fn multiply(&self, parts: &Parts<'_>, input: &Input<'_>, scratch: &mut Scratch) {
        let few = input.m >= 2 && input.whole <= BATCH_ROWS;
        let interleaved =
            matches!(input.precision, Precision::Rounded) && parts.interleaved_kernels(self.set, input.whole).is_some();
        if few && !self.set.rows_alike && !interleaved {
            return self.multiply_each_row(parts, input, scratch);
        }
        let Scratch {
            input: buffers,
            workers,
            ..
        } = scratch;
        match (parts.packing(), input.precision) {
            (None, _) => self.each_chunk(parts, input.m, workers, |weight, output, rows, scratch| {
                if let (CpuMatrix::Plain(matrix), Floats::F32(values)) = (weight, input.values) {
                    let product = PlainProduct {
                        matrix,
                        input: values,
                        m: input.m,
                        output,
                    };
                    (self.set.plain)(&product, rows, scratch);
                }
            }),
            (Some(packing), Precision::Rounded) => {
                if let Some(kernels) = parts.interleaved_kernels(self.set, input.whole) {
                    return self.multiply_interleaved(kernels, parts, input, scratch);
                }
                if let Some(kernels) = self.bf16_kernels(input.whole, packing) {
                    return self.multiply_bf16(kernels, parts, input, scratch);
                }
                let block = (self.set.block)(packing, input.whole);
                let prepared = self.round_input(input.shape(packing, block), input.values, buffers);
                self.each_packed_chunk(parts, input.m, workers, |matrix, output, rows, scratch| {
                    (self.set.int8)(
                        &Int8Product {
                            matrix,
                            input: prepared,
                            output,
                        },
                        rows,
                        scratch,
                    );
                });
            }
            (Some(packing), Precision::Exact) => {
                let prepared = self.arrange_input(input.shape(packing, packing.group()), input.values, buffers);
                self.each_packed_chunk(parts, input.m, workers, |matrix, output, rows, scratch| {
                    (self.set.exact)(
                        &ExactProduct {
                            matrix,
                            input: prepared,
                            output,
                        },
                        rows,
                        scratch,
                    );
                });
            }
        }
    }

    /// Each row of x as if it were alone, over weights that come from memory once.
    fn multiply_each_row(&self, parts: &Parts<'_>, input: &Input<'_>, scratch: &mut Scratch) {
        let Scratch {
            input: buffers,
            workers,
            ..
        } = scratch;
        let (m, cols) = (input.m, input.values.len() / input.m);
        let one = |packing: Packing, block| Shape {
            m: 1,
            ..input.shape(packing, block)
        };
        match (parts.packing(), input.precision) {
            (None, _) => self.each_chunk(parts, m, workers, |weight, output, rows, scratch| {
                let (CpuMatrix::Plain(matrix), Floats::F32(values)) = (weight, input.values) else {
                    return;
                };
                for (row, values) in values.chunks_exact(cols).enumerate() {
                    let product = PlainProduct {
                        matrix,
                        input: values,
                        m: 1,
                        output: output.of_row(row),
                    };
                    (self.set.plain)(&product, rows.clone(), scratch);
                }
            }),
            (Some(packing), Precision::Rounded) => {
                let prepared = self.round_input(one(packing, (self.set.block)(packing, 1)), input.values, buffers);
                self.each_packed_chunk(parts, m, workers, |matrix, output, rows, scratch| {
                    for row in 0..m {
                        let (input, output) = (prepared.of_row(row), output.of_row(row));
                        (self.set.int8)(&Int8Product { matrix, input, output }, rows.clone(), scratch);
                    }
                });
            }
            (Some(packing), Precision::Exact) => {
                let prepared = self.arrange_input(one(packing, packing.group()), input.values, buffers);
                self.each_packed_chunk(parts, m, workers, |matrix, output, rows, scratch| {
                    for row in 0..m {
                        let (input, output) = (prepared.of_row(row), output.of_row(row));
                        (self.set.exact)(&ExactProduct { matrix, input, output }, rows.clone(), scratch);
                    }
                });
            }
        }
    }

    fn multiply_bf16(&self, kernels: &Bf16Kernels, parts: &Parts<'_>, input: &Input<'_>, scratch: &mut Scratch) {
        let prepared = self.round_to_bf16(kernels, input, &mut scratch.input);
        self.each_packed_chunk(parts, input.m, &scratch.workers, |matrix, output, rows, scratch| {
            let input = prepared;
            (kernels.product)(&Bf16Product { matrix, input, output }, rows, scratch);
        });
    }

    /// Rows of x rounded to 16 bits.
    fn multiply_interleaved(
        &self,
        kernels: &InterleavedKernels,
        parts: &Parts<'_>,
        input: &Input<'_>,
        scratch: &mut Scratch,
    ) {
        let Some(packing) = parts.packing() else { return };
        let (shape, m) = (input.shape(packing, interleaved::block(packing)), input.m);
        let input = self.round_to_int16(kernels, shape, input.values, &mut scratch.input);
        self.each_chunk(parts, m, &scratch.workers, |weight, output, rows, scratch| {
            if let CpuMatrix::Interleaved(matrix) = weight {
                (kernels.product)(&InterleavedProduct { matrix, input, output }, rows, scratch);
            }
        });
    }

    /// Calls `job` with rows of a packed weight in the format's order.
    fn in_order(
        &self,
        weight: &CpuMatrix,
        output: Output,
        rows: Range<usize>,
        mut job: impl FnMut(&PackedMatrix, Output, Range<usize>),
    ) {
        match weight {
            CpuMatrix::Plain(_) => {}
            CpuMatrix::Packed(matrix) => job(matrix, output, rows),
            CpuMatrix::Interleaved(matrix) => {
                let deinterleave_words = self
                    .set
                    .interleaved
                    .as_ref()
                    .map_or(interleaved::deinterleave_words as DeinterleaveWords, |kernels| {
                        kernels.deinterleave_words
                    });
                for start in rows.clone().step_by(STRIP_ROWS) {
                    let strip = start..(start + STRIP_ROWS).min(rows.end);
                    let count = strip.len();
                    job(&matrix.strip(strip, deinterleave_words), output.after(start), 0..count);
                }
            }
        }
    }

    fn each_packed_chunk(
        &self,
        parts: &Parts<'_>,
        m: usize,
        workers: &[Mutex<WorkerScratch>],
        job: impl Fn(&PackedMatrix, Output, Range<usize>, &mut WorkerScratch) + Sync,
    ) {
        self.each_chunk(parts, m, workers, |weight, output, rows, scratch| {
            self.in_order(weight, output, rows, |matrix, output, rows| {
                job(matrix, output, rows, scratch)
            });
        });
    }

    /// Calls `job` with every chunk of rows of every weight, spread over the pool.
    fn each_chunk(
        &self,
        parts: &Parts<'_>,
        m: usize,
        workers: &[Mutex<WorkerScratch>],
        job: impl Fn(&CpuMatrix, Output, Range<usize>, &mut WorkerScratch) + Sync,
    ) {
        let chunk_rows = parts.chunk_rows(self.pool.threads(), m);
        let chunks = parts
            .weights
            .iter()
            .map(|weight| weight.rows().div_ceil(chunk_rows))
            .sum();
        self.pool.chunks(chunks, |slot, chunk| {
            let (part, rows) = parts.locate(chunk, chunk_rows);
            let mut scratch = workers[slot].lock().unwrap_or_else(PoisonError::into_inner);
            let weight = parts.weights[part];
            match &parts.narrow {
                // SAFETY: rows are given to one call.
                Some(narrow) => unsafe {
                    narrow.fill(rows.clone(), &mut scratch, |output, scratch| {
                        job(weight, output, rows, scratch)
                    });
                },
                None => job(weight, parts.outputs[part], rows, &mut scratch),
            }
        });
    }

    pub(crate) fn take_scratch(&self) -> Scratch {
        let spare = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Scratch {
            input: InputBuffers::default(),
            heads: Default::default(),
            copies: Default::default(),
            workers: (0..self.pool.threads()).map(|_| Mutex::default()).collect(),
        })
    }

    pub(crate) fn return_scratch(&self, scratch: Scratch) {
        self.scratch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(scratch);
    }
}

/// Names of the instruction sets that this machine has, best first.
pub fn instruction_sets() -> Vec<&'static str> {
    Isa::supported().map(Isa::name).collect()
}

/// The rows of x as the caller gave them.
struct Input<'a> {
    /// f32 where weights are plain.
    values: Floats<'a>,
    m: usize,
    /// Rows that they are rounded as.
    whole: usize,
    precision: Precision,
}

impl Input<'_> {
    fn shape(&self, packing: Packing, block: usize) -> Shape {
        Shape {
            m: self.m,
            cols: self.values.len() / self.m,
            packing,
            block,
        }
    }
}
