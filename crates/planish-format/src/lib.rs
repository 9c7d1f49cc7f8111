//! What a packed weight means: pure functions, no I/O, no device.
//!
//! A row of `cols` codes of `bits` bits is one little-endian bit stream: code `i` is bits `[i * bits, (i + 1) * bits)`.
//! Along a row every `group` codes share one scale and one bias, and `weight = scale * code + bias`.

mod float;
mod matrix;
mod packing;

pub use float::FloatType;
pub use matrix::PackedMatrix;
pub use packing::{Encoder, Packing};
