//! Activations in memory.

use std::ops::Range;

use planish_ops::Shape;

use planish_format::memory::OutOfMemory;

use crate::memory;

/// Contiguous values in f32.
#[derive(Debug, Default)]
pub struct CpuTensor {
    rows: usize,
    cols: usize,
    values: Vec<f32>, // (rows, cols)
}

impl CpuTensor {
    pub(super) fn zeros(rows: usize, cols: usize) -> Result<CpuTensor, OutOfMemory> {
        let values = memory::zeros("the tensors of a pass", rows.saturating_mul(cols))?;
        Ok(CpuTensor { rows, cols, values })
    }

    pub(super) fn row(values: &[f32]) -> Result<CpuTensor, OutOfMemory> {
        let mut tensor = CpuTensor::zeros(1, values.len())?;
        tensor.values.copy_from_slice(values);
        Ok(tensor)
    }

    /// All values. // (rows, cols)
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// As [`CpuTensor::values`].
    pub(crate) fn all_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The first rows. // (rows, cols)
    pub fn first(&self, rows: usize) -> &[f32] {
        self.rows_of(0..rows)
    }

    /// As [`CpuTensor::first`].
    pub fn first_mut(&mut self, rows: usize) -> &mut [f32] {
        self.rows_of_mut(0..rows)
    }

    /// Copies rows to where `to` is the first.
    pub(super) fn copy_within(&mut self, rows: Range<usize>, to: usize) {
        let cols = self.cols;
        self.values.copy_within(rows.start * cols..rows.end * cols, to * cols);
    }

    /// Some rows. // (rows, cols)
    pub(crate) fn rows_of(&self, rows: Range<usize>) -> &[f32] {
        &self.values[rows.start * self.cols..rows.end * self.cols]
    }

    /// As [`CpuTensor::rows_of`].
    pub(crate) fn rows_of_mut(&mut self, rows: Range<usize>) -> &mut [f32] {
        &mut self.values[rows.start * self.cols..rows.end * self.cols]
    }
}

impl Shape for CpuTensor {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }
}
