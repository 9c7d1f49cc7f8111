//! The table of vector kernels: one row for each instruction set, best first.

use planish_ops::{Activation, NormKind, RopePairs};
use std::ops::Range;
use std::sync::OnceLock;

use half::f16;

use crate::piece::Plain;

use super::bodies;
use super::lanes::{Element, Portable};
use super::states::{self, ConvolutionRow, StateStep};

/// A small matrix product: `output (+)= left x right`.
pub struct Product<'a, T> {
    /// Rows of `left` lie `left_stride` apart. // (rows, depth)
    pub left: &'a [f32],
    /// Distance between rows of `left`, at least `depth`.
    pub left_stride: usize,
    /// Contiguous. // (depth, cols)
    pub right: &'a [T],
    /// What the next product will read: fetched from memory meanwhile. May be empty.
    pub ahead: &'a [T],
    /// Rows of `left` and `output`.
    pub rows: usize,
    /// Columns of `left`, rows of `right`.
    pub depth: usize,
    /// Columns of `right` and `output`: a multiple of 16.
    pub cols: usize,
    /// Add to what `output` holds.
    pub accumulate: bool,
    /// Contiguous. // (rows, cols)
    pub output: &'a mut [f32],
}

impl<T> Product<'_, T> {
    pub(super) fn check(&self) {
        assert!(self.cols.is_multiple_of(16) && self.left_stride >= self.depth && self.rows > 0 && self.depth > 0);
        assert!(self.left.len() >= (self.rows - 1) * self.left_stride + self.depth);
        assert!(self.right.len() >= self.depth * self.cols && self.output.len() >= self.rows * self.cols);
    }
}

/// Adds `factor * bf16(slope * bf16(position))` to scores: ALiBi (Press et al., 2021), rounded as transformers rounds it.
#[derive(Clone, Copy)]
pub struct PositionBias {
    /// That of the head.
    pub slope: f32,
    /// Multiplies the rounded product.
    pub factor: f32,
    /// Position of score 0.
    pub first_position: usize,
}

/// One row of scores against one block of keys.
pub struct SoftmaxBlock<'a> {
    /// Scores in, exp(score - maximum) out, 0 where not valid; a multiple of 16 long.
    pub scores: &'a mut [f32],
    /// The keys that this row may see.
    pub valid: Range<usize>,
    /// Replaces scores by `cap * tanh(score / cap)` first.
    pub softcap: Option<f32>,
    /// Added to the scores then.
    pub bias: Option<PositionBias>,
    /// Largest score so far.
    pub maximum: &'a mut f32,
    /// Sum of exp(score - maximum) so far.
    pub sum: &'a mut f32,
}

/// One row to normalize. All slices are as long as the row.
pub struct NormRow<'a> {
    /// The formula.
    pub kind: NormKind,
    /// The row; holds `hidden + factor * residual` afterwards.
    pub hidden: &'a mut [f32],
    /// Added first, times the factor.
    pub residual: Option<(&'a [f32], f32)>,
    /// Factors of the normalized values.
    pub weight: Option<&'a [f32]>,
    /// Added at the end.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean square or the variance.
    pub epsilon: f32,
    /// The result; `None` writes it over `hidden`.
    pub output: Option<&'a mut [f32]>,
}

