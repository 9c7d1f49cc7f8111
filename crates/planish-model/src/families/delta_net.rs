//! A gated delta net under its usual keys and tensor names.

use std::ops::Range;

use super::parts::linear;
use crate::config::Config;
use crate::{
    Activation, ConvolutionSpec, Error, LinearSpec, NormSpec, Order, RecurrenceShape, RecurrenceSpec, RuleSpec,
    StepsSpec,
};

/// Sizes of a gated delta net.
pub(super) struct DeltaNet {
    hidden: usize,
    shape: RecurrenceShape,
    taps: usize,
}

/// The layers that the input goes through.
struct Inputs {
    /// To queries, keys and values.
    all: LinearSpec,
    gate: LinearSpec,
    steps: LinearSpec,
    beta: LinearSpec,
}

impl DeltaNet {
    /// From the keys under `linear_*`.
    pub(super) fn read(config: Config<'_>, hidden: usize) -> Result<DeltaNet, Error> {
        let shape = RecurrenceShape {
            heads: config.count("linear_num_value_heads")?,
            groups: config.count("linear_num_key_heads")?,
            key_dim: config.count("linear_key_head_dim")?,
            value_dim: config.count("linear_value_head_dim")?,
            order: Order::QueryKeyValue,
        };
        if !shape.heads.is_multiple_of(shape.groups) {
            return Err(config.error("linear_num_key_heads", "a divisor of linear_num_value_heads"));
        }
        let taps = config.count("linear_conv_kernel_dim")?;
        match taps {
            1 => Err(config.error("linear_conv_kernel_dim", "at least 2")),
            _ => Ok(DeltaNet { hidden, shape, taps }),
        }
    }

    /// `in_proj_qkvz` holds, key head by key head, the query, the key, the values and the gates of its value heads;
    /// `in_proj_ba` their beta and steps.
    pub(super) fn layer(&self, path: &str, epsilon: f32, activation: Activation) -> RecurrenceSpec {
        let RecurrenceShape {
            heads,
            groups,
            key_dim,
            value_dim,
            ..
        } = self.shape;
        let name = |part: &str| format!("{path}.{part}");
        let shared = heads / groups;
        let rows = 2 * key_dim + 2 * shared * value_dim;
        let wide = linear(name("in_proj_qkvz"), groups * rows, self.hidden, false);
        let narrow = linear(name("in_proj_ba"), 2 * heads, self.hidden, false);
        let gate = 2 * key_dim + shared * value_dim..rows;
        let parts = [0..key_dim, key_dim..2 * key_dim, 2 * key_dim..gate.start];
        let of_groups = |part: &Range<usize>| {
            let part = part.clone();
            (0..groups).map(move |group| group * rows + part.start..group * rows + part.end)
        };
        let inputs = Inputs {
            all: wide.cut(parts.iter().flat_map(of_groups).collect()),
            gate: wide.cut_heads(groups, rows, gate),
            steps: narrow.cut_heads(groups, 2 * shared, shared..2 * shared),
            beta: narrow.cut_heads(groups, 2 * shared, 0..shared),
        };
        self.of(path, inputs, epsilon, activation)
    }

    /// Four layers of their own: queries, keys and values of all heads in this order; gates; beta; steps.
    pub(super) fn layer_of_four(&self, path: &str, epsilon: f32, activation: Activation) -> RecurrenceSpec {
        let RecurrenceShape { heads, value_dim, .. } = self.shape;
        let input = |part: &str, rows| linear(format!("{path}.{part}"), rows, self.hidden, false);
        let inputs = Inputs {
            all: input("in_proj_qkv", self.shape.cols()),
            gate: input("in_proj_z", heads * value_dim),
            steps: input("in_proj_a", heads),
            beta: input("in_proj_b", heads),
        };
        self.of(path, inputs, epsilon, activation)
    }

    fn of(&self, path: &str, inputs: Inputs, epsilon: f32, activation: Activation) -> RecurrenceSpec {
        let RecurrenceShape { heads, value_dim, .. } = self.shape;
        let name = |part: &str| format!("{path}.{part}");
        RecurrenceSpec {
            shape: self.shape,
            inputs: vec![inputs.all],
            gate: inputs.gate.into(),
            gate_activation: Activation::Silu,
            convolution: ConvolutionSpec {
                name: name("conv1d"),
                parts: Vec::new(),
                channels: self.shape.cols(),
                taps: self.taps,
                bias: false,
                activation: Some(activation),
                factors: Vec::new(),
            },
            steps: StepsSpec {
                inputs: inputs.steps.into(),
                scale: 1.0,
                bias: name("dt_bias"),
                limits: (0.0, f32::INFINITY),
                log_rates: name("A_log"),
            },
            rule: RuleSpec::Delta { beta: inputs.beta },
            norm: Some(NormSpec::rms(name("norm"), value_dim, epsilon)),
            norm_first: true,
            output: linear(name("out_proj"), self.hidden, heads * value_dim, false),
        }
    }
}
