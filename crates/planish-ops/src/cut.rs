//! Rows that are measured as a whole and changed in place: the cut of Gemma 3n, and bringing a row to the magnitude of another.

use crate::{Ops, Shape};

/// `max(x - mean(x) - deviations * deviation(x), 0)` of every row: of values that are normally distributed a known share is left.
pub struct Cut<'a, O: Ops> {
    /// Rows to cut.
    pub rows: usize,
    /// Input and output. // (rows, cols)
    pub values: &'a mut O::Tensor,
    /// How far above the mean values begin to count, in standard deviations (of all values, not of a sample).
    pub deviations: f32,
}

/// `x * sqrt(mean(like^2)) / sqrt(max(mean(x^2), floor))` of every row.
pub struct Rescale<'a, O: Ops> {
    /// Rows to scale.
    pub rows: usize,
    /// x. // (rows, cols)
    pub values: &'a mut O::Tensor,
    /// Whose magnitude they get. // (rows, cols)
    pub like: &'a O::Tensor,
    /// The least mean square of x that is divided by.
    pub floor: f32,
}

impl<O: Ops> Cut<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.values.rows());
    }
}

impl<O: Ops> Rescale<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.values.rows() && self.rows <= self.like.rows());
        assert_eq!(self.values.cols(), self.like.cols());
    }
}

/// The formula of [`Cut`] for one row, in f64.
pub fn cut_reference(values: &[f32], deviations: f32) -> Vec<f64> {
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let squares: f64 = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum();
    let least = mean + f64::from(deviations) * (squares / count).sqrt();
    values
        .iter()
        .map(|&value| (f64::from(value) - least).max(0.0))
        .collect()
}

/// The formula of [`Rescale`] for one row, in f64.
pub fn rescale_reference(values: &[f32], like: &[f32], floor: f32) -> Vec<f64> {
    let square =
        |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / values.len() as f64;
    let factor = (square(like) / square(values).max(f64::from(floor))).sqrt();
    values.iter().map(|&value| f64::from(value) * factor).collect()
}
