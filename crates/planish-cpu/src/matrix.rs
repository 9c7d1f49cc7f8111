//! The weights that the kernels multiply with: packed or plain, read in place, at any alignment.

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix};

use crate::interleaved::Interleaved;

/// A plain matrix of `rows` x `cols` weights. Cloning is cheap: the bytes are shared.
#[derive(Clone, Debug)]
pub struct PlainMatrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Type of the values.
    pub float_type: FloatType,
    /// Little-endian values, at any alignment. // (rows, cols)
    pub data: Bytes,
}

/// The weight of a linear layer or an embedding.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// Codes with a scale and a bias per group.
    Packed(PackedMatrix),
    /// The same, arranged for the CPU's products with one row.
    Interleaved(Interleaved),
    /// One float per weight.
    Plain(PlainMatrix),
}

impl Matrix {
    /// Output features.
    pub fn rows(&self) -> usize {
        match self {
            Matrix::Packed(matrix) => matrix.rows,
            Matrix::Interleaved(matrix) => matrix.shape.rows,
            Matrix::Plain(matrix) => matrix.rows,
        }
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        match self {
            Matrix::Packed(matrix) => matrix.cols,
            Matrix::Interleaved(matrix) => matrix.shape.cols,
            Matrix::Plain(matrix) => matrix.cols,
        }
    }

    /// Bytes that one pass over the matrix reads: codes, scales and biases, or floats.
    pub fn bytes(&self) -> usize {
        match self {
            Matrix::Packed(matrix) => matrix.codes.len() + matrix.scales.len() + matrix.biases.len(),
            Matrix::Interleaved(matrix) => matrix.data.len(),
            Matrix::Plain(matrix) => matrix.data.len(),
        }
    }

    /// Panics unless the byte lengths are what the shape says: the kernels read by address and rely on it.
    pub(crate) fn check(&self) {
        match self {
            Matrix::Packed(matrix) => check_packed(matrix),
            Matrix::Interleaved(matrix) => matrix.check(),
            Matrix::Plain(PlainMatrix {
                rows,
                cols,
                float_type,
                data,
            }) => {
                let expected = rows * cols * float_type.size_bytes();
                assert_eq!(
                    data.len(),
                    expected,
                    "data of a plain {rows} x {cols} {float_type:?} matrix"
                );
            }
        }
    }
}

fn check_packed(matrix: &PackedMatrix) {
    let PackedMatrix {
        rows,
        cols,
        packing,
        scale_type,
        ..
    } = matrix;
    let shape = || format!("a packed {rows} x {cols} matrix, {packing:?}, {scale_type:?}");
    assert!(cols.is_multiple_of(packing.group()), "columns of {}", shape());
    let scale_bytes = rows * (cols / packing.group()) * scale_type.size_bytes();
    assert_eq!(
        matrix.codes.len(),
        rows * cols / 8 * packing.bits() as usize,
        "codes of {}",
        shape()
    );
    assert_eq!(matrix.scales.len(), scale_bytes, "scales of {}", shape());
    assert_eq!(matrix.biases.len(), scale_bytes, "biases of {}", shape());
}
