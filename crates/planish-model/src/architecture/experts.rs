//! Routed experts, as data, and where their weights may stand in a checkpoint: Hub files have a tensor for each expert, the
//! modules of transformers 5 and files of MLX have one for all.

use std::ops::Range;

use planish_ops::{Activation, Routing};

use super::{FeedForwardSpec, LinearSpec, NormSpec};

/// `sum over the chosen of weight * down(activation(gate(x)) * up(x))`, plus shared experts that compute every row.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsSpec {
    /// (experts, hidden); the first that the checkpoint has counts.
    pub router: Vec<LinearSpec>,
    /// Of what the router reads: the hidden state itself, not what the experts read.
    pub router_norm: Option<NormSpec>,
    /// Name of a vector (experts) that multiplies the weights of the chosen.
    pub factors: Option<String>,
    /// What is added to the scores for choosing, not for weighing.
    pub score_correction: Option<ScoreCorrectionSpec>,
    /// From the router's logits to experts and weights.
    pub routing: Routing,
    /// Weights multiply what experts read, not what they give.
    pub weighs_inputs: bool,
    /// (experts, intermediate, hidden); without it `activation(up(x))`.
    pub gate: Option<StackSpec>,
    /// (experts, intermediate, hidden).
    pub up: StackSpec,
    /// (experts, hidden, intermediate).
    pub down: StackSpec,
    /// The non-linearity.
    pub activation: Activation,
    /// What computes every row.
    pub shared: Option<SharedExpertsSpec>,
}

/// A tensor with a value for each expert.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreCorrectionSpec {
    /// Its name; the first that the checkpoint has counts.
    pub names: Vec<String>,
    /// Whether it must be there.
    pub required: bool,
}

/// Experts that compute every row.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedExpertsSpec {
    /// All of them as one block.
    pub feed_forward: FeedForwardSpec,
    /// (1, hidden): its logistic function multiplies the block's result.
    pub gate: Option<LinearSpec>,
}

/// One projection of every expert, (rows, cols) each.
#[derive(Clone, Debug, PartialEq)]
pub struct StackSpec {
    /// How many experts.
    pub experts: usize,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Where the matrices may stand; the first place whose tensors the checkpoint has counts.
    pub places: Vec<StackPlace>,
    /// Where the biases may stand, likewise; none where there are none.
    pub biases: Vec<FusedStack>,
}

/// Where the matrices of a stack stand.
#[derive(Clone, Debug, PartialEq)]
pub enum StackPlace {
    /// A module for each expert; `{}` in its path stands for the expert.
    Each(String),
    /// One tensor for all, (experts, stored rows, cols).
    Fused(FusedStack),
    /// One tensor for all with columns before rows, (experts, cols, stored rows). Packed ones are stored as in `Fused`.
    Columns(FusedStack),
    /// As `Fused` or as `Columns`, as the shape says; as `Fused` where it says neither.
    Either(FusedStack),
    /// One matrix for all, (experts * stored rows, cols).
    Joined(FusedStack),
    /// One matrix for all, (experts * stored rows, rows), whose rows are the columns of these matrices.
    Transposed(FusedStack),
    /// Two tensors for all: `{name}_blocks`, (experts, stored rows, cols / 32, 16), two 4-bit floats in a byte, the first in the
    /// low bits; and `{name}_scales`, (experts, stored rows, cols / 32), exponents of powers of two.
    Mxfp4(FusedStack),
}

/// A tensor that holds something of all experts, one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct FusedStack {
    /// Name, or module path: where there is no tensor of that name, `.weight` follows.
    pub name: String,
    /// Rows that are stored for each expert.
    pub total: usize,
    /// Which of them belong to this projection.
    pub rows: FusedRows,
}

/// Rows of a projection among those stored for an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FusedRows {
    /// One after another from this one on.
    From(usize),
    /// Every second one from this one on.
    EverySecond(usize),
}

impl FusedRows {
    /// `count` rows as ranges.
    pub fn ranges(self, count: usize) -> Vec<Range<usize>> {
        match self {
            FusedRows::From(start) => std::iter::once(start..start + count).collect(),
            FusedRows::EverySecond(start) => (0..count).map(|row| start + 2 * row..start + 2 * row + 1).collect(),
        }
    }
}

impl FusedStack {
    /// A tensor that this projection has for itself.
    pub fn whole(name: impl Into<String>, rows: usize) -> FusedStack {
        FusedStack {
            name: name.into(),
            total: rows,
            rows: FusedRows::From(0),
        }
    }
}
