//! The three float types that weights, scales and biases come in.

/// The type of plain weights and of the scales and biases of packed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
}

impl FloatType {
    /// Bytes of one value.
    pub fn size_bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::BF16 => 2,
        }
    }
}
