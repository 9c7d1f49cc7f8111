//! Several matrices of equal shape, each times a row of its own, in one dispatch: the experts of one token, the heads of one
//! row.

use std::ops::Range;
use std::sync::PoisonError;

use super::{CHUNK_ROWS, MIN_CHUNK_BYTES, Precision, Scratch, alike, packing};
use crate::Cpu;
use crate::floats::Floats;
use crate::input::Shape;
use crate::interleaved;
use crate::matrix::CpuMatrix;
use crate::scratch::WorkerScratch;
use crate::table::{ExactProduct, Int8Product, InterleavedProduct, Output, PlainProduct};

/// `outputs[i] = weights[i] x inputs[i]`.
pub struct MatmulEach<'a> {
    /// Of equal shape, (rows, cols) each.
    pub weights: &'a [&'a CpuMatrix],
    /// // (weights, cols)
    pub inputs: &'a [f32],
    /// // (weights, rows)
    pub outputs: &'a mut [f32],
    /// How packed weights are multiplied.
    pub precision: Precision,
}

/// Weights of one packing, with their rows of x and where the products go.
struct Run<'a> {
    weights: &'a [&'a CpuMatrix],
    inputs: &'a [f32],     // (weights, cols)
    outputs: Output,       // (weights, rows)
    shape: (usize, usize), // rows, cols
}

impl Cpu {
    /// Multiplies every weight with its row.
    ///
    /// Panics when shapes and lengths contradict each other.
    pub fn matmul_each(&self, problem: MatmulEach<'_>) {
        let Some(first) = problem.weights.first() else { return };
        let shape = (first.rows(), first.cols());
        let count = problem.weights.len();
        for weight in problem.weights {
            weight.check();
            assert_eq!((weight.rows(), weight.cols()), shape, "weights of equal shape");
        }
        assert!(problem.inputs.len() == count * shape.1 && problem.outputs.len() == count * shape.0);
        if problem.inputs.is_empty() || problem.outputs.is_empty() {
            problem.outputs.fill(0.0);
            return;
        }
        if let Some(tap) = self.tap() {
            let inputs = problem.inputs.chunks_exact(shape.1);
            let pairs = problem.weights.iter().zip(inputs);
            pairs.for_each(|(weight, row)| tap.inputs(weight.address(), row, shape.1));
        }
        let mut scratch = self.take_scratch();
        let mut start = 0;
        for weights in problem.weights.chunk_by(|left, right| alike(left, right)) {
            let end = start + weights.len();
            let outputs = &mut problem.outputs[start * shape.0..end * shape.0];
            let run = Run {
                weights,
                inputs: &problem.inputs[start * shape.1..end * shape.1],
                outputs: Output::new(outputs, weights.len(), shape.0),
                shape,
            };
            self.multiply_run(&run, problem.precision, &mut scratch);
            start = end;
        }
        self.return_scratch(scratch);
    }

    fn multiply_run(&self, run: &Run<'_>, precision: Precision, scratch: &mut Scratch) {
        let Scratch {
            input: buffers,
            workers,
            ..
        } = scratch;
        let cols = run.shape.1;
        let one_row = |packing, block| Shape {
            m: 1,
            cols,
            packing,
            block,
        };
        let each = |job: &(dyn Fn(usize, Range<usize>, &mut WorkerScratch) + Sync)| {
            self.pool.chunks(run.chunks(self.pool.threads()), |slot, chunk| {
                let (part, rows) = run.locate(chunk, self.pool.threads());
                let mut scratch = workers[slot].lock().unwrap_or_else(PoisonError::into_inner);
                job(part, rows, &mut scratch);
            });
        };
        match (packing(run.weights[0]), precision) {
            (None, _) => each(&|part, rows, scratch| {
                if let CpuMatrix::Plain(matrix) = run.weights[part] {
                    let input = &run.inputs[part * cols..][..cols];
                    let output = run.outputs.of_row(part);
                    (self.set.plain)(
                        &PlainProduct {
                            matrix,
                            input,
                            m: 1,
                            output,
                        },
                        rows,
                        scratch,
                    );
                }
            }),
            (Some(packing), Precision::Rounded) => {
                if let (Some(kernels), CpuMatrix::Interleaved(_)) = (&self.set.interleaved, run.weights[0]) {
                    let shape = one_row(packing, interleaved::block(packing));
                    let prepared = self.round_to_int16(kernels, shape, Floats::F32(run.inputs), buffers);
                    return each(&|part, rows, scratch| {
                        if let CpuMatrix::Interleaved(matrix) = run.weights[part] {
                            let (input, output) = (prepared.of_tile(part), run.outputs.of_row(part));
                            (kernels.product)(&InterleavedProduct { matrix, input, output }, rows, scratch);
                        }
                    });
                }
                let block = (self.set.block)(packing, 1);
                let prepared = self.round_input(one_row(packing, block), Floats::F32(run.inputs), buffers);
                each(&|part, rows, scratch| {
                    let input = prepared.of_row(part);
                    self.in_order(
                        run.weights[part],
                        run.outputs.of_row(part),
                        rows,
                        |matrix, output, rows| {
                            (self.set.int8)(&Int8Product { matrix, input, output }, rows, scratch);
                        },
                    );
                });
            }
            (Some(packing), Precision::Exact) => {
                let prepared = self.arrange_input(one_row(packing, packing.group()), Floats::F32(run.inputs), buffers);
                each(&|part, rows, scratch| {
                    let input = prepared.of_row(part);
                    self.in_order(
                        run.weights[part],
                        run.outputs.of_row(part),
                        rows,
                        |matrix, output, rows| {
                            (self.set.exact)(&ExactProduct { matrix, input, output }, rows, scratch);
                        },
                    );
                });
            }
        }
    }
}

impl Run<'_> {
    /// Rows of a chunk: as for one matrix of all rows, but no more than a matrix has.
    fn chunk_rows(&self, threads: usize) -> usize {
        let rows = self.shape.0;
        let row_bytes = (self.weights[0].bytes() / rows.max(1)).max(1);
        let shared = (rows * self.weights.len()).div_ceil(threads * 4);
        let wanted = shared.max(MIN_CHUNK_BYTES / row_bytes).min(rows);
        wanted.next_multiple_of(CHUNK_ROWS)
    }

    fn chunks(&self, threads: usize) -> usize {
        self.weights.len() * self.shape.0.div_ceil(self.chunk_rows(threads))
    }

    /// Weight and rows of a chunk.
    fn locate(&self, chunk: usize, threads: usize) -> (usize, Range<usize>) {
        let rows = self.chunk_rows(threads);
        let chunks = self.shape.0.div_ceil(rows);
        let start = chunk % chunks * rows;
        (chunk / chunks, start..(start + rows).min(self.shape.0))
    }
}
