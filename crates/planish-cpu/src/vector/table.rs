//! The vector kernels of an instruction set, and what they work on.

use planish_ops::{Activation, AlibiRule, NormKind, RopePairs};
use std::ops::Range;

use half::f16;

use crate::piece::Plain;

use super::lanes::Element;
use super::states::{ConvolutionRow, ScanRow, StateStep};

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

/// Adds linear biases of positions to scores (Press et al., 2021).
#[derive(Clone, Copy)]
pub struct PositionBias {
    /// That of the head.
    pub slope: f32,
    /// What becomes of slope and positions.
    pub rule: AlibiRule,
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
/// Calling any of them needs the instruction set: see [`vector_functions`](super::vector_functions).
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
    /// A row of the scan of channels.
    pub scan_row: unsafe fn(&mut ScanRow<'_>),
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
