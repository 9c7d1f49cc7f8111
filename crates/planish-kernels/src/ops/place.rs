//! Weights on their way to the device: packed there where they are to be packed, else copied as the host has them.

use bytes::Bytes;
use planish_format::PackedMatrix;
use planish_gpu::{Error, Queue};
use planish_ops::{HostForm, HostWeight, Matrix, PlaceError, Placed, PlainMatrix, Use};

use super::tensor::Stored;
use super::{GpuOps, GpuStack, GpuWeight};
use crate::launch::WeightKind;

impl<Q: Queue> GpuOps<Q> {
    /// In the order of tensor cores where the device has some that take it, but for tables.
    pub(super) fn place_weight<W: HostWeight>(&self, weight: W, use_as: Use) -> Placed<GpuWeight<Q>, GpuOps<Q>, W> {
        let packed = match weight.form() {
            HostForm::ToPack(source) => self.pack_one(&source).map_err(PlaceError::Device)?,
            _ => None,
        };
        let stored = match packed {
            Some(packed) => packed,
            None => {
                let matrix = weight.into_matrix().map_err(PlaceError::Weight)?;
                GpuWeight::stored(&self.queue, &matrix).map_err(PlaceError::Device)?
            }
        };
        match use_as {
            Use::Linear => self.reorder(stored).map_err(PlaceError::Device),
            Use::Table => Ok(stored),
        }
    }

    /// Packed on the device if all are to be, or left packed where their columns are rows.
    pub(super) fn place_matrices<W: HostWeight>(&self, weights: Vec<W>) -> Placed<GpuStack<Q>, GpuOps<Q>, W> {
        let all_to_pack = of_all(&weights, |form| match form {
            HostForm::ToPack(source) => Some(source),
            _ => None,
        });
        if let Some(sources) = all_to_pack
            && let Some(stack) = self.pack_matrices(&sources).map_err(PlaceError::Device)?
        {
            return Ok(stack);
        }
        let all_transposed = of_all(&weights, |form| match form {
            HostForm::Transposed(matrix) => Some(Matrix::Packed(matrix)),
            _ => None,
        });
        if let Some(matrices) = all_transposed {
            return self.copy_matrices(&matrices, true).map_err(PlaceError::Device);
        }
        let matrices: Result<Vec<Matrix>, W::Error> = weights.into_iter().map(HostWeight::into_matrix).collect();
        let matrices = matrices.map_err(PlaceError::Weight)?;
        self.copy_matrices(&matrices, false).map_err(PlaceError::Device)
    }

    /// Copies the matrices behind one another. `transposed`: their columns are stored as rows.
    fn copy_matrices(&self, matrices: &[Matrix], transposed: bool) -> Result<GpuStack<Q>, Error> {
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
        let (rows, cols) = if transposed { (cols, rows) } else { (rows, cols) };
        let bytes = matrices.iter().map(Matrix::bytes).sum();
        let stored = Stored::new(kind, buffers.collect::<Result<_, Error>>()?);
        let stack = GpuStack::of((matrices.len(), rows, cols), bytes, stored);
        Ok(if transposed { stack.transposed() } else { stack })
    }
}

/// What all weights have, if all have it.
fn of_all<W: HostWeight, T>(weights: &[W], part: impl Fn(HostForm) -> Option<T>) -> Option<Vec<T>> {
    weights.iter().map(|weight| part(weight.form())).collect()
}

fn kind(matrix: &Matrix) -> WeightKind {
    match matrix {
        Matrix::Packed(PackedMatrix {
            packing, scale_type, ..
        }) => WeightKind {
            packing: Some(*packing),
            float_type: *scale_type,
        },
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
        Matrix::Plain(PlainMatrix { data, .. }) => vec![data],
    }
}
