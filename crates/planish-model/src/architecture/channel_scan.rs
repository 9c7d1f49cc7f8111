//! The block of Mamba 1, as data.

use super::{ConvolutionSpec, LinearSpec, NormSpec};

/// `output(scan(x, steps, key(x), query(x)) * silu(gate(input)))` with `x = convolution(inputs(input))`; see
/// [`planish_ops::ChannelScan`].
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelScanSpec {
    /// To the values, (channels, hidden).
    pub inputs: LinearSpec,
    /// To the gate, (channels, hidden).
    pub gate: LinearSpec,
    /// Of the values.
    pub convolution: ConvolutionSpec,
    /// From values to what steps are made of, (rank, channels).
    pub step_inputs: LinearSpec,
    /// From values to keys, (key_dim, channels).
    pub key: LinearSpec,
    /// From values to queries, (key_dim, channels).
    pub query: LinearSpec,
    /// Of what steps are made of, of keys and of queries.
    pub norms: Option<[NormSpec; 3]>,
    /// From there to the steps, (channels, rank).
    pub steps: LinearSpec,
    /// Name of the tensor that is added to the steps. // (channels)
    pub step_bias: String,
    /// Name of the tensor of the rates' logarithms. // (channels, key_dim)
    pub log_rates: String,
    /// Name of the tensor of the values' factors in the output. // (channels)
    pub skip: String,
    /// Back, (hidden, channels).
    pub output: LinearSpec,
}
