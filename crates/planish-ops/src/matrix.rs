//! The weight of a linear layer or an embedding in the host's memory: packed or plain, at any alignment.

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix};

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

/// A matrix in the host's memory, before a device takes it.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// Codes with a scale and a bias per group.
    Packed(PackedMatrix),
    /// One float per weight.
    Plain(PlainMatrix),
}

impl Matrix {
    /// Output features.
    pub fn rows(&self) -> usize {
        match self {
            Matrix::Packed(matrix) => matrix.rows,
            Matrix::Plain(matrix) => matrix.rows,
        }
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        match self {
            Matrix::Packed(matrix) => matrix.cols,
            Matrix::Plain(matrix) => matrix.cols,
        }
    }

    /// Bytes that one pass over the matrix reads: codes, scales and biases, or floats.
    pub fn bytes(&self) -> usize {
        match self {
            Matrix::Packed(matrix) => matrix.codes.len() + matrix.scales.len() + matrix.biases.len(),
            Matrix::Plain(matrix) => matrix.data.len(),
        }
    }
}
