//! RMS norm (Zhang and Sennrich, 2019): `hidden += residual; output = hidden / sqrt(mean(hidden^2) + epsilon) * weight`.

use std::ops::Range;

use crate::{Ops, Shape};

/// Rows to normalize. A row is `weight.cols()` long, which divides the columns of the tensors: heads are normalized each
/// on its own that way.
pub struct RmsNorm<'a, O: Ops> {
    /// Which rows of `hidden` and `residual`; the output starts at its row 0.
    pub rows: Range<usize>,
    /// Holds `hidden + residual` afterwards. // (rows, cols)
    pub hidden: &'a mut O::Tensor,
    /// Added first. // (rows, cols)
    pub residual: Option<&'a O::Tensor>,
    /// Factors of the normalized values. // (1, row)
    pub weight: &'a O::Tensor,
    /// Added to the mean square.
    pub epsilon: f32,
    /// The result; `None` writes it over `hidden`. // (rows, cols)
    pub output: Option<&'a mut O::Tensor>,
}

impl<O: Ops> RmsNorm<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        let cols = self.hidden.cols();
        assert!(self.rows.end <= self.hidden.rows() && cols.is_multiple_of(self.weight.cols()));
        assert!(
            self.residual
                .is_none_or(|residual| residual.cols() == cols && self.rows.end <= residual.rows())
        );
        assert!(
            self.output
                .as_ref()
                .is_none_or(|output| output.cols() == cols && self.rows.len() <= output.rows())
        );
    }
}

/// The formula for one row, in f64.
pub fn rms_norm_reference(hidden: &[f32], weight: &[f32], epsilon: f32) -> Vec<f64> {
    let squares: f64 = hidden.iter().map(|&value| f64::from(value).powi(2)).sum();
    let factor = 1.0 / (squares / hidden.len() as f64 + f64::from(epsilon)).sqrt();
    hidden
        .iter()
        .zip(weight)
        .map(|(&value, &weight)| f64::from(value) * factor * f64::from(weight))
        .collect()
}
