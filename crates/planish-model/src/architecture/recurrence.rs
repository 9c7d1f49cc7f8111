//! Blocks around a linear recurrence, as data: gated delta nets and Mamba 2.

use planish_ops::{Activation, RecurrenceShape};

use super::{ConvolutionSpec, LinearSpec, NormSpec};

/// `output(norm(recurrence(convolution(inputs(x)), steps(x))) * activation(gate(x)))`, the norm before or after the gate.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrenceSpec {
    /// Heads and their states.
    pub shape: RecurrenceShape,
    /// To queries, keys and values, (shape.cols(), hidden), or a layer for each of the three.
    pub inputs: Vec<LinearSpec>,
    /// Of queries, keys and values.
    pub convolution: ConvolutionSpec,
    /// To the gate, (heads * value_dim, hidden).
    pub gate: RankedSpec,
    /// Of the gate.
    pub gate_activation: Activation,
    /// How much each head forgets.
    pub steps: StepsSpec,
    /// What is written to the state.
    pub rule: RuleSpec,
    /// Of what the recurrence gives.
    pub norm: Option<NormSpec>,
    /// Whether the norm is before the gate.
    pub norm_first: bool,
    /// Back, (hidden, heads * value_dim).
    pub output: LinearSpec,
}

/// A layer, or two that are one of low rank.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedSpec {
    /// (rank, hidden).
    pub down: Option<LinearSpec>,
    /// (rows, rank), or (rows, hidden).
    pub layer: LinearSpec,
}

impl From<LinearSpec> for RankedSpec {
    fn from(layer: LinearSpec) -> RankedSpec {
        RankedSpec { down: None, layer }
    }
}

/// States shrink by `exp(-exp(log_rate) * step)` with `step = softplus(scale * inputs(x) + bias)` held within the limits.
#[derive(Clone, Debug, PartialEq)]
pub struct StepsSpec {
    /// (heads, hidden), or (heads * key_dim, hidden): a step for each value of a key.
    pub inputs: RankedSpec,
    /// Multiplies the inputs.
    pub scale: f32,
    /// Name of the tensor that is added. // (rows of the inputs)
    pub bias: String,
    /// Least and largest step, in this order.
    pub limits: (f32, f32),
    /// Name of the tensor of the rates' logarithms. // (heads)
    pub log_rates: String,
}

/// See [`planish_ops::Rule`].
#[derive(Clone, Debug, PartialEq)]
pub enum RuleSpec {
    /// The gated delta rule.
    Delta {
        /// (heads, hidden).
        beta: LinearSpec,
    },
    /// The scan of Mamba 2.
    Scan {
        /// Name of the tensor. // (heads)
        skip: String,
    },
}
