//! The tensors of a checkpoint as the rest of the program sees them.

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix, Packing};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    F8E4M3,
    F8E5M2,
}

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

/// The data of an entry.
#[derive(Clone, Debug)]
pub enum Weight {
    /// As floats (or whatever the file holds).
    Plain(Tensor),
    /// As codes; `matrix.rows` is the product of all but the last size of the entry's shape.
    Packed(PackedMatrix),
}
