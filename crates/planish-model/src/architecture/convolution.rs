//! A causal convolution of every channel on its own, and the block that is made of one, as data.

use std::ops::Range;

use planish_ops::Activation;

use super::LinearSpec;

/// `activation(bias + sum over taps of weight[tap] * x[row + tap + 1 - taps])`, channel by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionSpec {
    /// Module path; the weight is stored as (channels, 1, taps).
    pub name: String,
    /// Module paths of parts of equal size where these are stored in its place; without biases.
    pub parts: Vec<String>,
    /// Channels.
    pub channels: usize,
    /// Rows that an output is made of, its own included; at least 2.
    pub taps: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Of the sum.
    pub activation: Option<Activation>,
    /// Multiply the input of some channels; folded into the weight.
    pub factors: Vec<(Range<usize>, f32)>,
}

/// `output(output_gate(x) * convolution(input_gate(x) * input(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConvolutionSpec {
    /// (channels, hidden).
    pub input_gate: LinearSpec,
    /// (channels, hidden).
    pub output_gate: LinearSpec,
    /// (channels, hidden).
    pub input: LinearSpec,
    /// Between the gates.
    pub convolution: ConvolutionSpec,
    /// Back, (hidden, channels).
    pub output: LinearSpec,
}
