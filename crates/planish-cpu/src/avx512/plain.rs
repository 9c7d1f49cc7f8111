//! Plain weights times one row of x: four rows of weights at once, 16 columns a step.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::table::PlainProduct;

use super::lanes::{FAR, NEAR, ahead, load_floats};

/// Columns of one step.
const STEP: usize = 16;

/// Products of rows with the only row of x.
pub(super) fn one(product: &PlainProduct<'_>, rows: Range<usize>) {
    let mut row = rows.start;
    // SAFETY: the table of instruction sets offers this function only where the features are there; the rows are in the
    // matrix, whose length was checked.
    unsafe {
        while row + 4 <= rows.end {
            some_rows::<4>(product, row);
            row += 4;
        }
        while row < rows.end {
            some_rows::<1>(product, row);
            row += 1;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn some_rows<const ROWS: usize>(product: &PlainProduct<'_>, row: usize) {
    let PlainProduct {
        matrix, input, output, ..
    } = product;
    let cols = matrix.cols;
    let step_bytes = STEP * matrix.float_type.size_bytes();
    let row_bytes = cols * matrix.float_type.size_bytes();
    let [near, far] = [NEAR, FAR].map(|distance| ahead(distance, ROWS, row_bytes));
    // Two sums a row: the chain of one would be slower than the loads.
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (step, x) in input.chunks(STEP).enumerate() {
        let mask = if x.len() == STEP { u16::MAX } else { (1 << x.len()) - 1 };
        // SAFETY: the columns of the step are in x and in every row; masks hide what is beyond the last.
        unsafe {
            let values = _mm512_maskz_loadu_ps(mask, x.as_ptr());
            for (part, sums) in sums.iter_mut().enumerate() {
                let at = (row + part) * cols + step * STEP;
                let address = matrix.data.as_ptr().wrapping_add(at * matrix.float_type.size_bytes());
                if (step * step_bytes).is_multiple_of(64) {
                    _mm_prefetch::<_MM_HINT_T0>(address.wrapping_add(near).cast());
                    _mm_prefetch::<_MM_HINT_T1>(address.wrapping_add(far).cast());
                }
                let weights = load_floats(&matrix.data, matrix.float_type, at, x.len());
                sums[step % 2] = _mm512_fmadd_ps(weights, values, sums[step % 2]);
            }
        }
    }
    for (part, sums) in sums.into_iter().enumerate() {
        // SAFETY: the rows are those given to this call.
        unsafe { *output.at(0, row + part) = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])) };
    }
}
