//! Plain weights that are packed on the way to the device, by the rules of `planish_format::quantize`, bit for bit.

use planish_format::{Encoder, FloatType, Packing};

use crate::PlainMatrix;

/// Plain values, and how they are to be packed.
#[derive(Clone, Debug)]
pub struct Packable {
    /// The values. // (rows, cols)
    pub plain: PlainMatrix,
    /// Bits and group; the group divides the columns.
    pub packing: Packing,
    /// How codes are chosen.
    pub encoder: Encoder,
    /// Type that the values are rounded to first, and of scales and biases.
    pub scale_type: FloatType,
    /// Take NaN and infinity for what the arithmetic makes of them, instead of refusing them.
    pub allow_non_finite: bool,
}
