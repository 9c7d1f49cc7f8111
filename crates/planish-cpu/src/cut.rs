//! Rows that are measured as a whole and changed in place.

use planish_ops::{Cut, Rescale, Shape};

use crate::share::{SharedSlice, share_rows};
use crate::{CpuOps, Pool};

/// Cuts every row.
pub(crate) fn cut(pool: &Pool, problem: Cut<'_, CpuOps>) {
    let Cut {
        rows,
        values,
        deviations,
    } = problem;
    let cols = values.cols();
    let values = SharedSlice::new(values.first_mut(rows));
    share_rows(pool, rows, cols, |share| {
        for row in share {
            // SAFETY: every row belongs to one share.
            let row = unsafe { values.part(row, cols) };
            let mean = sum_of(row, |value| value) / cols as f32;
            let variance = sum_of(row, |value| (value - mean) * (value - mean)) / cols as f32;
            let least = mean + deviations * variance.sqrt();
            row.iter_mut().for_each(|value| *value = (*value - least).max(0.0));
        }
    });
}

/// Scales every row.
pub(crate) fn rescale(pool: &Pool, problem: Rescale<'_, CpuOps>) {
    let Rescale {
        rows,
        values,
        like,
        floor,
    } = problem;
    let cols = values.cols();
    let like = like.first(rows);
    let values = SharedSlice::new(values.first_mut(rows));
    share_rows(pool, rows, cols, |share| {
        for row in share {
            let square = |values: &[f32]| sum_of(values, |value| value * value) / cols as f32;
            let wanted = square(&like[row * cols..][..cols]).sqrt();
            // SAFETY: every row belongs to one share.
            let row = unsafe { values.part(row, cols) };
            let factor = wanted / square(row).max(floor).sqrt();
            row.iter_mut().for_each(|value| *value *= factor);
        }
    });
}

/// In several sums at once, as vectors add.
fn sum_of(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &value)| *sum += of(value));
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&value| of(value)).sum::<f32>()
}
