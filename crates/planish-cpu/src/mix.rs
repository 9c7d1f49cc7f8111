//! Weighted sums of neighbouring parts of a row.

use planish_ops::{Mix, Shape};

use crate::share::{SharedSlice, share_rows};
use crate::{CpuOps, CpuTensor, Pool};

/// Mixes every row.
pub(crate) fn mix(pool: &Pool, problem: Mix<'_, CpuOps>) {
    let Mix {
        rows,
        width,
        factors,
        source,
        target,
        parts,
        adds,
    } = problem;
    let (inputs, cols) = (source.cols() / width, target.cols());
    let factors = factors.map(CpuTensor::values);
    let source = source.first(rows);
    let target = SharedSlice::new(target.first_mut(rows));
    share_rows(pool, rows * parts.len(), inputs * width, |share| {
        for index in share {
            let (row, part) = (index / parts.len(), parts.start + index % parts.len());
            let start = row * cols + part * width;
            // SAFETY: every part of a row belongs to one share.
            let target = unsafe { target.range(start..start + width) };
            if !adds {
                target.fill(0.0);
            }
            for (input, source) in source[row * inputs * width..][..inputs * width]
                .chunks_exact(width)
                .enumerate()
            {
                let factor = factors.map_or(1.0, |factors| factors[index * inputs + input]);
                for (target, source) in target.iter_mut().zip(source) {
                    *target += factor * source;
                }
            }
        }
    });
}