/// The kernels of one instruction set.
///
/// # Safety
/// Calling any of them needs the instruction set: take them from a [`Variant`] whose `supported` says so.
pub struct VectorFunctions {
    /// Normalization of a row.
    pub norm_row: unsafe fn(&mut NormRow<'_>),
    /// Rotary embedding of a head by (cosines, sines).
    pub rotate_head: unsafe fn(RopePairs, &mut [f32], &[f32]),
    /// Activation, times `up` where there is one.
    pub activate: unsafe fn(Activation, &mut [f32], Option<&[f32]>),
    /// One step of the online softmax; returns the factor for earlier sums.
    pub softmax_block: unsafe fn(&mut SoftmaxBlock<'_>) -> f32,
    /// Small product with an f32 right side.
    pub product_f32: unsafe fn(&mut Product<'_, f32>),
    /// Small product with an f16 right side.
    pub product_f16: unsafe fn(&mut Product<'_, f16>),
    /// Small product with a right side of bytes.
    pub product_i8: unsafe fn(&mut Product<'_, i8>),
    /// Rounds to f16. Both slices are of one length.
    pub to_f16: unsafe fn(&[f32], &mut [f16]),
    /// Rounds the values times a factor, which brings them within 127, to integers. Both slices are of one length.
    pub to_i8: unsafe fn(&[f32], f32, &mut [i8]),
    /// A row of a causal convolution.
    pub convolve_row: unsafe fn(&mut ConvolutionRow<'_>),
    /// A step of a linear recurrence.
    pub step_state: unsafe fn(&mut StateStep<'_>),
}

/// A row of the table.
pub struct Variant {
    /// What it is called in reports.
    pub name: &'static str,
    /// Whether this machine has the instruction set.
    pub supported: fn() -> bool,
    /// The kernels.
    pub functions: VectorFunctions,
}

/// Every instruction set of this architecture, best first.
pub static VARIANTS: &[Variant] = &[
    #[cfg(target_arch = "x86_64")]
    Variant {
        name: "avx512",
        supported: || is_x86_feature_detected!("avx512f"),
        functions: avx512::FUNCTIONS,
    },
    #[cfg(target_arch = "x86_64")]
    Variant {
        name: "avx2",
        supported: avx2::supported,
        functions: avx2::FUNCTIONS,
    },
    #[cfg(target_arch = "aarch64")]
    Variant {
        name: "neon",
        supported: || true,
        functions: neon::FUNCTIONS,
    },
    Variant {
        name: "portable",
        supported: || true,
        functions: portable::FUNCTIONS,
    },
];

/// The best kernels that this machine supports.
pub fn vector_functions() -> &'static VectorFunctions {
    static BEST: OnceLock<&'static VectorFunctions> = OnceLock::new();
    BEST.get_or_init(|| {
        let best = VARIANTS.iter().find(|variant| (variant.supported)());
        &best.unwrap_or(&VARIANTS[VARIANTS.len() - 1]).functions
    })
}

/// Which kernels an element of the cache needs.
pub(crate) trait ProductElement: Element + Plain {
    /// Whether values are stored as multiples of a scale.
    const SCALED: bool;

    /// Stores values, times `inverse` where they are scaled.
    fn store(functions: &VectorFunctions, values: &[f32], inverse: f32, into: &mut [Self]);
    fn product(functions: &VectorFunctions) -> unsafe fn(&mut Product<'_, Self>);
}

impl ProductElement for f32 {
    const SCALED: bool = false;

    fn store(_functions: &VectorFunctions, values: &[f32], _inverse: f32, into: &mut [f32]) {
        into.copy_from_slice(values);
    }

    fn product(functions: &VectorFunctions) -> unsafe fn(&mut Product<'_, f32>) {
        functions.product_f32
    }
}

impl ProductElement for f16 {
    const SCALED: bool = false;

    fn store(functions: &VectorFunctions, values: &[f32], _inverse: f32, into: &mut [f16]) {
        // SAFETY: the functions are those this machine supports.
        unsafe { (functions.to_f16)(values, into) }
    }

    fn product(functions: &VectorFunctions) -> unsafe fn(&mut Product<'_, f16>) {
        functions.product_f16
    }
}

impl ProductElement for i8 {
    const SCALED: bool = true;

    fn store(functions: &VectorFunctions, values: &[f32], inverse: f32, into: &mut [i8]) {
        // SAFETY: the functions are those this machine supports.
        unsafe { (functions.to_i8)(values, inverse, into) }
    }

    fn product(functions: &VectorFunctions) -> unsafe fn(&mut Product<'_, i8>) {
        functions.product_i8
    }
}

mod portable {
    use super::*;

    pub(super) const FUNCTIONS: VectorFunctions = VectorFunctions {
        norm_row: bodies::norm_row::<false>,
        rotate_head: bodies::rotate_head,
        activate: bodies::activate::<false>,
        softmax_block: bodies::softmax_block::<false>,
        product_f32: bodies::product::<Portable, f32>,
        product_f16: bodies::product::<Portable, f16>,
        product_i8: bodies::product::<Portable, i8>,
        to_f16: bodies::to_f16::<Portable>,
        to_i8: bodies::to_i8,
        convolve_row: states::convolve_row::<false>,
        step_state: states::step_state::<Portable>,
    };
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::super::neon::Neon;
    use super::*;

    pub(super) const FUNCTIONS: VectorFunctions = VectorFunctions {
        norm_row: bodies::norm_row::<true>,
        rotate_head: bodies::rotate_head,
        activate: bodies::activate::<true>,
        softmax_block: bodies::softmax_block::<true>,
        product_f32: bodies::product::<Neon, f32>,
        product_f16: bodies::product::<Neon, f16>,
        product_i8: bodies::product::<Neon, i8>,
        to_f16: bodies::to_f16::<Neon>,
        to_i8: bodies::to_i8,
        convolve_row: states::convolve_row::<true>,
        step_state: states::step_state::<Neon>,
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::super::x86::Avx512;
    use super::*;

    pub(super) const FUNCTIONS: VectorFunctions = VectorFunctions {
        norm_row,
        rotate_head,
        activate,
        softmax_block,
        product_f32,
        product_f16,
        product_i8,
        to_f16,
        to_i8,
        convolve_row,
        step_state,
    };

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn norm_row(row: &mut NormRow<'_>) {
        bodies::norm_row::<true>(row)
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn rotate_head(pairs: RopePairs, head: &mut [f32], angles: &[f32]) {
        bodies::rotate_head(pairs, head, angles)
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn activate(activation: Activation, gate: &mut [f32], up: Option<&[f32]>) {
        bodies::activate::<true>(activation, gate, up)
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn softmax_block(block: &mut SoftmaxBlock<'_>) -> f32 {
        bodies::softmax_block::<true>(block)
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn product_f32(product: &mut Product<'_, f32>) {
        // SAFETY: the features of `Avx512` are enabled here.
        unsafe { bodies::product::<Avx512, f32>(product) }
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn product_f16(product: &mut Product<'_, f16>) {
        // SAFETY: the features of `Avx512` are enabled here.
        unsafe { bodies::product::<Avx512, f16>(product) }
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn product_i8(product: &mut Product<'_, i8>) {
        // SAFETY: the features of `Avx512` are enabled here.
        unsafe { bodies::product::<Avx512, i8>(product) }
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn to_i8(values: &[f32], inverse: f32, into: &mut [i8]) {
        bodies::to_i8(values, inverse, into)
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn to_f16(values: &[f32], into: &mut [f16]) {
        // SAFETY: the features of `Avx512` are enabled here.
        unsafe { bodies::to_f16::<Avx512>(values, into) }
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn convolve_row(row: &mut ConvolutionRow<'_>) {
        states::convolve_row::<true>(row)
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    fn step_state(step: &mut StateStep<'_>) {
        // SAFETY: the features of `Avx512` are enabled here.
        unsafe { states::step_state::<Avx512>(step) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::x86::Avx2;
    use super::*;

    pub(super) fn supported() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
    }

    pub(super) const FUNCTIONS: VectorFunctions = VectorFunctions {
        norm_row,
        rotate_head,
        activate,
        softmax_block,
        product_f32,
        product_f16,
        product_i8,
        to_f16,
        to_i8,
        convolve_row,
        step_state,
    };

    #[target_feature(enable = "avx2,fma,f16c")]
    fn norm_row(row: &mut NormRow<'_>) {
        bodies::norm_row::<true>(row)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn rotate_head(pairs: RopePairs, head: &mut [f32], angles: &[f32]) {
        bodies::rotate_head(pairs, head, angles)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn activate(activation: Activation, gate: &mut [f32], up: Option<&[f32]>) {
        bodies::activate::<true>(activation, gate, up)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn softmax_block(block: &mut SoftmaxBlock<'_>) -> f32 {
        bodies::softmax_block::<true>(block)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn product_f32(product: &mut Product<'_, f32>) {
        // SAFETY: the features of `Avx2` are enabled here.
        unsafe { bodies::product::<Avx2, f32>(product) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn product_f16(product: &mut Product<'_, f16>) {
        // SAFETY: the features of `Avx2` are enabled here.
        unsafe { bodies::product::<Avx2, f16>(product) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn product_i8(product: &mut Product<'_, i8>) {
        // SAFETY: the features of `Avx2` are enabled here.
        unsafe { bodies::product::<Avx2, i8>(product) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn to_i8(values: &[f32], inverse: f32, into: &mut [i8]) {
        bodies::to_i8(values, inverse, into)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn to_f16(values: &[f32], into: &mut [f16]) {
        // SAFETY: the features of `Avx2` are enabled here.
        unsafe { bodies::to_f16::<Avx2>(values, into) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn convolve_row(row: &mut ConvolutionRow<'_>) {
        states::convolve_row::<true>(row)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn step_state(step: &mut StateStep<'_>) {
        // SAFETY: the features of `Avx2` are enabled here.
        unsafe { states::step_state::<Avx2>(step) }
    }
}
