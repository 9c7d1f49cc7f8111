//! Embedding: `output[row] = scale * table[tokens[row]]`.

use crate::{Ops, Places, Shape, Span};

/// Rows of a packed or plain table.
pub struct Embed<'a, O: Ops> {
    /// The table. // (vocabulary, cols)
    pub table: &'a O::Weight,
    /// Which rows; tokens beyond the table take its first. // (rows)
    pub tokens: Tokens<'a, O>,
    /// Multiplies the rows.
    pub scale: f32,
    /// The result. // (rows, cols)
    pub output: &'a mut O::Tensor,
}

/// Rows of a table.
pub enum Tokens<'a, O: Ops> {
    /// These.
    Known(&'a [u32]),
    /// Of each row these, or the one that the device chose last for its sequence.
    Chosen {
        /// The slots of the rows.
        places: Places<'a, O>,
        /// `None` is the chosen one. // (rows)
        known: &'a [Option<u32>],
        /// By [`Ops::choose`].
        chosen: &'a O::Chosen,
    },
    /// Those of the rows' positions, counted from a row of the table.
    Positions {
        /// The positions.
        places: Places<'a, O>,
        /// Row of position 0.
        offset: usize,
    },
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
            Tokens::Chosen { places, .. } | Tokens::Positions { places, .. } => places.rows(),
        }
    }
}

impl<O: Ops> Embed<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert_eq!(self.table.cols(), self.output.cols());
        assert!(self.tokens.count() <= self.output.rows());
        let rows = self.table.rows();
        match self.tokens {
            Tokens::Known(_) => {}
            Tokens::Chosen { places, known, .. } => assert!(known.len() == places.rows() && places.first_row() == 0),
            Tokens::Positions { places, offset } => {
                let known = |span: &Span| offset + span.end_position() <= rows;
                assert!(places.spans.iter().all(known) && places.first_row() == 0);
            }
        }
    }
}
