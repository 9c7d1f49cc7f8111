//! What lies on the device: activations and weights.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use planish_format::{FloatType, PackedMatrix};
use planish_gpu::{Error, Queue};
use planish_ops::Matrix;

use crate::launch::WeightKind;
use planish_ops::{PlainMatrix, Resident, Shape};

/// Activations (rows, cols) on the device.
pub struct GpuTensor<Q: Queue> {
    /// No other tensor has it.
    pub(super) id: u64,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) float_type: FloatType,
    pub(super) buffer: Q::Buffer, // (rows, cols)
}

impl<Q: Queue> GpuTensor<Q> {
    /// Zeros.
    pub(super) fn new(queue: &Q, rows: usize, cols: usize, float_type: FloatType) -> Result<GpuTensor<Q>, Error> {
        static TENSORS: AtomicU64 = AtomicU64::new(0);
        Ok(GpuTensor {
            id: TENSORS.fetch_add(1, Ordering::Relaxed),
            rows,
            cols,
            float_type,
            buffer: queue.allocate(rows * cols * float_type.size_bytes())?,
        })
    }

    /// The buffer, a row on.
    pub(super) fn after_row(&self, row: usize) -> (&Q::Buffer, usize) {
        (&self.buffer, row * self.cols * self.float_type.size_bytes())
    }

    /// The whole buffer.
    pub(super) fn all(&self) -> (&Q::Buffer, usize) {
        (&self.buffer, 0)
    }
}

impl<Q: Queue> Shape for GpuTensor<Q> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }
}

/// A matrix (rows, cols) on the device, packed or plain.
pub struct GpuWeight<Q: Queue> {
    /// No other weight has it.
    pub(super) id: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bytes: usize, // in the checkpoint
    pub(super) stored: Stored<Q>,
    /// Codes and scales lie in the order that tensor cores read, not as in the checkpoint.
    pub(super) is_tiled: bool,
}

/// The parts of a matrix, or of several of one kind.
pub(super) struct Stored<Q: Queue> {
    pub(super) kind: WeightKind,
    /// Codes, scales and biases; or the values alone.
    parts: Vec<(Q::Buffer, usize)>,
}

impl<Q: Queue> GpuWeight<Q> {
    /// What is there already, as in a checkpoint.
    pub(super) fn of(rows: usize, cols: usize, bytes: usize, stored: Stored<Q>) -> GpuWeight<Q> {
        static WEIGHTS: AtomicUsize = AtomicUsize::new(0);
        GpuWeight {
            id: WEIGHTS.fetch_add(1, Ordering::Relaxed),
            rows,
            cols,
            bytes,
            stored,
            is_tiled: false,
        }
    }

    pub(super) fn stored(queue: &Q, matrix: &Matrix) -> Result<GpuWeight<Q>, Error> {
        let (packing, float_type, parts) = match matrix {
            Matrix::Packed(PackedMatrix {
                packing,
                scale_type,
                codes,
                scales,
                biases,
                ..
            }) => (Some(*packing), *scale_type, vec![codes, scales, biases]),
            Matrix::Plain(PlainMatrix { float_type, data, .. }) => (None, *float_type, vec![data]),
        };
        let parts = parts.into_iter().map(|part| queue.place(part));
        let stored = Stored {
            kind: WeightKind { packing, float_type },
            parts: parts.collect::<Result<_, _>>()?,
        };
        Ok(GpuWeight::of(matrix.rows(), matrix.cols(), matrix.bytes(), stored))
    }
}

impl<Q: Queue> Stored<Q> {
    /// `parts`: codes, scales and biases, or the values alone.
    pub(super) fn new(kind: WeightKind, parts: Vec<(Q::Buffer, usize)>) -> Stored<Q> {
        Stored { kind, parts }
    }

    /// Codes, scales and biases as kernels take them.
    pub(super) fn buffers(&self) -> [(&Q::Buffer, usize); 3] {
        let part = |index: usize| {
            let (buffer, offset) = &self.parts[index.min(self.parts.len() - 1)];
            (buffer, *offset)
        };
        [part(0), part(1), part(2)]
    }
}

impl<Q: Queue> Resident for GpuWeight<Q> {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<Q: Queue> Shape for GpuWeight<Q> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }
}
