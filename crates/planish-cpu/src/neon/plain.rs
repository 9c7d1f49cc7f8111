//! Weights that are floats times x in floats: 4 or 8 rows of weights, 4 columns a step, up to 4 rows of x.

use std::arch::aarch64::*;
use std::marker::PhantomData;
use std::ops::Range;

use planish_format::FloatType;

use crate::scalar::float_at;
use crate::scratch::WorkerScratch;
use crate::table::PlainProduct;

use super::floats::{BF16, F16, F32, Place, Stored, load_four, sums_of};
use super::tiles::{FLOAT_COLUMNS, TILE_ROWS};
use super::unpack::ROWS;

/// Rows of weights for one row of x: as many chains of sums as keep the pipelines full.
const ROWS_OF_ONE: usize = 8;
/// Columns of a step.
const STEP: usize = 4;

/// COUNT rows of stored floats.
#[derive(Clone, Copy)]
pub(super) struct StoredRows<T, const COUNT: usize> {
    rows: [*const u8; COUNT],
    float_type: PhantomData<T>,
}

impl<T: Stored, const COUNT: usize> StoredRows<T, COUNT> {
    /// Rows of `data`, which is (rows, cols), from `row` and `col` on; rows after `last` are copies of it.
    pub fn new(data: &[u8], cols: usize, row: usize, last: usize, col: usize) -> Self {
        let at = |part: usize| ((row + part).min(last) * cols + col) * T::BYTES;
        StoredRows {
            rows: std::array::from_fn(|part| data[at(part)..].as_ptr()),
            float_type: PhantomData,
        }
    }
}

/// Rows of x.
pub(super) struct FloatRows<'a> {
    /// // (rows, stride)
    pub values: &'a [f32],
    pub rows: usize,
    /// Values from one row to the next.
    pub stride: usize,
}

/// Products of COUNT rows of weights with M rows of x from `input_row` on, over whole steps. // (M, COUNT) registers
///
/// # Safety
/// Weights and x must have the rows and `columns` columns.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multiply<T: Stored, const COUNT: usize, const M: usize>(
    weights: StoredRows<T, COUNT>,
    x: &FloatRows<'_>,
    columns: usize,
    input_row: usize,
) -> [[float32x4_t; COUNT]; M] {
    let mut sums = [[vdupq_n_f32(0.0); COUNT]; M];
    for col in (0..columns / STEP * STEP).step_by(STEP) {
        // SAFETY: the columns are there, by the contract.
        unsafe {
            let mut values = [vdupq_n_f32(0.0); M];
            for (m, values) in values.iter_mut().enumerate() {
                *values = vld1q_f32(x.values.as_ptr().add((input_row + m) * x.stride + col));
            }
            for (row, weights) in weights.rows.into_iter().enumerate() {
                let weights = T::load(weights.add(col * T::BYTES));
                for (sums, values) in sums.iter_mut().zip(values) {
                    sums[row] = vfmaq_f32(sums[row], weights, values);
                }
            }
        }
    }
    sums
}

/// Products of four rows of weights with all rows of x; `place` is that of the first.
///
/// # Safety
/// Weights and x must have the columns, a multiple of 4; the rows of `place` must be among those given to the caller.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn many<T: Stored>(
    weights: StoredRows<T, ROWS>,
    x: &FloatRows<'_>,
    columns: usize,
    mut place: Place<'_>,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        while place.input_row + 4 <= x.rows {
            for sums in multiply::<T, ROWS, 4>(weights, x, columns, place.input_row) {
                place.store(sums_of(sums));
                place.input_row += 1;
            }
        }
        while place.input_row < x.rows {
            let [sums] = multiply::<T, ROWS, 1>(weights, x, columns, place.input_row);
            place.store(sums_of(sums));
            place.input_row += 1;
        }
    }
}

