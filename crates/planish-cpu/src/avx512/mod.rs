//! AVX-512 with VNNI and VBMI, and the row of AVX-512 without them.

pub(crate) mod arrange;
pub(crate) mod attention;
mod dots;
pub(crate) mod interleaved;
pub(crate) mod lanes;
mod limit;
mod multiply;
mod plain;
pub(crate) mod rounded;
pub(crate) mod tile;
mod tiles;
pub(crate) mod unpack;

use std::ops::Range;

use planish_format::Isa;

use crate::avx2::AVX2;
use crate::input::Shape;
use crate::scalar;
use crate::scratch::WorkerScratch;
use crate::table::{ExactProduct, InstructionSet, Int8Product, PlainProduct};
use crate::vector;

/// The row of the table.
pub(crate) const AVX512_VNNI: InstructionSet = InstructionSet {
    isa: Isa::Avx512Vnni,
    rows_alike: false,
    block: arrange::block,
    arrange_int8: arrange::int8,
    int8,
    arrange_exact: arrange::exact,
    exact,
    plain,
    dot_limit: limit::dot_limit,
    interleaved: Some(interleaved::KERNELS),
    bf16: None,
    attention: || dots::available().then_some(attention::rounded_task::<dots::Dots>()),
    vector: &vector::AVX512,
};

/// The row of the table without VNNI and VBMI: wider vectors for all but products.
pub(crate) const AVX512: InstructionSet = InstructionSet {
    isa: Isa::Avx512,
    vector: &vector::AVX512,
    ..AVX2
};

fn int8(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    match product.input.shape {
        shape if !arrange::fits(shape.packing) => scalar::int8(product, rows, scratch),
        Shape { m: 1, .. } => lanes::int8(product, rows, scratch),
        _ => tiles::int8(product, rows, scratch),
    }
}

fn exact(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    match product.input.shape {
        shape if !arrange::fits(shape.packing) => scalar::exact(product, rows, scratch),
        Shape { m: 1, .. } => lanes::exact(product, rows, scratch),
        _ => tiles::exact(product, rows, scratch),
    }
}

fn plain(product: &PlainProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    match product.m {
        1 => plain::one(product, rows),
        _ => tiles::plain(product, rows, scratch),
    }
}
