//! Floats with AVX2: loading f32, f16 and bf16 as f32, and plain weights times x.

use std::arch::x86_64::*;
use std::ops::Range;

use planish_format::FloatType;

use crate::scalar::float_at;
use crate::table::PlainProduct;

/// Values of a register.
const STEP: usize = 8;

/// `count` (at most 8) floats from value `index` on, then zeros.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_floats(data: &[u8], float_type: FloatType, index: usize, count: usize) -> __m256 {
    if count < STEP {
        let mut values = [0.0; STEP];
        for (value, index) in values.iter_mut().zip(index..index + count) {
            *value = float_at(data, float_type, index);
        }
        // SAFETY: eight values are there.
        return unsafe { _mm256_loadu_ps(values.as_ptr()) };
    }
    let data = &data[index * float_type.size_bytes()..][..STEP * float_type.size_bytes()];
    // SAFETY: eight values are there, by the slicing above.
    unsafe {
        match float_type {
            FloatType::F32 => _mm256_loadu_ps(data.as_ptr().cast()),
            FloatType::F16 => _mm256_cvtph_ps(_mm_loadu_si128(data.as_ptr().cast())),
            FloatType::BF16 => {
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(data.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
            }
        }
    }
}

/// Sum of all lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_lanes(values: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Plain weights times x.
pub(super) fn plain(product: &PlainProduct<'_>, rows: Range<usize>) {
    // SAFETY: the table of instruction sets offers this function only where the features are there.
    unsafe { all_rows(product, rows) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn all_rows(product: &PlainProduct<'_>, rows: Range<usize>) {
    let mut row = rows.start;
    while product.m == 1 && row + 4 <= rows.end {
        tile::<4, 1>(product, row, 0);
        row += 4;
    }
    for row in row..rows.end {
        let mut x_row = 0;
        while x_row + 4 <= product.m {
            tile::<1, 4>(product, row, x_row);
            x_row += 4;
        }
        (x_row..product.m).for_each(|x_row| tile::<1, 1>(product, row, x_row));
    }
}

/// Products of ROWS rows from `row` on with M rows of x from `x_row` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const ROWS: usize, const M: usize>(product: &PlainProduct<'_>, row: usize, x_row: usize) {
    let PlainProduct {
        matrix, input, output, ..
    } = product;
    let cols = matrix.cols;
    let mut sums = [[[_mm256_setzero_ps(); 2]; M]; ROWS];
    for (step, col) in (0..cols).step_by(STEP).enumerate() {
        let count = STEP.min(cols - col);
        for (part, sums) in sums.iter_mut().enumerate() {
            let weights = load_floats(&matrix.data, matrix.float_type, (row + part) * cols + col, count);
            for (x, sums) in sums.iter_mut().enumerate() {
                let values = &input[(x_row + x) * cols + col..][..count];
                let values = load_floats(bytemuck::cast_slice(values), FloatType::F32, 0, count);
                sums[step % 2] = _mm256_fmadd_ps(weights, values, sums[step % 2]);
            }
        }
    }
    for (part, sums) in sums.into_iter().enumerate() {
        for (x, [even, odd]) in sums.into_iter().enumerate() {
            // SAFETY: the rows are those given to this call.
            unsafe { *output.at(x_row + x, row + part) = sum_lanes(_mm256_add_ps(even, odd)) };
        }
    }
}
