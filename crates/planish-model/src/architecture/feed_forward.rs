//! A feed-forward block, as data.

use planish_ops::Activation;

use super::{LinearSpec, NormSpec};

/// What follows attention in a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForwardSpec {
    /// `down(norm(activation(cut(gate(x))) * up(x)))`.
    Gated {
        /// (intermediate, hidden).
        gate: LinearSpec,
        /// (intermediate, hidden).
        up: LinearSpec,
        /// (hidden, intermediate).
        down: LinearSpec,
        /// The non-linearity.
        activation: Activation,
        /// Of the gate only what is so many standard deviations above its mean counts, as that much more.
        cut: Option<f32>,
        /// Of what the last layer reads.
        norm: Option<NormSpec>,
    },
    /// `down(activation(up(x)))`.
    Plain {
        /// (intermediate, hidden).
        up: LinearSpec,
        /// (hidden, intermediate).
        down: LinearSpec,
        /// The non-linearity.
        activation: ActivationSpec,
    },
}

/// A non-linearity, and where it is learned.
#[derive(Clone, Debug, PartialEq)]
pub enum ActivationSpec {
    /// Nothing to load.
    Fixed(Activation),
    /// xIELU. `NAME.alpha_p` and `NAME.alpha_n` are learned; `NAME.beta` and `NAME.eps` may be stored.
    Xielu(String),
}

impl From<Activation> for ActivationSpec {
    fn from(activation: Activation) -> ActivationSpec {
        ActivationSpec::Fixed(activation)
    }
}
