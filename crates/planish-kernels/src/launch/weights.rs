//! What kernels must know of a weight: packed or plain, and its types.

use planish_format::{FloatType, Packing};

use super::value_number;

/// Buffers of a packed weight: codes, scales, biases. Of a plain one: the values, then any two buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightKind {
    /// Bits and group; `None` is plain.
    pub packing: Option<Packing>,
    /// Type of scales and biases, or of the plain values.
    pub float_type: FloatType,
}

impl WeightKind {
    /// `WEIGHT`, `BITS` and `GROUP`.
    pub(crate) fn defines(self) -> [(&'static str, u32); 3] {
        let (bits, group) = self
            .packing
            .map_or((0, 32), |packing| (packing.bits(), packing.group() as u32));
        [
            ("WEIGHT", value_number(self.float_type)),
            ("BITS", bits),
            ("GROUP", group),
        ]
    }
}
