//! The tensors of a checkpoint as the rest of the program sees them.

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix, Packing, dequantize, memory};

use crate::Dtype;

/// A plain tensor: row-major, contiguous. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian values, mapped from the file where it can be. May be unaligned.
    pub data: Bytes,
}

impl Tensor {
    /// A packed matrix as floats. // (rows, cols)
    pub fn unpacked(matrix: &PackedMatrix, float_type: FloatType) -> Tensor {
        Tensor {
            dtype: float_type.into(),
            shape: vec![matrix.rows, matrix.cols],
            data: dequantize(matrix, float_type).into(),
        }
    }

    /// Rows and columns as a matrix.
    pub fn rows_cols(&self) -> (usize, usize) {
        rows_cols(&self.shape)
    }

    /// Floats as those of another type; what is not of floats stays as it is.
    pub(crate) fn cast(self, to: FloatType) -> Tensor {
        match self.dtype.float_type() {
            Some(from) if from != to => Tensor {
                dtype: to.into(),
                data: cast(&self.data, from, to).into(),
                ..self
            },
            _ => self,
        }
    }
}

/// Rows and columns of a tensor as a matrix: the last size, and the product of all others.
pub fn rows_cols(shape: &[usize]) -> (usize, usize) {
    shape
        .split_last()
        .map_or((1, 1), |(cols, leading)| (leading.iter().product(), *cols))
}

/// Values of one type as values of another, rounded to nearest even.
pub fn cast(bytes: &[u8], from: FloatType, to: FloatType) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let count = bytes.len() / from.size_bytes();
    let mut cast = memory::filled("weights", count * to.size_bytes(), 0);
    let mut values = [0.0; BLOCK];
    let blocks = bytes
        .chunks(BLOCK * from.size_bytes())
        .zip(cast.chunks_mut(BLOCK * to.size_bytes()));
    for (source, target) in blocks {
        let values = &mut values[..source.len() / from.size_bytes()];
        from.decode(source, values);
        to.encode(values, target);
    }
    cast
}

/// How an entry is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Layout {
    /// One tensor.
    Plain(Dtype),
    /// Codes, scales and biases of one module's weight.
    Packed {
        /// Bits and group.
        packing: Packing,
        /// Type of scales and biases.
        scale_type: FloatType,
    },
}

/// One named weight of a checkpoint: known without reading its data.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Hugging Face name, `.weight` included: a packed module `P` is the entry `P.weight`.
    pub name: String,
    /// Shape of the weight as plain floats, outermost first: (.., rows, cols).
    pub shape: Vec<usize>,
    /// Plain or packed.
    pub layout: Layout,
    /// Bytes in the source file, scales and biases included.
    pub stored_bytes: u64,
}

impl Entry {
    /// The module of a weight: the name without `.weight`; `None` for other tensors.
    pub fn module(&self) -> Option<&str> {
        self.name.strip_suffix(".weight")
    }

    /// Numbers in the tensor.
    pub fn element_count(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product()
    }

    /// Rows and columns of the weight as a matrix.
    pub fn rows_cols(&self) -> (usize, usize) {
        rows_cols(&self.shape)
    }
}

/// The data of an entry.
#[derive(Clone, Debug)]
pub enum Weight {
    /// As floats (or whatever the file holds).
    Plain(Tensor),
    /// As codes; `matrix.rows` is the product of all but the last size of the entry's shape.
    Packed(PackedMatrix),
}
