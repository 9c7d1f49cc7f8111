//! Work on parts of heads: a matrix for each head, and copies between layouts. A tensor of heads is (rows, heads * stride).

use planish_ops::{CopyHeads, HeadLinear, HeadPart};
use smallvec::SmallVec;

use crate::cpu::BATCH_ROWS;
use crate::share::{SharedSlice, share_rows};
use crate::{Cpu, CpuMatrix, CpuOps, Matmul, MatmulEach, Pool, Precision};

/// Heads for which no memory is taken: as many as most models have.
const MOST_HEADS: usize = 128;

impl Cpu {
    /// Computes every row and head.
    pub(crate) fn head_linear(&self, problem: HeadLinear<'_, CpuOps>, whole: usize, precision: Precision) {
        let HeadLinear {
            rows,
            weights,
            input,
            from,
            output,
            to,
        } = problem;
        let (weights, input, output) = (weights.matrices(), input.first(rows), output.first_mut(rows));
        let heads = weights.len();
        if rows == 1 && whole <= BATCH_ROWS {
            return self.heads_of_one_row(weights, (input, from), (output, to), precision);
        }
        let mut scratch = self.take_scratch();
        let [gathered, products] = &mut scratch.heads;
        for (head, weight) in weights.iter().enumerate() {
            let (cols, features) = (weight.cols(), weight.rows());
            let at = |row: usize, part: HeadPart| (row * heads + head) * part.stride + part.start;
            let gathered = gathered.take::<f32>(rows * cols);
            for (row, part) in gathered.chunks_exact_mut(cols.max(1)).enumerate() {
                part.copy_from_slice(&input[at(row, from)..][..cols]);
            }
            let products = products.take::<f32>(rows * features);
            self.matmul(Matmul {
                weights: &[weight],
                input: gathered,
                m: rows,
                whole,
                outputs: &mut [&mut *products],
                precision,
            });
            for (row, product) in products.chunks_exact(features.max(1)).enumerate() {
                output[at(row, to)..][..features].copy_from_slice(product);
            }
        }
        self.return_scratch(scratch);
    }

    /// All heads in one dispatch.
    fn heads_of_one_row(
        &self,
        weights: &[CpuMatrix],
        (input, from): (&[f32], HeadPart),
        (output, to): (&mut [f32], HeadPart),
        precision: Precision,
    ) {
        let (cols, features) = (weights[0].cols(), weights[0].rows());
        let mut scratch = self.take_scratch();
        let [gathered, products] = &mut scratch.heads;
        let gathered = gathered.take::<f32>(weights.len() * cols);
        let parts = gathered
            .chunks_exact_mut(cols.max(1))
            .zip(input.chunks_exact(from.stride));
        parts.for_each(|(head, part)| head.copy_from_slice(&part[from.start..][..cols]));
        let products = products.take::<f32>(weights.len() * features);
        self.matmul_each(MatmulEach {
            weights: &weights.iter().collect::<SmallVec<[_; MOST_HEADS]>>(),
            inputs: gathered,
            outputs: products,
            precision,
        });
        let targets = output
            .chunks_exact_mut(to.stride)
            .zip(products.chunks_exact(features.max(1)));
        targets.for_each(|(target, product)| target[to.start..][..features].copy_from_slice(product));
        self.return_scratch(scratch);
    }
}

/// Copies every row.
pub(crate) fn copy_heads(pool: &Pool, problem: CopyHeads<'_, CpuOps>) {
    let CopyHeads {
        rows,
        heads,
        width,
        input,
        from,
        output,
        to,
    } = problem;
    let (input, output) = (input.first(rows), output.first_mut(rows));
    let output = SharedSlice::new(output);
    share_rows(pool, rows * heads, width, |share| {
        for head in share {
            let start = head * to.stride + to.start;
            // SAFETY: every head of a row belongs to one share.
            let target = unsafe { output.range(start..start + width) };
            target.copy_from_slice(&input[head * from.stride + from.start..][..width]);
        }
    });
}
