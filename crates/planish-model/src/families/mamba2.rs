//! What families with Mamba 2 layers share: the sizes under `mamba_*`, and a layer under its usual tensor names.

use super::parts::{activation, linear};
use crate::config::Config;
use crate::{
    Activation, ConvolutionSpec, Error, NormSpec, Order, RecurrenceShape, RecurrenceSpec, RuleSpec, StepsSpec,
};

/// Sizes of a Mamba 2 layer.
#[derive(Clone, Copy)]
pub(super) struct Mamba2 {
    hidden: usize,
    /// Values of all heads.
    pub(super) inner: usize,
    /// Keys and queries; heads in a row share one.
    pub(super) groups: usize,
    /// Whether `in_proj` has a bias.
    pub(super) input_bias: bool,
    shape: RecurrenceShape,
    taps: usize,
    convolution_bias: bool,
    activation: Activation,
    limits: (f32, f32),
}

/// Multiply parts of what `in_proj` gives. That of the gate is not among them: the norm before the layer has it.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub(super) value: f32,
    pub(super) key: f32,
    pub(super) query: f32,
    pub(super) step: f32,
}

impl Factors {
    /// None of them does anything.
    pub(super) const ONE: Factors = Factors {
        value: 1.0,
        key: 1.0,
        query: 1.0,
        step: 1.0,
    };
}

/// The words of a family's config for the sizes of Mamba 2.
pub(super) struct Keys {
    heads: &'static str,
    head_dim: &'static str,
    groups: &'static str,
    state: &'static str,
    taps: &'static str,
    expand: &'static str,
    input_bias: &'static str,
    convolution_bias: &'static str,
}

impl Keys {
    /// Of hybrids.
    const LONG: Keys = Keys {
        heads: "mamba_n_heads",
        head_dim: "mamba_d_head",
        groups: "mamba_n_groups",
        state: "mamba_d_state",
        taps: "mamba_d_conv",
        expand: "mamba_expand",
        input_bias: "mamba_proj_bias",
        convolution_bias: "mamba_conv_bias",
    };
    /// Of Nemotron.
    pub(super) const NEMOTRON: Keys = Keys {
        heads: "mamba_num_heads",
        head_dim: "mamba_head_dim",
        state: "ssm_state_size",
        ..Keys::SHORT
    };
    /// Of Mamba 2 alone.
    pub(super) const SHORT: Keys = Keys {
        heads: "num_heads",
        head_dim: "head_dim",
        groups: "n_groups",
        state: "state_size",
        taps: "conv_kernel",
        expand: "expand",
        input_bias: "use_bias",
        convolution_bias: "use_conv_bias",
    };
}

impl Mamba2 {
    /// `inner` is the values of all heads; `mamba_expand` times the hidden ones without it.
    pub(super) fn read(config: Config<'_>, hidden: usize, inner: Option<usize>) -> Result<Mamba2, Error> {
        Mamba2::read_keys(config, hidden, inner, &Keys::LONG)
    }

    /// The same under other keys.
    pub(super) fn read_keys(
        config: Config<'_>,
        hidden: usize,
        inner: Option<usize>,
        keys: &Keys,
    ) -> Result<Mamba2, Error> {
        let count = |key: &str, default: usize| Ok::<_, Error>(config.optional_count(key)?.unwrap_or(default));
        let inner = match inner {
            Some(inner) => inner,
            None => count(keys.expand, 2)? * hidden,
        };
        let (heads, groups) = (count(keys.heads, 128)?, count(keys.groups, 1)?);
        let head_dim = match config.value(keys.head_dim).and_then(|value| value.as_str()) {
            Some("auto") => inner / heads,
            _ => count(keys.head_dim, inner / heads)?,
        };
        if heads * head_dim != inner {
            return Err(config.error(keys.head_dim, &format!("{inner} values divided by {}", keys.heads)));
        }
        if !heads.is_multiple_of(groups) {
            return Err(config.error(keys.groups, &format!("a divisor of {}", keys.heads)));
        }
        let taps = count(keys.taps, 4)?;
        if taps < 2 {
            return Err(config.error(keys.taps, "at least 2"));
        }
        Ok(Mamba2 {
            hidden,
            inner,
            groups,
            input_bias: config.flag(keys.input_bias, false)?,
            shape: RecurrenceShape {
                heads,
                groups,
                key_dim: count(keys.state, 256)?,
                value_dim: head_dim,
                order: Order::ValueKeyQuery,
            },
            taps,
            convolution_bias: config.flag(keys.convolution_bias, true)?,
            activation: activation(config, "hidden_act", "silu")?,
            limits: limits(config)?,
        })
    }

    /// The norm of what the recurrence gives, group by group.
    pub(super) fn norm(&self, path: &str, epsilon: f32) -> NormSpec {
        NormSpec {
            width: self.inner / self.groups,
            ..NormSpec::rms(format!("{path}.norm"), self.inner, epsilon)
        }
    }

    /// A layer with the gate before the norm, if there is one.
    pub(super) fn layer(
        &self,
        path: &str,
        factors: Factors,
        norm: Option<NormSpec>,
        output_bias: bool,
    ) -> RecurrenceSpec {
        let (hidden, inner, heads) = (self.hidden, self.inner, self.shape.heads);
        let (cols, keys) = (self.shape.cols(), self.groups * self.shape.key_dim);
        let name = |part: &str| format!("{path}.{part}");
        let all = linear(name("in_proj"), inner + cols + heads, hidden, self.input_bias);
        RecurrenceSpec {
            shape: self.shape,
            gate: all.cut_run(0, inner).into(),
            gate_activation: Activation::Silu,
            inputs: vec![all.cut_run(inner, cols)],
            convolution: ConvolutionSpec {
                name: name("conv1d"),
                parts: Vec::new(),
                channels: cols,
                taps: self.taps,
                bias: self.convolution_bias,
                activation: Some(self.activation),
                factors: vec![
                    (0..inner, factors.value),
                    (inner..inner + keys, factors.key),
                    (inner + keys..cols, factors.query),
                ],
            },
            steps: StepsSpec {
                inputs: all.cut_run(inner + cols, heads).into(),
                scale: factors.step,
                bias: name("dt_bias"),
                limits: self.limits,
                log_rates: name("A_log"),
            },
            rule: RuleSpec::Scan { skip: name("D") },
            norm,
            norm_first: false,
            output: linear(name("out_proj"), hidden, inner, output_bias),
        }
    }
}

/// Least and largest step.
fn limits(config: Config<'_>) -> Result<(f32, f32), Error> {
    match config.numbers("time_step_limit")?.as_deref() {
        None => Ok((0.0, f32::INFINITY)),
        Some(&[least, most]) if 0.0 <= least && least <= most => Ok((least as f32, most as f32)),
        Some(_) => Err(config.error("time_step_limit", "the least and the largest step, at least 0")),
    }
}
