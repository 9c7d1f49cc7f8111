//! A packed matrix: codes, scales and biases, owned or borrowed from a mapped file.

use bytes::Bytes;

use crate::{FloatType, Packing};

/// A packed matrix of `rows` x `cols` weights. Cloning is cheap: the bytes are shared.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    /// Rows (output features; for stacked experts all experts' rows).
    pub rows: usize,
    /// Columns (input features), a multiple of the group.
    pub cols: usize,
    /// Bits and group.
    pub packing: Packing,
    /// Type of `scales` and `biases`.
    pub scale_type: FloatType,
    /// Little-endian `u32` words. // (rows, cols * bits / 32)
    pub codes: Bytes,
    /// Scales. // (rows, cols / group) of `scale_type`
    pub scales: Bytes,
    /// Biases. // (rows, cols / group) of `scale_type`
    pub biases: Bytes,
}
