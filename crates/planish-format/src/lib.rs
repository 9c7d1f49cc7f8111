//! What a packed weight means: pure functions, no I/O, no device. [`memory`] says what becomes of large work without memory.
//!
//! A row of `cols` codes of `bits` bits is one little-endian bit stream: code `i` is bits `[i * bits, (i + 1) * bits)`.
//! Along a row every `group` codes share one scale and one bias, and `weight = scale * code + bias`.

mod affine;
mod bits;
mod dequantize;
mod error;
mod float;
mod float_modes;
mod instructions;
mod isa;
mod matrix;
pub mod memory;
mod mxfp4;
mod packing;
mod products;
mod quantize;
mod row;
mod search;
mod searcher;

pub use bits::{code_at, pack_codes, unpack_codes};
pub use dequantize::{dequantize, dequantize_into};
pub use error::FormatError;
pub use float::FloatType;
pub use float_modes::{FloatCodes, FloatMode, quantize_floats};
pub use isa::{Isa, IsaError};
pub use matrix::{FloatMatrix, PackedMatrix, PackedRow, PackedShape};
pub use mxfp4::{FLOAT4_HALF_UNITS, float4_packing, float4_to_affine, mxfp4_to_affine};
pub use packing::{Encoder, Packing, Rule};
pub use products::{TILE_ROWS, add_products, dot_products};
pub use quantize::{QuantizeOptions, first_non_finite, quantize, quantize_with};
pub use search::GroupSearch;
pub use searcher::Searcher;
