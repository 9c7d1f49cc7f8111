//! Sums of products of inputs.

use std::sync::Arc;

use planish_gpu::{Error, Queue};

use super::basis::{BasisPlan, GpuBasis};
use crate::GpuOps;
use crate::launch::{Added, Multiply, Square, SquareStep, Tiles};

/// Sums over rows of inputs, on the device.
pub struct GpuMoments<Q: Queue> {
    ops: Arc<GpuOps<Q>>,
    cols: usize,
    rows: u32,
    /// Of products of inputs, from the diagonal on. // (cols, cols)
    squares: Q::Buffer,
    /// Of what original inputs are more, times inputs; where these are known. // (cols, cols)
    drift: Option<Q::Buffer>,
}

impl<Q: Queue> GpuMoments<Q> {
    /// Of no rows yet, of a multiple of 8 columns.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(ops: Arc<GpuOps<Q>>, cols: usize) -> Result<GpuMoments<Q>, Error> {
        Ok(GpuMoments {
            squares: ops.queue.allocate(4 * cols * cols)?,
            ops,
            cols,
            rows: 0,
            drift: None,
        })
    }

    /// The same sums again.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn copy(&self) -> Result<GpuMoments<Q>, Error> {
        let bytes = 4 * self.cols * self.cols;
        let copied = |from: &Q::Buffer| {
            let to = self.ops.queue.allocate(bytes)?;
            self.ops.queue.copy(from, &to, bytes)?;
            Ok::<_, Error>(to)
        };
        Ok(GpuMoments {
            ops: Arc::clone(&self.ops),
            cols: self.cols,
            rows: self.rows,
            squares: copied(&self.squares)?,
            drift: self.drift.as_ref().map(copied).transpose()?,
        })
    }

    /// Rows that were added.
    pub fn rows(&self) -> u64 {
        self.rows.into()
    }

    /// Columns of the inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Adds rows and, the same rows, what they were in the original model. // (rows, cols)
    ///
    /// # Errors
    /// A failing device.
    pub fn add(&mut self, inputs: &[f32], original: Option<&[f32]>) -> Result<(), Error> {
        if inputs.is_empty() {
            return Ok(());
        }
        let (ops, cols) = (&self.ops, self.cols as u32);
        let rows = (inputs.len() / self.cols) as u32;
        let product = |tiles| {
            let product = Multiply {
                left_stride: cols,
                left_transposed: true,
                added: Added::Itself,
                tiles,
                ..Multiply::new(cols, cols, rows)
            };
            product.launch()
        };
        let now = ops.uploaded(inputs)?;
        let (now, nothing) = ((&now, 0), (&ops.nothing, 0));
        ops.try_run(&product(Tiles::Upper), &[now, now, nothing, (&self.squares, 0)], false)?;
        if let Some(original) = original {
            let lost = ops.uploaded(original)?;
            let count = inputs.len() as u32;
            let square = self.square(SquareStep::Subtract { count }, 8);
            ops.try_run(&square, &[(&lost, 0), now], false)?;
            if self.drift.is_none() {
                self.drift = Some(ops.queue.allocate(4 * self.cols * self.cols)?);
            }
            if let Some(drift) = &self.drift {
                ops.try_run(&product(Tiles::All), &[(&lost, 0), now, nothing, (drift, 0)], false)?;
            }
        }
        self.rows += rows;
        ops.check_failure()
    }

    /// Makes means of the sums: the diagonal of that of products of inputs.
    ///
    /// # Errors
    /// A failing device.
    pub fn means(&mut self) -> Result<Vec<f32>, Error> {
        let (ops, parts) = (&self.ops, self.rows);
        let symmetric = self.square(SquareStep::MeanSymmetric { parts }, 8);
        ops.try_run(&symmetric, &[(&self.squares, 0)], false)?;
        if let Some(drift) = &self.drift {
            ops.try_run(&self.square(SquareStep::Mean { parts }, 8), &[(drift, 0)], false)?;
        }
        ops.diagonal(&self.squares, self.cols)
    }

    /// What codes are chosen by; `None` where the squares have no factor.
    ///
    /// # Errors
    /// The device is out of memory, or fails.
    pub fn basis(self, plan: &BasisPlan<'_>) -> Result<Option<GpuBasis<Q>>, Error> {
        GpuBasis::new(self.ops, self.cols, (self.squares, self.drift), plan)
    }

    fn square(&self, step: SquareStep, group: u32) -> crate::launch::Launch {
        let size = self.cols as u32;
        Square { step, size, group }.launch()
    }
}
