//! Work on parts of heads: a matrix for each head, and copies between layouts. A tensor of heads is (rows, heads * stride).

use planish_ops::HeadPart;
use smallvec::SmallVec;

use crate::share::{SharedSlice, share_rows};
use crate::{Cpu, CpuMatrix, Matmul, MatmulEach, Pool, Precision};

/// Heads for which no memory is taken: as many as most models have.
const MOST_HEADS: usize = 128;

/// `output[head] = weights[head] x input[head]`.
pub struct HeadLinear<'a> {
    /// Of equal shape. // heads times (features, cols)
    pub weights: &'a [CpuMatrix],
    /// // (rows, heads * from.stride)
    pub input: &'a [f32],
    /// Where the columns that are read lie.
    pub from: HeadPart,
    /// // (rows, heads * to.stride)
    pub output: &'a mut [f32],
    /// Where the features go; other columns stay.
    pub to: HeadPart,
    /// How packed weights are multiplied.
    pub precision: Precision,
}

/// `output[head] = input[head]`.
pub struct CopyHeads<'a> {
    /// Heads.
    pub heads: usize,
    /// Columns of a part.
    pub width: usize,
    /// // (rows, heads * from.stride)
    pub input: &'a [f32],
    /// Where the columns that are read lie.
    pub from: HeadPart,
    /// // (rows, heads * to.stride)
    pub output: &'a mut [f32],
    /// Where they go; other columns stay.
    pub to: HeadPart,
}

impl Cpu {
    /// Computes every row and head.
    ///
    /// Panics when shapes and lengths contradict each other.
    pub fn head_linear(&self, mut problem: HeadLinear<'_>) {
        let output = std::mem::take(&mut problem.output);
        let HeadLinear {
            weights,
            input,
            from,
            to,
            precision,
            ..
        } = problem;
        let heads = weights.len();
        let rows = input.len() / (heads * from.stride);
        assert!(input.len() == rows * heads * from.stride && output.len() == rows * heads * to.stride);
        if rows == 1 {
            return self.heads_of_one_row(&problem, output);
        }
        let mut scratch = self.take_scratch();
        let [gathered, products] = &mut scratch.heads;
        for (head, weight) in weights.iter().enumerate() {
            let (cols, features) = (weight.cols(), weight.rows());
            let at = |row: usize, part: HeadPart| (row * heads + head) * part.stride + part.start;
            let gathered = gathered.take::<f32>(rows * cols);
            for (row, part) in gathered.chunks_exact_mut(cols).enumerate() {
                part.copy_from_slice(&input[at(row, from)..][..cols]);
            }
            let products = products.take::<f32>(rows * features);
            self.matmul(Matmul {
                weights: &[weight],
                input: gathered,
                m: rows,
                outputs: &mut [&mut *products],
                precision,
            });
            for (row, product) in products.chunks_exact(features).enumerate() {
                output[at(row, to)..][..features].copy_from_slice(product);
            }
        }
        self.return_scratch(scratch);
    }

    /// All heads in one dispatch.
    fn heads_of_one_row(&self, problem: &HeadLinear<'_>, output: &mut [f32]) {
        let HeadLinear { weights, from, to, .. } = *problem;
        let (cols, features) = (weights[0].cols(), weights[0].rows());
        let mut scratch = self.take_scratch();
        let [gathered, products] = &mut scratch.heads;
        let gathered = gathered.take::<f32>(weights.len() * cols);
        let parts = gathered
            .chunks_exact_mut(cols)
            .zip(problem.input.chunks_exact(from.stride));
        parts.for_each(|(head, part)| head.copy_from_slice(&part[from.start..][..cols]));
        let products = products.take::<f32>(weights.len() * features);
        self.matmul_each(MatmulEach {
            weights: &weights.iter().collect::<SmallVec<[_; MOST_HEADS]>>(),
            inputs: gathered,
            outputs: products,
            precision: problem.precision,
        });
        let targets = output.chunks_exact_mut(to.stride).zip(products.chunks_exact(features));
        targets.for_each(|(target, product)| target[to.start..][..features].copy_from_slice(product));
        self.return_scratch(scratch);
    }
}

/// Copies every row.
///
/// Panics when shapes and lengths contradict each other.
pub fn copy_heads(pool: &Pool, problem: CopyHeads<'_>) {
    let CopyHeads {
        heads,
        width,
        input,
        from,
        output,
        to,
    } = problem;
    let rows = input.len() / (heads * from.stride);
    assert!(input.len() == rows * heads * from.stride && output.len() == rows * heads * to.stride);
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
