//! Norms of rows: `hidden += factor * residual; output = normalized(hidden) * weight + bias`.

use crate::Cpu;
use crate::share::{SharedSlice, share_rows};
use crate::vector::NormRow;
use planish_ops::NormKind;

/// Rows to normalize. A row is `width` long; weight and bias may cover several rows that lie side by side (the heads of a
/// layer) and repeat after them.
pub struct Norm<'a> {
    /// The formula.
    pub kind: NormKind,
    /// Values of a row.
    pub width: usize,
    /// Holds `hidden + factor * residual` afterwards. // (rows, width)
    pub hidden: &'a mut [f32],
    /// Added first, times the factor. // (rows, width)
    pub residual: Option<(&'a [f32], f32)>,
    /// Factors of the normalized values. // (a multiple of width)
    pub weight: Option<&'a [f32]>,
    /// Added at the end. // (a multiple of width)
    pub bias: Option<&'a [f32]>,
    /// Added to the mean square or the variance.
    pub epsilon: f32,
    /// The result; `None` writes it over `hidden`. // (rows, width)
    pub output: Option<&'a mut [f32]>,
}

/// Normalizes every row.
pub fn norm(cpu: &Cpu, problem: Norm<'_>) {
    let Norm {
        kind,
        width,
        hidden,
        residual,
        weight,
        bias,
        epsilon,
        output,
    } = problem;
    let len = hidden.len();
    assert!(len.is_multiple_of(width));
    assert!(residual.is_none_or(|(residual, _)| residual.len() == len));
    assert!(output.as_ref().is_none_or(|output| output.len() == len));
    let fits = |values: &[f32]| !values.is_empty() && values.len().is_multiple_of(width);
    assert!(weight.is_none_or(fits) && bias.is_none_or(fits));
    let functions = cpu.vector();
    let hidden = SharedSlice::new(hidden);
    let output = output.map(SharedSlice::new);
    share_rows(cpu.pool(), len / width, width, |share| {
        for row in share {
            let range = row * width..(row + 1) * width;
            let part = |values: &'_ [f32]| row * width % values.len();
            // SAFETY: every row belongs to one share; the functions are those this machine supports.
            unsafe {
                (functions.norm_row)(&mut NormRow {
                    kind,
                    hidden: hidden.range(range.clone()),
                    residual: residual.map(|(residual, factor)| (&residual[range.clone()], factor)),
                    weight: weight.map(|weight| &weight[part(weight)..][..width]),
                    bias: bias.map(|bias| &bias[part(bias)..][..width]),
                    epsilon,
                    output: output.as_ref().map(|output| output.range(range.clone())),
                });
            }
        }
    });
}
