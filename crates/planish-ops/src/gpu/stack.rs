//! Stacks of matrices on the device, and what heads do with them.

use bytes::Bytes;
use planish_cpu::Matrix;
use planish_format::PackedMatrix;
use planish_gpu::{Dialect, Error, Queue};

use super::GpuOps;
use super::tensor::Stored;
use crate::kernels::{self, StackInputs, StackMatmul, StackTensor, WeightKind};
use crate::{CopyHeads, HeadLinear, PlainMatrix, Resident, Shape, StackShape};

/// Up to so many rows every head's matrix is read for each row, beyond for a tile of them.
const MOST_MATVEC_ROWS: usize = 8;

/// Matrices (rows, cols) of one kind, one after another.
pub struct GpuStack<Q: Queue> {
    count: usize,
    rows: usize,
    cols: usize,
    bytes: usize,
    pub(super) stored: Stored<Q>, // (count, rows, cols)
}

impl<Q: Queue> GpuOps<Q> {
    /// Copies the matrices behind one another.
    pub(super) fn place_stack(&self, matrices: &[Matrix]) -> Result<GpuStack<Q>, Error> {
        let shape = |matrix: &Matrix| (matrix.rows(), matrix.cols());
        let (kind, (rows, cols)) = (kind(&matrices[0]), shape(&matrices[0]));
        assert!(matrices.iter().all(|matrix| shape(matrix) == (rows, cols)));
        if matrices.iter().any(|matrix| self::kind(matrix) != kind) {
            return Err(Error::NoKernel {
                operation: "a layer whose experts are packed in different ways",
            });
        }
        let parts: Vec<Vec<&Bytes>> = matrices.iter().map(parts).collect();
        let buffers = (0..parts[0].len()).map(|part| {
            let bytes: usize = parts.iter().map(|of_matrix| of_matrix[part].len()).sum();
            let buffer = self.queue.allocate(bytes)?;
            let mut offset = 0;
            for of_matrix in &parts {
                self.queue.upload(of_matrix[part], &buffer, offset)?;
                offset += of_matrix[part].len();
            }
            Ok((buffer, 0))
        });
        Ok(GpuStack {
            count: matrices.len(),
            rows,
            cols,
            bytes: matrices.iter().map(Matrix::bytes).sum(),
            stored: Stored::new(kind, buffers.collect::<Result<_, Error>>()?),
        })
    }

    pub(super) fn run_head_linear(&self, problem: &HeadLinear<'_, GpuOps<Q>>) {
        let HeadLinear {
            rows,
            weights,
            input,
            from,
            output,
            to,
        } = problem;
        let [codes, scales, biases] = weights.stored.buffers();
        let (heads, nothing) = (weights.count as u32, (&self.nothing, 0));
        if *rows <= MOST_MATVEC_ROWS {
            let launch = kernels::HeadMatvec {
                weight: weights.stored.kind,
                value: input.float_type,
                rows: weights.rows as u32,
                cols: weights.cols as u32,
                heads,
                turned: false,
                inputs: *rows as u32,
                from: *from,
                to: *to,
            }
            .launch();
            return self.run(&launch, &[codes, scales, biases, input.all(), output.all()]);
        }
        let product = StackMatmul {
            weight: weights.stored.kind,
            value: input.float_type,
            rows: weights.rows as u32,
            cols: weights.cols as u32,
            inputs: *rows as u32,
            turned: false,
            added: false,
            meeting: StackInputs::Heads {
                heads,
                from: *from,
                to: *to,
            },
        };
        let (input, output, paired) = (input.all(), output.all(), None);
        let tensor = StackTensor { product, paired }.launch();
        match tensor.filter(|_| self.queue.dialect() != Dialect::Metal) {
            Some(launch) => {
                let mut buffers = [nothing; 12];
                buffers[..3].copy_from_slice(&[codes, scales, biases]);
                (buffers[6], buffers[11]) = (input, output);
                self.run(&launch, &buffers);
            }
            None => self.run(
                &product.launch(),
                &[codes, scales, biases, input, nothing, nothing, nothing, output],
            ),
        }
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
        let launch = kernels::CopyHeads {
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

fn kind(matrix: &Matrix) -> WeightKind {
    match matrix {
        Matrix::Packed(PackedMatrix {
            packing, scale_type, ..
        }) => WeightKind {
            packing: Some(*packing),
            float_type: *scale_type,
        },
        Matrix::Interleaved(_) => unreachable!("only weights of the CPU are interleaved"),
        Matrix::Plain(PlainMatrix { float_type, .. }) => WeightKind {
            packing: None,
            float_type: *float_type,
        },
    }
}

/// Codes, scales and biases; or the values alone.
fn parts(matrix: &Matrix) -> Vec<&Bytes> {
    match matrix {
        Matrix::Packed(PackedMatrix {
            codes, scales, biases, ..
        }) => vec![codes, scales, biases],
        Matrix::Interleaved(_) => unreachable!("only weights of the CPU are interleaved"),
        Matrix::Plain(PlainMatrix { data, .. }) => vec![data],
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
