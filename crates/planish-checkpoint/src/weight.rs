//! The tensors of a checkpoint as the rest of the program sees them.

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix, Packing};

use crate::{Dtype, Scheme};

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
    /// Packed in a mode that is listed but cannot be read (mxfp4, mxfp8, nvfp4).
    Unsupported(Scheme),
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

    /// Rows and columns of the weight as a matrix: the last size, and the product of all others.
    pub fn rows_cols(&self) -> (usize, usize) {
        let (cols, leading) = self
            .shape
            .split_last()
            .map_or((1, &[][..]), |(cols, leading)| (*cols, leading));
        (leading.iter().product(), cols)
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
