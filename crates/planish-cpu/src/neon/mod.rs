//! AArch64: NEON, which every processor has, with or without instructions for dot products and matrix products of bytes.
//!
//! x keeps its natural order (it is prepared as for the scalar kernels); codes are unpacked into that order.

mod block;
mod dot;
mod floats;
mod limit;
mod mmla;
mod one;
mod plain;
mod scales;
mod tiles;
mod unpack;

use std::ops::Range;

use planish_format::Isa;

use crate::scalar;
use crate::scratch::WorkerScratch;
use crate::table::{ExactProduct, InstructionSet, Int8Product};
use crate::vector;

use block::{Floats, Rounded};
use dot::{Dot, Dotprod, Widening};

/// The row of the table for Armv8.6 and later.
pub(crate) const NEON_I8MM: InstructionSet = InstructionSet {
    isa: Isa::NeonI8mm,
    rows_alike: false,
    block: |packing, m| match mmla::fits(packing, m) {
        true => mmla::X_BLOCK,
        false => block::X_BLOCK,
    },
    int8: int8_i8mm,
    dot_limit: limit::i8mm,
    ..NEON_DOTPROD
};

/// The row of the table for Armv8.2 with dotprod and later.
pub(crate) const NEON_DOTPROD: InstructionSet = InstructionSet {
    isa: Isa::NeonDotprod,
    int8: int8_dotprod,
    dot_limit: limit::dotprod,
    ..NEON
};

/// The row of the table for every AArch64 processor.
pub(crate) const NEON: InstructionSet = InstructionSet {
    isa: Isa::Neon,
    rows_alike: false,
    block: |_, _| block::X_BLOCK,
    arrange_int8: scalar::arrange_int8,
    int8: int8_widening,
    arrange_exact: scalar::arrange_exact,
    exact,
    plain: plain::plain,
    dot_limit: limit::floats,
    interleaved: None,
    bf16: None,
    attention: || None,
    vector: &vector::NEON,
};

fn int8_i8mm(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    #[target_feature(enable = "neon,dotprod,i8mm")]
    fn enabled(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
        // SAFETY: this function has the feature.
        unsafe { mmla::int8(product, rows, scratch) }
    }
    if !mmla::fits(product.matrix.packing, product.input.shape.m) {
        return int8_dotprod(product, rows, scratch);
    }
    // SAFETY: the table offers this function only where the feature is there.
    unsafe { enabled(product, rows, scratch) }
}

fn int8_dotprod(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    #[target_feature(enable = "neon,dotprod")]
    fn enabled(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
        // SAFETY: this function has the feature.
        unsafe { int8::<Dotprod>(product, rows, scratch) }
    }
    // SAFETY: the table offers this function only where the feature is there.
    unsafe { enabled(product, rows, scratch) }
}

fn int8_widening(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    // SAFETY: needs nothing beyond what every AArch64 processor has.
    unsafe { int8::<Widening>(product, rows, scratch) }
}

/// # Safety
/// The machine must have the instructions of D.
#[inline(always)]
unsafe fn int8<D: Dot>(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    // SAFETY: passed on from the caller.
    unsafe {
        match product.matrix.packing.bits() {
            2 => int8_bits::<2, D>(product, rows, scratch),
            3 => int8_bits::<3, D>(product, rows, scratch),
            4 => int8_bits::<4, D>(product, rows, scratch),
            5 => int8_bits::<5, D>(product, rows, scratch),
            6 => int8_bits::<6, D>(product, rows, scratch),
            _ => int8_bits::<8, D>(product, rows, scratch),
        }
    }
}

/// # Safety
/// As for `int8`.
#[inline(always)]
unsafe fn int8_bits<const BITS: u32, D: Dot>(
    product: &Int8Product<'_>,
    rows: Range<usize>,
    scratch: &mut WorkerScratch,
) {
    let Int8Product { matrix, input, output } = product;
    // SAFETY: the instructions are passed on from the caller; x is padded to 16 columns (see `Shape::stride`).
    unsafe {
        if input.shape.m > 1 {
            return tiles::int8::<BITS, D>(product, rows, scratch);
        }
        one::rows::<BITS, true, _>(matrix, Rounded::<D>::new(*input), rows, output, scratch);
    }
}

fn exact(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    match product.matrix.packing.bits() {
        2 => exact_bits::<2>(product, rows, scratch),
        3 => exact_bits::<3>(product, rows, scratch),
        4 => exact_bits::<4>(product, rows, scratch),
        5 => exact_bits::<5>(product, rows, scratch),
        6 => exact_bits::<6>(product, rows, scratch),
        _ => exact_bits::<8>(product, rows, scratch),
    }
}

fn exact_bits<const BITS: u32>(product: &ExactProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let ExactProduct { matrix, input, output } = product;
    if input.shape.m > 1 {
        return tiles::exact::<BITS>(product, rows, scratch);
    }
    // SAFETY: needs nothing beyond what every AArch64 processor has; x is padded to 16 columns (see `Shape::stride`).
    unsafe { one::rows::<BITS, false, _>(matrix, Floats::new(*input), rows, output, scratch) }
}
