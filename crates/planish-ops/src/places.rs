//! Where the rows of a pass stand: of which sequence each is, and at which position.
//!
//! A sequence has a slot, a small number under which every layer keeps what it remembers of it: keys and values, states.
//! A pass is a list of spans. All rows of a pass go through the same products; only the operations that take [`Places`] look at
//! sequences.

use crate::{Ops, Shape};

/// Consecutive rows of a pass that are consecutive positions of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of the sequence.
    pub slot: usize,
    /// First row of the pass.
    pub first_row: usize,
    /// How many, at least one.
    pub rows: usize,
    /// Position of the first row. What was stored there and after is replaced; at 0 the sequence begins, whatever its slot held.
    pub first_position: usize,
}

impl Span {
    /// Position behind the last row: the length of the sequence after the pass.
    pub fn end_position(&self) -> usize {
        self.first_position + self.rows
    }

    /// Row behind the last.
    pub fn end_row(&self) -> usize {
        self.first_row + self.rows
    }
}

/// The rows of a pass, or a run of its spans.
pub struct Places<'a, O: Ops> {
    /// In the order of rows, without a gap; no slot stands twice.
    pub spans: &'a [Span],
    /// What the device made of all spans of the pass by [`Ops::begin_pass`].
    pub sequences: &'a O::Sequences,
}

impl<O: Ops> Clone for Places<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O: Ops> Copy for Places<'_, O> {}

impl<O: Ops> Places<'_, O> {
    /// First row.
    pub fn first_row(&self) -> usize {
        self.spans.first().map_or(0, |span| span.first_row)
    }

    /// Rows of all spans.
    pub fn rows(&self) -> usize {
        self.spans.iter().map(|span| span.rows).sum()
    }

    /// Row behind the last.
    pub fn end_row(&self) -> usize {
        self.first_row() + self.rows()
    }

    /// Panics unless the rows fit into every tensor.
    pub(crate) fn check_rows<'t>(&self, tensors: impl IntoIterator<Item = &'t O::Tensor>) {
        let end = self.end_row();
        assert!(tensors.into_iter().all(|tensor| end <= tensor.rows()));
    }
}

/// Panics unless spans follow one another without a gap, from row 0, and no sequence stands twice.
pub fn check_spans(spans: &[Span]) {
    let mut row = 0;
    for (index, span) in spans.iter().enumerate() {
        assert!(span.rows > 0 && span.first_row == row, "spans follow one another");
        let earlier = spans[..index].iter().any(|other| other.slot == span.slot);
        assert!(!earlier, "a sequence has one span in a pass");
        row = span.end_row();
    }
}

/// What a device, or one layer on it, keeps of every sequence by its slot.
pub trait SequenceStore {
    /// What sequence `from` has becomes that of `to` as well, shared until one of them changes it. What `to` had is dropped.
    fn fork(&mut self, from: usize, to: usize);

    /// Drops what a sequence has.
    fn clear(&mut self, slot: usize);
}

/// Rows of one tensor to another of as many columns and the same type of values, or elsewhere in the same one: states of sequences
/// that are forked, rows that go to the head together.
pub struct CopyRows<'a, O: Ops> {
    /// Read; `None` is the target, of which the rows read and written do not overlap.
    pub source: Option<&'a O::Tensor>,
    /// First row that is read.
    pub from: usize,
    /// Written.
    pub target: &'a mut O::Tensor,
    /// First row that is written.
    pub to: usize,
    /// How many.
    pub rows: usize,
}

impl<O: Ops> CopyRows<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        let source = self.source.unwrap_or(self.target);
        assert_eq!(source.cols(), self.target.cols());
        assert!(self.from + self.rows <= source.rows() && self.to + self.rows <= self.target.rows());
        let apart = self.from.abs_diff(self.to) >= self.rows;
        assert!(self.source.is_some() || apart, "rows are not copied onto themselves");
    }
}
