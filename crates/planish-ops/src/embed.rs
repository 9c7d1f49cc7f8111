//! Embedding: `output[row] = scale * table[tokens[row]]`.

use crate::{Ops, Shape};

/// Rows of a packed or plain table.
pub struct Embed<'a, O: Ops> {
    /// The table. // (vocabulary, cols)
    pub table: &'a O::Weight,
    /// Which rows; all below the vocabulary. // (rows)
    pub tokens: &'a [u32],
    /// Multiplies the rows.
    pub scale: f32,
    /// The result. // (rows, cols)
    pub output: &'a mut O::Tensor,
}

impl<O: Ops> Embed<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert_eq!(self.table.cols(), self.output.cols());
        assert!(self.tokens.len() <= self.output.rows());
        assert!(self.tokens.iter().all(|&token| (token as usize) < self.table.rows()));
    }
}
