//! A feed-forward block, as data.

use planish_ops::Activation;

use super::LinearSpec;

/// What follows attention in a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForwardSpec {
    /// `down(activation(gate(x)) * up(x))`.
    Gated {
        /// (inner, hidden).
        gate: LinearSpec,
        /// (inner, hidden).
        up: LinearSpec,
        /// (hidden, inner).
        down: LinearSpec,
        /// The non-linearity.
        activation: Activation,
    },
    /// `down(activation(up(x)))`.
    Plain {
        /// (inner, hidden).
        up: LinearSpec,
        /// (hidden, inner).
        down: LinearSpec,
        /// The non-linearity.
        activation: Activation,
    },
}
