//! AMX with bf16 tiles: many rows of x at once; all else is that of AVX-512.
//!
//! x and the unpacked weights are rounded to bf16, sums are f32: twice as precise as 8-bit x, and the tile units multiply so
//! fast that unpacking weights costs about as much as using them.

mod attention;
mod interleaved;
mod product;
mod unit;
mod weights;

use planish_format::Isa;

use crate::avx512::AVX512_VNNI;
use crate::avx512::attention::rounded_task;
use crate::table::{Bf16Kernels, InstructionSet};
use unit::Unit;

/// Rows of x from which on the tile unit is faster than 8-bit products.
const LEAST_ROWS: usize = 24;

/// The row of the table.
pub(crate) const AMX: InstructionSet = InstructionSet {
    isa: Isa::Amx,
    interleaved: Some(interleaved::KERNELS),
    bf16: Some(Bf16Kernels {
        fits: |packing, m| product::fits(packing) && m >= LEAST_ROWS,
        arrange: product::arrange,
        product: product::product,
    }),
    dot_limit: unit::dot_limit,
    attention: || Some(rounded_task::<Unit>()),
    ..AVX512_VNNI
};
