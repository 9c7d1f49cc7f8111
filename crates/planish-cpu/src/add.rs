//! Sums: a tensor added to another, a vector added to every row.

use planish_ops::Add;

use crate::share::{SharedSlice, share_rows};
use crate::{CpuOps, Pool};

/// Values handled together: a share of all.
const CHUNK: usize = 1024;

/// `target += factor * source`.
pub(crate) fn add(pool: &Pool, problem: Add<'_, CpuOps>) {
    let Add {
        rows,
        target,
        source,
        factor,
    } = problem;
    let (target, source) = (target.first_mut(rows), source.first(rows));
    let len = target.len();
    let target = SharedSlice::new(target);
    share_rows(pool, len.div_ceil(CHUNK), CHUNK, |share| {
        let range = share.start * CHUNK..(share.end * CHUNK).min(len);
        // SAFETY: shares do not overlap.
        let target = unsafe { target.range(range.clone()) };
        for (target, source) in target.iter_mut().zip(&source[range]) {
            *target += factor * source;
        }
    });
}

/// `row += values` for every row. `rows` are (.., values.len()).
pub(crate) fn add_to_rows(pool: &Pool, rows: &mut [f32], values: &[f32]) {
    let cols = values.len();
    let count = rows.len() / cols;
    assert_eq!(rows.len(), count * cols);
    let rows = SharedSlice::new(rows);
    share_rows(pool, count, cols, |share| {
        // SAFETY: shares do not overlap.
        let rows = unsafe { rows.range(share.start * cols..share.end * cols) };
        for row in rows.chunks_exact_mut(cols) {
            row.iter_mut().zip(values).for_each(|(row, value)| *row += value);
        }
    });
}
