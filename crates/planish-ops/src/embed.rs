//! Embedding: `output[row] = scale * table[tokens[row]]`.

use crate::{Ops, Shape};

/// Rows of a packed or plain table.
pub struct Embed<'a, O: Ops> {
    /// The table. // (vocabulary, cols)
    pub table: &'a O::Weight,
    /// Which rows. // (rows)
    pub tokens: Tokens<'a, O>,
    /// Multiplies the rows.
    pub scale: f32,
    /// The result. // (rows, cols)
    pub output: &'a mut O::Tensor,
}

/// Rows of a table.
pub enum Tokens<'a, O: Ops> {
    /// These, all below the vocabulary.
    Known(&'a [u32]),
    /// The one that the device chose last.
    Chosen(&'a O::Chosen),
}

impl<O: Ops> Clone for Tokens<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O: Ops> Copy for Tokens<'_, O> {}

impl<O: Ops> Tokens<'_, O> {
    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Tokens::Known(tokens) => tokens.len(),
            Tokens::Chosen(_) => 1,
        }
    }
}

impl<O: Ops> Embed<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert_eq!(self.table.cols(), self.output.cols());
        assert!(self.tokens.count() <= self.output.rows());
        if let Tokens::Known(tokens) = self.tokens {
            assert!(tokens.iter().all(|&token| (token as usize) < self.table.rows()));
        }
    }
}