/// Plain weights times x.
pub(super) fn plain(product: &PlainProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    // SAFETY: every AArch64 processor has the feature.
    unsafe {
        match (product.m, product.matrix.float_type) {
            (1, FloatType::F32) => one::<F32>(product, rows.clone()),
            (1, FloatType::F16) => one::<F16>(product, rows.clone()),
            (1, FloatType::BF16) => one::<BF16>(product, rows.clone()),
            _ => tiles(product, rows.clone(), scratch),
        }
    }
    add_rest(product, rows);
}

/// Products of whole steps with the only row of x.
#[target_feature(enable = "neon")]
fn one<T: Stored>(product: &PlainProduct<'_>, rows: Range<usize>) {
    let PlainProduct { matrix, output, .. } = product;
    let x = FloatRows {
        values: product.input,
        rows: 1,
        stride: matrix.cols,
    };
    for row in rows.clone().step_by(ROWS_OF_ONE) {
        let weights = StoredRows::<T, ROWS_OF_ONE>::new(&matrix.data, matrix.cols, row, rows.end - 1, 0);
        // SAFETY: matrix and x have the columns, by their checked lengths.
        let [sums] = unsafe { multiply::<T, ROWS_OF_ONE, 1>(weights, &x, matrix.cols, 0) };
        for (four, sums) in sums.as_chunks::<4>().0.iter().enumerate() {
            let row = row + 4 * four;
            if row < rows.end {
                let place = Place {
                    output,
                    input_row: 0,
                    row,
                    rows: rows.end - row,
                    add: false,
                };
                // SAFETY: the rows are those given to this call.
                unsafe { place.store(sums_of(*sums)) };
            }
        }
    }
}

/// Products of whole steps with several rows of x, through tiles of floats: spans of columns as in tiles.rs.
#[target_feature(enable = "neon")]
fn tiles(product: &PlainProduct<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let PlainProduct { matrix, output, .. } = product;
    let cols = matrix.cols;
    let tile = scratch.floats.take::<f32>(TILE_ROWS * FLOAT_COLUMNS);
    for first in (0..cols).step_by(FLOAT_COLUMNS) {
        let columns = FLOAT_COLUMNS.min(cols - first) / STEP * STEP;
        for row in rows.clone().step_by(TILE_ROWS) {
            let tile_rows = TILE_ROWS.min(rows.end - row);
            for (part, into) in tile.chunks_exact_mut(FLOAT_COLUMNS).enumerate().take(tile_rows) {
                for (step, into) in into[..columns].as_chunks_mut::<STEP>().0.iter_mut().enumerate() {
                    let index = (row + part) * cols + first + step * STEP;
                    // SAFETY: the matrix has four values there.
                    unsafe { vst1q_f32(into.as_mut_ptr(), load_four(&matrix.data, matrix.float_type, index)) };
                }
            }
            let x = FloatRows {
                values: &product.input[first..],
                rows: product.m,
                stride: cols,
            };
            for four in (0..tile_rows).step_by(ROWS) {
                let bytes = bytemuck::cast_slice(&*tile);
                let weights = StoredRows::<F32, ROWS>::new(bytes, FLOAT_COLUMNS, four, tile_rows - 1, 0);
                let place = Place {
                    output,
                    input_row: 0,
                    row: row + four,
                    rows: tile_rows - four,
                    add: first > 0,
                };
                // SAFETY: tile and x have the columns; the rows are those given to this call.
                unsafe { many(weights, &x, columns, place) };
            }
        }
    }
}

/// Adds the products of the columns after the last whole step.
fn add_rest(product: &PlainProduct<'_>, rows: Range<usize>) {
    let PlainProduct {
        matrix,
        input,
        m,
        output,
    } = product;
    let cols = matrix.cols;
    for col in cols / STEP * STEP..cols {
        for row in rows.clone() {
            let weight = float_at(&matrix.data, matrix.float_type, row * cols + col);
            for input_row in 0..*m {
                // SAFETY: the row is one of those given to this call.
                unsafe { *output.at(input_row, row) += weight * input[input_row * cols + col] };
            }
        }
    }
}
