//! RMS norm of rows: `hidden += residual; output = hidden / sqrt(mean(hidden^2) + epsilon) * weight`.

use crate::Pool;
use crate::share::{SharedSlice, share_rows};
use crate::vector::{NormRow, vector_functions};

/// Rows to normalize.
pub struct RmsNorm<'a> {
    /// Holds `hidden + residual` afterwards. // (rows, cols)
    pub hidden: &'a mut [f32],
    /// Added first. // (rows, cols)
    pub residual: Option<&'a [f32]>,
    /// Factors of the normalized values. // (cols)
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
    /// The result; `None` writes it over `hidden`. // (rows, cols)
    pub output: Option<&'a mut [f32]>,
}

/// Normalizes every row.
pub fn rms_norm(pool: &Pool, problem: RmsNorm<'_>) {
    let RmsNorm {
        hidden,
        residual,
        weight,
        epsilon,
        output,
    } = problem;
    let cols = weight.len();
    let rows = hidden.len() / cols;
    assert_eq!(hidden.len(), rows * cols);
    assert!(residual.is_none_or(|residual| residual.len() == rows * cols));
    assert!(output.as_ref().is_none_or(|output| output.len() == rows * cols));
    let functions = vector_functions();
    let hidden = SharedSlice::new(hidden);
    let output = output.map(SharedSlice::new);
    share_rows(pool, rows, cols, |share| {
        for row in share {
            let range = row * cols..(row + 1) * cols;
            // SAFETY: every row belongs to one share; the functions are those this machine supports.
            unsafe {
                (functions.norm_row)(&mut NormRow {
                    hidden: hidden.range(range.clone()),
                    residual: residual.map(|residual| &residual[range.clone()]),
                    weight,
                    epsilon,
                    output: output.as_ref().map(|output| output.range(range.clone())),
                });
            }
        }
    });
}
