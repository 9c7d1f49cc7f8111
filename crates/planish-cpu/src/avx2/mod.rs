//! AVX2, FMA and F16C. 8-bit products by `vpmaddubsw`, or by `vpdpbusd` where there is AVX-VNNI.

mod arrange;
mod dot;
mod float;
mod lanes;
mod limit;
mod unpack;

use std::ops::Range;

use planish_format::Isa;

use crate::scalar;
use crate::scratch::WorkerScratch;
use crate::table::{ExactProduct, InstructionSet, Int8Product};
use crate::vector;

use dot::{Dot, Pairs, Vnni};

/// The row of the table for processors with AVX-VNNI that lack AVX-512, or where it is switched off.
pub(crate) const AVX_VNNI: InstructionSet = InstructionSet {
    isa: Isa::AvxVnni,
    int8: int8::<Vnni>,
    dot_limit: limit::vnni,
    ..AVX2
};

/// The row of the table for every processor with AVX2.
pub(crate) const AVX2: InstructionSet = InstructionSet {
    isa: Isa::Avx2,
    rows_alike: true,
    block: arrange::block,
    arrange_int8: arrange::int8,
    int8: int8::<Pairs>,
    arrange_exact: arrange::exact,
    exact,
    plain: |product, rows, _| float::plain(product, rows),
    dot_limit: limit::pairs,
    interleaved: None,
    bf16: None,
    attention: || None,
    vector: &vector::AVX2,
};

fn int8<D: Dot>(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    if arrange::fits(&product.input.shape) {
        lanes::int8::<D>(product, rows, scratch);
    } else {
        scalar::int8(product, rows, scratch);
    }
}

fn exact(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    if arrange::fits(&product.input.shape) {
        lanes::exact(product, rows, scratch);
    } else {
        scalar::exact(product, rows, scratch);
    }
}
