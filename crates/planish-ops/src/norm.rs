//! Norms of rows: `hidden += factor * residual; output = normalized(hidden) * weight + bias`. Normalized is
//! `x / sqrt(mean(x^2) + epsilon)` (RMS norm: Zhang and Sennrich, 2019) or `(x - mean) / sqrt(variance + epsilon)` (layer
//! norm: Ba et al., 2016).

use std::ops::Range;

use crate::{Ops, Shape};

/// How a row is normalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + epsilon)`.
    Rms,
    /// `(x - mean(x)) / sqrt(variance(x) + epsilon)`.
    Layer,
    /// x itself: weight and bias are all there is.
    Identity,
}

/// Rows to normalize. `width` values are normalized together; it divides the columns, so that heads are normalized each on
/// its own. Weight and bias cover one or more such widths and repeat along the columns.
pub struct Norm<'a, O: Ops> {
    /// The formula.
    pub kind: NormKind,
    /// Which rows of `hidden` and `residual`; the output starts at its row 0.
    pub rows: Range<usize>,
    /// Values normalized together.
    pub width: usize,
    /// Holds `hidden + factor * residual` afterwards. // (rows, cols)
    pub hidden: &'a mut O::Tensor,
    /// Added first. // (rows, cols)
    pub residual: Option<Residual<'a, O>>,
    /// Factors of the normalized values. // (1, size)
    pub weight: Option<&'a O::Tensor>,
    /// Added at the end. // (1, size)
    pub bias: Option<&'a O::Tensor>,
    /// Added to the mean square or the variance.
    pub epsilon: f32,
    /// The result; `None` writes it over `hidden`. // (rows, cols)
    pub output: Option<&'a mut O::Tensor>,
}

/// What a block leaves to be added to the hidden state.
pub struct Residual<'a, O: Ops> {
    /// The values. // (rows, cols)
    pub tensor: &'a O::Tensor,
    /// Multiplies them.
    pub factor: f32,
}

impl<O: Ops> Norm<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        let cols = self.hidden.cols();
        assert!(self.rows.end <= self.hidden.rows() && cols.is_multiple_of(self.width));
        for values in [self.weight, self.bias].into_iter().flatten() {
            assert!(values.cols().is_multiple_of(self.width) && cols.is_multiple_of(values.cols()));
        }
        let fits =
            |residual: &Residual<'_, O>| residual.tensor.cols() == cols && self.rows.end <= residual.tensor.rows();
        assert!(self.residual.as_ref().is_none_or(fits));
        assert!(
            self.output
                .as_ref()
                .is_none_or(|output| output.cols() == cols && self.rows.len() <= output.rows())
        );
    }
}

/// The formula for values normalized together, before weight and bias, in f64.
pub fn norm_reference(kind: NormKind, hidden: &[f32], epsilon: f32) -> Vec<f64> {
    let count = hidden.len() as f64;
    let wide = hidden.iter().map(|&value| f64::from(value));
    let mean = match kind {
        NormKind::Identity => return wide.collect(),
        NormKind::Rms => 0.0,
        NormKind::Layer => wide.clone().sum::<f64>() / count,
    };
    let squares: f64 = wide.clone().map(|value| (value - mean).powi(2)).sum();
    let factor = 1.0 / (squares / count + f64::from(epsilon)).sqrt();
    wide.map(|value| (value - mean) * factor).collect()
}
