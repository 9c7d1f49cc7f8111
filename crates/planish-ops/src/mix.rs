//! Weighted sums of neighbouring parts of a row: `target[b] (+)= sum over a of factors[b, a] * source[a]`, for parts of `width` values.

use std::ops::Range;

use crate::{Ops, Shape};

/// Rows to mix.
pub struct Mix<'a, O: Ops> {
    /// Rows to compute.
    pub rows: usize,
    /// Values of a part.
    pub width: usize,
    /// For each part of the target that is written one for each part of the source, in f32; `None` are ones.
    /// // (rows, parts.len() * source parts)
    pub factors: Option<&'a O::Tensor>,
    /// (rows, source parts * width)
    pub source: &'a O::Tensor,
    /// (rows, target parts * width)
    pub target: &'a mut O::Tensor,
    /// Parts of the target that are written; others stay.
    pub parts: Range<usize>,
    /// The sums are added to what is there.
    pub adds: bool,
}

impl<O: Ops> Mix<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.source.rows() && self.rows <= self.target.rows());
        assert!(self.source.cols().is_multiple_of(self.width) && self.target.cols().is_multiple_of(self.width));
        assert!(self.parts.start <= self.parts.end && self.parts.end * self.width <= self.target.cols());
        let factors = self.parts.len() * (self.source.cols() / self.width);
        let fits = |tensor: &O::Tensor| tensor.cols() == factors && self.rows <= tensor.rows();
        assert!(self.factors.is_none_or(fits));
    }
}

/// The formula for one part of one row, in f64: what is there, and factors and parts of the source.
pub fn mix_reference(base: &[f32], factors: &[f32], source: &[f32]) -> Vec<f64> {
    let width = base.len();
    let sum = |index: usize| {
        let parts = source.chunks_exact(width).zip(factors);
        let terms = parts.map(|(part, &factor)| f64::from(factor) * f64::from(part[index]));
        f64::from(base[index]) + terms.sum::<f64>()
    };
    (0..width).map(sum).collect()
}
