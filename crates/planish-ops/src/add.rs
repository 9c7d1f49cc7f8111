//! Addition: `target += factor * source`.

use crate::{Ops, Shape};

/// Rows to add.
pub struct Add<'a, O: Ops> {
    /// Rows to add to.
    pub rows: usize,
    /// Input and output. // (rows, cols)
    pub target: &'a mut O::Tensor,
    /// What is added. // (rows, cols)
    pub source: &'a O::Tensor,
    /// Multiplies what is added.
    pub factor: f32,
}

impl<O: Ops> Add<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.target.rows() && self.rows <= self.source.rows());
        assert_eq!(self.target.cols(), self.source.cols());
    }
}
