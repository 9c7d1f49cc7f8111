//! Work on parts of heads, for latent attention (DeepSeek-V2, 2024): a matrix for each head, and copies between layouts.

use crate::{Ops, Shape, StackShape};

/// A run of columns in every head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPart {
    /// Columns of a head.
    pub stride: usize,
    /// First column of the part.
    pub start: usize,
}

/// `output[head] = weights[head] x input[head]` for parts of heads.
pub struct HeadLinear<'a, O: Ops> {
    /// Rows to compute.
    pub rows: usize,
    /// (features, cols) of every head.
    pub weights: &'a O::Stack,
    /// // (rows, heads * from.stride)
    pub input: &'a O::Tensor,
    /// Where the columns that are read lie.
    pub from: HeadPart,
    /// // (rows, heads * to.stride)
    pub output: &'a mut O::Tensor,
    /// Where the features go; other columns stay.
    pub to: HeadPart,
}

/// `output[head] = input[head]` for parts of heads.
pub struct CopyHeads<'a, O: Ops> {
    /// Rows to copy.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Columns of a part.
    pub width: usize,
    /// // (rows, heads * from.stride)
    pub input: &'a O::Tensor,
    /// Where the columns that are read lie.
    pub from: HeadPart,
    /// // (rows, heads * to.stride)
    pub output: &'a mut O::Tensor,
    /// Where they go; other columns stay.
    pub to: HeadPart,
}

impl<O: Ops> HeadLinear<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        let heads = self.weights.count();
        assert!(self.rows <= self.input.rows() && self.rows <= self.output.rows());
        assert!(self.input.cols() == heads * self.from.stride && self.output.cols() == heads * self.to.stride);
        assert!(self.from.start + self.weights.cols() <= self.from.stride);
        assert!(self.to.start + self.weights.rows() <= self.to.stride);
    }
}

impl<O: Ops> CopyHeads<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.input.rows() && self.rows <= self.output.rows());
        assert!(
            self.input.cols() == self.heads * self.from.stride && self.output.cols() == self.heads * self.to.stride
        );
        assert!(self.from.start + self.width <= self.from.stride && self.to.start + self.width <= self.to.stride);
    }
}
