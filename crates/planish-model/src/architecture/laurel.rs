//! A learned augmented residual layer (Gemma 3n), as data.

use super::{LinearSpec, NormSpec};

/// `x + norm(right(left(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct LaurelSpec {
    /// (rank, hidden).
    pub left: LinearSpec,
    /// (hidden, rank).
    pub right: LinearSpec,
    /// Of what they give.
    pub norm: NormSpec,
}
