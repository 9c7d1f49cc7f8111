//! Scales and biases as floats with the rows of weights in lanes. // (groups, ROWS)

use std::arch::aarch64::*;
use std::ops::Range;

use planish_format::PackedMatrix;

use crate::scalar::float_at;
use crate::scratch::Buffer;

use super::floats::{load_four, transpose};

/// Rows and groups of a packed matrix.
#[derive(Clone)]
pub(super) struct Part {
    pub rows: Range<usize>,
    pub groups: Range<usize>,
}

impl Part {
    /// The row of the matrix that row `row` of the part shows: rows beyond the last are copies of it.
    pub fn row(&self, row: usize) -> usize {
        (self.rows.start + row).min(self.rows.end - 1)
    }
}

/// The scales and biases of a part of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Scales<'a> {
    /// // (groups, stride)
    pub scales: &'a [f32],
    /// // (groups, stride)
    pub biases: &'a [f32],
    /// Rows from one group to the next.
    pub stride: usize,
}

impl<'a> Scales<'a> {
    /// Loads those of ROWS rows (a multiple of 4). `offset` is what was taken from the codes; the biases make up for it.
    pub fn load<const ROWS: usize>(
        matrix: &PackedMatrix,
        part: &Part,
        offset: u8,
        buffer: &'a mut Buffer,
    ) -> Scales<'a> {
        let count = part.groups.len() * ROWS;
        let (scales, biases) = buffer.take::<f32>(2 * count).split_at_mut(count);
        // SAFETY: every AArch64 processor has the feature.
        unsafe {
            spread::<ROWS>(matrix, &matrix.scales, part, scales);
            spread::<ROWS>(matrix, &matrix.biases, part, biases);
        }
        if offset > 0 {
            for (bias, scale) in biases.iter_mut().zip(&*scales) {
                *bias += f32::from(offset) * scale;
            }
        }
        Scales {
            scales,
            biases,
            stride: ROWS,
        }
    }
}

/// Writes the part's values of `data` with rows in lanes. // (groups, ROWS)
#[target_feature(enable = "neon")]
fn spread<const ROWS: usize>(matrix: &PackedMatrix, data: &[u8], part: &Part, into: &mut [f32]) {
    let groups = matrix.cols / matrix.packing.group();
    let whole = part.groups.len() / 4 * 4;
    assert!(part.rows.end <= matrix.rows && part.groups.end <= groups);
    assert_eq!(into.len(), part.groups.len() * ROWS);
    for row in 0..ROWS {
        for group in whole..part.groups.len() {
            let index = part.row(row) * groups + part.groups.start + group;
            into[group * ROWS + row] = float_at(data, matrix.scale_type, index);
        }
    }
    for row in (0..ROWS).step_by(4) {
        for group in (0..whole).step_by(4) {
            let mut values = [vdupq_n_f32(0.0); 4];
            for (lane, values) in values.iter_mut().enumerate() {
                let index = part.row(row + lane) * groups + part.groups.start + group;
                // SAFETY: the matrix has the row and four groups, by the assertion; its lengths were checked.
                *values = unsafe { load_four(data, matrix.scale_type, index) };
            }
            for (column, values) in transpose(values).into_iter().enumerate() {
                // SAFETY: four lanes of a group within `into`, by the assertion.
                unsafe { vst1q_f32(into.as_mut_ptr().add((group + column) * ROWS + row), values) };
            }
        }
    }
}
