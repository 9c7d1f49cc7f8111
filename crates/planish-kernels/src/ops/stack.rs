//! Stacks of matrices on the device, and what heads do with them.

use planish_gpu::{Error, Queue};

use smallvec::SmallVec;

use super::tensor::Stored;
use super::{GpuOps, MOST_BUFFERS, lock};
use crate::launch::{
    self, StackBuffer, StackMatmul, StackProduct, StackRouting, StackVariant, TransposeHeads, WeightKind,
};
use planish_ops::{CopyHeads, HeadLinear, Resident, Shape, StackShape};

/// Up to so many rows every head's matrix is read for each row, beyond for a tile of them.
const MOST_MATVEC_ROWS: usize = 8;

/// Matrices (rows, cols) of one kind, one after another.
pub struct GpuStack<Q: Queue> {
    count: usize,
    rows: usize,
    cols: usize,
    bytes: usize,
    /// Stored as (count, cols, rows).
    transposed: bool,
    pub(super) stored: Stored<Q>, // (count, rows, cols)
}

impl<Q: Queue> GpuStack<Q> {
    pub(super) fn of((count, rows, cols): (usize, usize, usize), bytes: usize, stored: Stored<Q>) -> GpuStack<Q> {
        GpuStack {
            count,
            rows,
            cols,
            bytes,
            transposed: false,
            stored,
        }
    }

    /// Of matrices that are stored as (cols, rows).
    pub(super) fn transposed(self) -> GpuStack<Q> {
        GpuStack {
            transposed: true,
            ..self
        }
    }
}

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_head_linear(&self, problem: &HeadLinear<'_, GpuOps<Q>>) -> Result<(), Error> {
        let HeadLinear {
            rows,
            weights,
            input,
            from,
            output,
            to,
        } = problem;
        let (stored, value) = (weights.stored.buffers(), input.float_type);
        let few = launch::HeadMatvec {
            weight: weights.stored.kind,
            value,
            rows: weights.rows as u32,
            cols: weights.cols as u32,
            heads: weights.count as u32,
            transposed: weights.transposed,
            inputs: *rows as u32,
            from: *from,
            to: *to,
        };
        if *rows <= MOST_MATVEC_ROWS {
            let [codes, scales, biases] = stored;
            self.run(&few.launch(), &[codes, scales, biases, input.all(), output.all()]);
            return Ok(());
        }
        let product = |weight: WeightKind, transposed: bool| StackProduct {
            first: StackMatmul {
                weight,
                value,
                rows: few.rows,
                cols: few.cols,
                inputs: few.inputs,
                transposed,
                added: false,
                routing: StackRouting::Heads {
                    heads: few.heads,
                    from: *from,
                    to: *to,
                },
            },
            paired: None,
        };
        let (input, output) = (input.all(), output.all());
        // A better row of the table may take upright matrices only: these are transposed for each pass, which costs little beside many rows.
        let plain = WeightKind {
            packing: None,
            float_type: value,
        };
        let (as_stored, upright) = (product(few.weight, few.transposed), product(plain, false));
        let [(stored_place, _), (upright_place, _)] = [self.best_stack(&as_stored), self.best_stack(&upright)];
        if !weights.transposed || stored_place <= upright_place {
            self.run_heads(&as_stored, stored, input, output);
            return Ok(());
        }
        let mut scratch = lock(&self.transposed);
        let bytes = weights.count * weights.rows * weights.cols * value.size_bytes();
        let transposed = (scratch.at_least(&self.queue, bytes)?, 0);
        let [codes, scales, biases] = stored;
        self.run(&TransposeHeads(few).launch(), &[codes, scales, biases, transposed]);
        self.run_heads(&upright, [transposed; 3], input, output);
        Ok(())
    }

    /// The way to compute a product, and its place in the table.
    fn best_stack(&self, product: &StackProduct) -> (usize, &'static StackVariant) {
        StackVariant::best([product].into_iter(), &self.queue.features())
            .expect("a way for products that are not paired")
    }

    /// Many rows through the matrix of every head.
    fn run_heads(
        &self,
        product: &StackProduct,
        [codes, scales, biases]: [(&Q::Buffer, usize); 3],
        input: (&Q::Buffer, usize),
        output: (&Q::Buffer, usize),
    ) {
        let (_, variant) = self.best_stack(product);
        self.run_stack(variant, product, |buffer| match buffer {
            StackBuffer::Codes => codes,
            StackBuffer::Scales => scales,
            StackBuffer::Biases => biases,
            StackBuffer::Input => input,
            StackBuffer::Output => output,
            _ => (&self.nothing, 0),
        });
    }

    /// Launches a way to compute products with stacks, over the places of its buffers.
    pub(super) fn run_stack<'a>(
        &self,
        variant: &StackVariant,
        product: &StackProduct,
        place: impl Fn(StackBuffer) -> (&'a Q::Buffer, usize),
    ) {
        let buffers: SmallVec<[_; MOST_BUFFERS]> = variant.buffers.iter().map(|&buffer| place(buffer)).collect();
        self.run(&(variant.launch)(product), &buffers);
    }

    pub(super) fn run_copy_heads(&self, problem: &CopyHeads<'_, GpuOps<Q>>) {
        let CopyHeads {
            rows,
            heads,
            width,
            input,
            from,
            output,
            to,
        } = problem;
        let launch = launch::CopyHeads {
            value: input.float_type,
            parts: (rows * heads) as u32,
            width: *width as u32,
            from: *from,
            to: *to,
        }
        .launch();
        self.run(&launch, &[input.all(), output.all()]);
    }
}

impl<Q: Queue> Shape for GpuStack<Q> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }
}

impl<Q: Queue> Resident for GpuStack<Q> {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<Q: Queue> StackShape for GpuStack<Q> {
    fn count(&self) -> usize {
        self.count
    }
}
